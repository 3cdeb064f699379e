"""Images that need not be in memory: read when they are asked for, by their numbers.

What takes images takes NumPy's arrays, and `LazyImages`, in the same way: a slice is a view, which reads
nothing; an array of numbers gives an array. No TensorFlow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from divtf.storage import digests


class LazyImages:
    """Images [n, H, W, C] behind a function that reads them.

    Args:
        read: gives the images of an array of numbers [b] in [0, n), as an array [b, H, W, C] of `dtype`.
        count: n.
        image_shape: height, width, channels.
        dtype: of the values.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        count: int,
        image_shape: tuple[int, ...],
        dtype: str = "uint8",
    ):
        self.shape = (count, *image_shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)
        self._read = read
        self._numbers = np.arange(count)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """A view for a slice; the images themselves, read now, for numbers."""
        if isinstance(key, slice):
            numbers = self._numbers[key]
            part = LazyImages(self._read, len(numbers), self.shape[1:], self.dtype.str)
            part._numbers = numbers
            return part
        wanted = np.asarray(key)
        read = self._read(self._numbers[wanted.reshape(-1)])
        return read.reshape(*wanted.shape, *self.shape[1:])

    @functools.cached_property
    def digest(self) -> str:
        """As `images_digest` gives it, for which all images are read, once."""
        return _digest(self)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All images, read now."""
        images = self[np.arange(len(self))]
        return images if dtype is None else images.astype(dtype)


def as_float(images: Any) -> Any:
    """Images in uint8 as float32 in [0, 1]: an array of an array, a view of what is read later."""
    if isinstance(images, LazyImages | np.memmap):
        return LazyImages(
            lambda numbers: as_float(images[numbers]), len(images), images.shape[1:], dtype="float32"
        )
    return images.astype("float32") / 255


def blocks(images: Any, size: int = 250) -> Iterator[np.ndarray]:
    """The images as arrays of at most so many, in order; only one of them need be in memory."""
    for start in range(0, len(images), size):
        yield np.asarray(images[start : start + size])


def as_images(x: Any) -> Any:
    """What a caller gives for images: `LazyImages` as they are, anything else as an array in float32."""
    return x if isinstance(x, LazyImages) else np.asarray(x, "float32")


def images_digest(images: Any) -> str:
    """SHA-256 of the type, shape and values, as `storage.digests.array_digest` of the array."""
    return images.digest if isinstance(images, LazyImages) else _digest(images)


def _digest(images: Any) -> str:
    return digests.blocks_digest(images.dtype, images.shape, blocks(images))


def value_range(images: Any) -> tuple[float, float]:
    """The least and the greatest value."""
    ranges = [(block.min(), block.max()) for block in blocks(images)]
    return float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
