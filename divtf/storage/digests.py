"""Digests: short names for values, files and arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(values: Any) -> str:
    """A short name for JSON-like values: 12 hexadecimal digits of their SHA-256."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values."""
    return blocks_digest(array.dtype, array.shape, [array])


def blocks_digest(dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> str:
    """The same of an array that comes in parts along its first axis."""
    hasher = hashlib.sha256(f"{dtype.str}{shape}".encode())
    for block in blocks:
        hasher.update(block.tobytes())  # In C order, however the array lies in memory.
    return hasher.hexdigest()
