"""Images of tensorflow-datasets: read by their numbers where a set is prepared for that, else into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil

from divtf.data.images import LazyImages
from divtf.data.splits import Splits
from divtf.errors import InputError, first_line, require

TRAIN, TESTS = "train", ("test", "validation")
# The format whose records can be read by their numbers.
_BY_NUMBER = "array_record"


def known(name: str, data_dir: str | None) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Training and test (images, labels), in memory, of a set whose form is known.

    Raises:
        InputError: if it is not prepared and cannot be.
    """
    with _expecting(name, data_dir, "take the embedded --dataset=mnist5k"):
        builder = _prepared(name, data_dir)
        splits = [builder.as_dataset(split=split, batch_size=-1) for split in ("train", "test")]
        train, test = [(part["image"].numpy(), part["label"].numpy()) for part in splits]
    return train, test


def load(text: str, data_dir: str | None, image_size: Sequence[int] | None) -> Splits:
    """The images of any set that has an image and a class label for each example.

    Args:
        text: "NAME", or "NAME,TRAIN,TEST" with splits as TFDS writes them; NAME as TFDS has it, with
            configuration and version if need be.
        data_dir: data directory of tensorflow-datasets.
        image_size: height and width to which images are resized; None where they all have one.

    Raises:
        InputError: if the set cannot be had, lacks a split, image or label, or its images differ in size.
    """
    name, *given = _parts(text)
    holds = bool(name) and len(given) in (0, 2)
    require(holds, "tfds:NAME, or tfds:NAME,TRAIN,TEST with two splits", f"tfds:{text}")
    with _expecting(name, data_dir, "take another --dataset"):
        builder = _prepared(name, data_dir)
    image, label = _features(name, builder.info)
    kind = np.dtype(builder.info.features[image].np_dtype)
    require(kind == np.uint8, f"uint8 images in tfds:{name}", f"{kind}")
    train, test = given or _splits(name, builder.info)
    shape = _shape(name, builder.info.features[image].shape, image_size)
    read = _by_number if builder.info.file_format.value == _BY_NUMBER else _in_memory
    with _expecting(name, data_dir, "take another --dataset"):
        of_train, of_test = (read(builder, split, image, label, shape) for split in (train, test))
    names = tuple(builder.info.features[label].names)
    return Splits(of_train, of_test, names, f"{builder.info.full_name} {train} {test}")


def _parts(text: str) -> list[str]:
    """NAME and splits; a comma within brackets is the split's own."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _prepared(name: str, data_dir: str | None) -> Any:
    """The builder of a set, which is prepared first if need be, to be read by number."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
        _require_network(builder.url_infos)
        builder.download_and_prepare(file_format=_BY_NUMBER)
    return builder


@contextlib.contextmanager
def _expecting(name: str, data_dir: str | None, otherwise: str) -> Iterator[None]:
    """Make of whatever fails in TFDS one line: there are as many ways as networks and file systems."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = first_line(error)[:160].rstrip(".")
        raise InputError(
            f"Expected {name} prepared by tensorflow-datasets in {data_dir or 'its data directory'}, or a "
            f"network to download it. Received: {type(error).__name__}: {reason}. Point "
            f"--data_dir or TFDS_DATA_DIR to prepared data, or {otherwise}"
        ) from error


def _require_network(urls: Iterable[str]) -> None:
    """Fail within seconds where TFDS would retry for minutes; behind a proxy, leave it to TFDS."""
    import socket
    import urllib.parse
    import urllib.request

    if urllib.request.getproxies():
        return
    for host in {urllib.parse.urlsplit(url).hostname for url in urls}:
        socket.create_connection((host, 443), timeout=10).close()


def _features(name: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the label of a set's examples."""
    import tensorflow_datasets as tfds

    features = dict(info.features) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    found = []
    for kind, what in ((tfds.features.Image, "image"), (tfds.features.ClassLabel, "class label")):
        of_kind = [key for key, feature in features.items() if isinstance(feature, kind)]
        supervised = [key for key in of_kind if key in (info.supervised_keys or ())]
        require(
            len(supervised or of_kind) == 1,
            f"one {what} an example in tfds:{name}",
            f"{', '.join(of_kind) or 'none'} among {', '.join(sorted(features)) or 'other features'}",
        )
        found.append((supervised or of_kind)[0])
    return found[0], found[1]


def _splits(name: str, info: Any) -> tuple[str, str]:
    test = next((split for split in TESTS if split in info.splits), "")
    require(
        TRAIN in info.splits and bool(test),
        f"splits {TRAIN} and {TESTS[0]}, or others by name, as tfds:{name},train[:80%],train[80%:]",
        f"{', '.join(sorted(info.splits))}",
    )
    return TRAIN, test


def _shape(name: str, shape: tuple, image_size: Sequence[int] | None) -> tuple[int, int, int]:
    height, width = image_size or shape[:2]
    sized = None not in (height, width, shape[2])
    require(sized, f"--image_size=HEIGHT,WIDTH for tfds:{name}, whose images have several", f"shape {shape}")
    return height, width, shape[2]


def _resized(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """An image, uint8 [h, w, C], in the shape that is asked for."""
    if image.shape == shape:
        return image
    from PIL import Image

    height, width, channels = shape
    plain = Image.fromarray(image[..., 0] if channels == 1 else image)
    return np.asarray(plain.resize((width, height), Image.Resampling.BILINEAR)).reshape(shape)


def _by_number(builder: Any, split: str, image: str, label: str, shape: tuple[int, int, int]) -> tuple:
    """Images that are read when they are asked for, and labels, for which each example is read once."""
    import tensorflow_datasets as tfds

    source = builder.as_data_source(split=split)
    undecoded = builder.as_data_source(split=split, decoders={image: tfds.decode.SkipDecoding()})
    labels = np.asarray([int(example[label]) for example in undecoded], "int64")
    threads = ThreadPoolExecutor()

    def read_one(number: int) -> np.ndarray:
        return _resized(source[int(number)][image], shape)

    def read(numbers: np.ndarray) -> np.ndarray:
        images = np.empty((len(numbers), *shape), "uint8")
        for place, one in enumerate(threads.map(read_one, numbers)):
            images[place] = one
        return images

    return LazyImages(read, len(labels), shape), labels


def _in_memory(builder: Any, split: str, image: str, label: str, shape: tuple[int, int, int]) -> tuple:
    """Images and labels of a format that can be read in one order only.

    Raises:
        InputError: if they do not fit into memory.
    """
    examples = builder.as_dataset(split=split)
    count = int(examples.cardinality())
    needed, free = count * int(np.prod(shape)), psutil.virtual_memory().available
    name = builder.info.full_name
    require(
        needed < free / 2,
        f"tfds:{name} in the format array_record, which need not be in memory: "
        f'tfds.builder("{name}").download_and_prepare(file_format="array_record")',
        f"{builder.info.file_format.value}, of which {split} takes {needed / 2**30:.1f} GiB; "
        f"{free / 2**30:.1f} are free",
    )
    images, labels = np.empty((count, *shape), "uint8"), np.empty(count, "int64")
    for place, example in enumerate(examples.as_numpy_iterator()):
        images[place], labels[place] = _resized(example[image], shape), example[label]
    return images, labels
