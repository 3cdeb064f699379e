"""Images in a folder, train/CLASS/file and test/CLASS/file: read, and resized, when they are asked for."""

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from divtf.data.images import LazyImages
from divtf.data.splits import Splits
from divtf.errors import InputError, first_line, require
from divtf.runtime import progress
from divtf.runtime.logs import get_logger

_LOG = get_logger(__name__)
TRAIN, TESTS = "train", ("test", "val", "validation")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
# Pillow's modes of 8 bits a channel; others would be cut to 8 bits.
_GREY, _COLOUR = frozenset({"1", "L"}), frozenset({"LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
# So that the first images are of all classes.
_ORDER = 20190128


def load(root: Path, image_size: Sequence[int] | None) -> Splits:
    """The images of a folder.

    Those that are all grey have one channel, others three. Files of other kinds than images are left out, and
    so are hidden ones. The order is a fixed shuffle.

    Args:
        root: with train and test (or val, validation), in each of which a folder for every class.
        image_size: height and width to which images are resized; None where they all have one.

    Raises:
        InputError: if there is no such folder, its classes differ, or a file is no image.
    """
    splits = (root / TRAIN, next((root / name for name in TESTS if (root / name).is_dir()), root / TESTS[0]))
    for split in splits:
        require(split.is_dir(), f"{split.name}/CLASS/file in {root}", f"no directory {split}")
    classes = [_classes(split) for split in splits]
    differ = sorted(set(classes[0]) ^ set(classes[1]))
    expected = f"the same classes in {splits[0]} and {splits[1]}"
    require(not differ, expected, f"in one of them only: {_some(differ)}")
    require(len(classes[0]) >= 2, f"at least two classes in {splits[0]}", f"{_some(classes[0]) or 'none'}")
    files = [_files(split, classes[0]) for split in splits]
    reader = _reader([path for paths, _ in files for path in paths], image_size)
    train, test = (
        (LazyImages(functools.partial(reader, paths), len(paths), reader.shape), labels)
        for paths, labels in files
    )
    return Splits(train, test, tuple(classes[0]), _fingerprint(root, files[0][0] + files[1][0]))


def _classes(split: Path) -> list[str]:
    return sorted(path.name for path in split.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(split: Path, classes: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The image files of a split and their labels, in a fixed order that is no class's."""
    paths, labels, others = [], [], []
    for label, name in enumerate(classes):
        found = sorted(_below(split / name))
        images = [path for path in found if os.path.splitext(path)[1].lower() in SUFFIXES]
        others += sorted(set(found) - set(images))
        require(bool(images), f"images in {split / name}", f"none of {', '.join(sorted(SUFFIXES))}")
        paths += images
        labels += [label] * len(images)
    if others:
        _LOG.info(f"leaves out {len(others)} files that are no images: {_some(others)}")
    order = np.random.default_rng(_ORDER).permutation(len(paths))
    return [paths[i] for i in order], np.asarray(labels, "int64")[order]


def _below(directory: Path) -> Iterable[str]:
    """The files below a directory; hidden ones, and what lies in hidden directories, are left out."""
    seen = set()
    for parent, directories, names in os.walk(directory, followlinks=True):
        seen.add(os.path.realpath(parent))
        # In place, by which `os.walk` is told where to go on: not in a circle of links.
        directories[:] = [
            name
            for name in directories
            if not name.startswith(".") and os.path.realpath(os.path.join(parent, name)) not in seen
        ]
        yield from (os.path.join(parent, name) for name in names if not name.startswith("."))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class _Reader:
    """Reads image files as arrays of one shape."""

    def __init__(self, shape: tuple[int, int, int]):
        self.shape = shape
        self._threads = ThreadPoolExecutor()

    def __call__(self, paths: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        """The files of these numbers, uint8 [b, H, W, C]."""
        images = np.empty((len(numbers), *self.shape), "uint8")
        for place, image in enumerate(self._threads.map(self._read, [paths[i] for i in numbers])):
            images[place] = image
        return images

    def _read(self, path: str) -> np.ndarray:
        height, width, channels = self.shape
        mode = "L" if channels == 1 else "RGB"
        try:
            with Image.open(path) as image:
                image.draft(mode, (width, height))  # A JPEG is decoded no larger than need be.
                resized = image.convert(mode).resize(
                    (width, height), Image.Resampling.BILINEAR, reducing_gap=2.0
                )
            return np.asarray(resized).reshape(self.shape)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _broken(path, error) from error


def _reader(paths: Sequence[str], image_size: Sequence[int] | None) -> _Reader:
    """A reader of files whose headers have been read: they tell sizes and colours.

    Raises:
        InputError: if a file is no image of 8 bits a channel, or sizes differ and none is asked for.
    """
    with progress.bar("image files", len(paths)) as bar, ThreadPoolExecutor() as threads:
        sizes: dict[tuple[int, int], str] = {}
        modes = set()
        for path, (size, mode) in zip(paths, threads.map(_size_and_mode, paths), strict=True):
            sizes.setdefault(size, path)
            modes.add(mode)
            bar.update(1)
    if image_size is None:
        examples = [f"{height} x {width} ({path})" for (width, height), path in sizes.items()][:2]
        require(len(sizes) == 1, "--image_size=HEIGHT,WIDTH for images of several sizes", ", ".join(examples))
        ((width, height),) = sizes
    else:
        height, width = image_size
    return _Reader((height, width, 1 if modes <= _GREY else 3))


def _size_and_mode(path: str) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _broken(path, error) from error
    require(mode in _GREY | _COLOUR, "images of 8 bits a channel", f"{path} of Pillow's mode {mode}")
    return size, mode


def _broken(path: str, error: Exception) -> InputError:
    """What is said of a file that cannot be read: an OSError of the system says why by itself."""
    reason = getattr(error, "strerror", None) or first_line(error).replace(repr(path), "it")
    return InputError(f"Expected an image that can be read. Received: {path}: {reason}")


def _fingerprint(root: Path, paths: Iterable[str]) -> str:
    """Of the names and sizes of the files; their contents would take an epoch to read."""
    listed = sorted((os.path.relpath(path, root), os.path.getsize(path)) for path in paths)
    return hashlib.sha256(repr(listed).encode()).hexdigest()
