"""Adversarial images as an attacker must store them: rounded to 8 bits, or compressed. No TensorFlow."""

import io
from typing import Any

import numpy as np

from divtf.data.images import LazyImages
from divtf.errors import require
from divtf.storage.records import STORED_AS

QUALITY = 95
"""Of JPEG; Pillow's other settings are its defaults, which halve the resolution of colour."""


def require_storable(stored_as: str, shape: tuple[int, ...]) -> None:
    """Refuse a form that is none, or that images of this shape [n, ...] do not have.

    Raises:
        InputError: says what was expected.
    """
    require(stored_as in STORED_AS, f"stored_as as one of {{{', '.join(STORED_AS)}}}", f"{stored_as!r}")
    pictures = len(shape) == 4 and shape[3] in (1, 3)
    require(
        stored_as != "jpeg" or pictures,
        "images [n, H, W, 1] or [n, H, W, 3] to store as JPEG",
        f"images of shape {shape}",
    )


def as_stored(x: Any, stored_as: str, low: float = 0.0, high: float = 1.0) -> Any:
    """What a target sees of images once they have been stored.

    Args:
        x: images [n, ...] in [low, high], float32: an array, also a mapped one, or `LazyImages`.
        stored_as: "float32" leaves them as they are; "uint8" rounds each value to the nearest of 256 levels
            from low to high, by up to (high - low) / 510; "jpeg" compresses these levels at quality 95,
            which may change values by more, and take them out of the ball about the clean image.
        low: the least value of the image range.
        high: the greatest.

    Returns:
        The images of the same shape, float32; other than float32 as `LazyImages`, stored when they are read.

    Raises:
        InputError: for a form that images of this shape do not have.
    """
    require_storable(stored_as, x.shape)
    if stored_as == "float32":
        return x

    def read(numbers: np.ndarray) -> np.ndarray:
        levels = _levels(np.asarray(x[numbers]), low, high)
        if stored_as == "jpeg":
            levels = np.stack([_through_jpeg(image) for image in levels])
        # In float64, so that levels of [0, 1] are the clean images' own float32 values.
        return (low + (high - low) * (levels / 255)).astype("float32")

    return LazyImages(read, len(x), x.shape[1:], dtype="float32")


def _levels(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """The nearest of 256 levels of the range, uint8."""
    return np.rint((x.astype("float64") - low) / (high - low) * 255).clip(0, 255).astype("uint8")


def _through_jpeg(image: np.ndarray) -> np.ndarray:
    """One image [H, W, 1 or 3], uint8, compressed and read again."""
    from PIL import Image  # Here, since few need it.

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file)).reshape(image.shape)
