"""Digests: short names for values, files and arrays."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# Classes of these are not the user's.
_OTHERS = {"builtins", "abc", "divtf", "keras", "tensorflow"}


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


def code_digest(kinds: Iterable[type]) -> str:
    """A digest of the methods of the user's own classes among these and their bases; "" without one."""
    own = [base for kind in kinds for base in kind.__mro__ if base.__module__.split(".")[0] not in _OTHERS]
    methods = [getattr(each, "fget", each) for kind in own for each in vars(kind).values()]
    code = [_content(each.__code__) for each in methods if isinstance(each, types.FunctionType)]
    return digest(code) if code else ""


def _content(code: types.CodeType) -> list[Any]:
    """What a function does, wherever it stands in its file."""
    return [code.co_code.hex(), code.co_names, code.co_varnames, [_constant(each) for each in code.co_consts]]


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _content(value)
    # The order of a set is another one in each process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)
