"""Errors that a user can mend, in one form of words."""

import errno
import importlib.util
import math
import numbers
import os
import re
from collections.abc import Sequence
from typing import Any

# Of a disk that is full or fails, and of files that are not to be had.
_FILE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
)


class InputError(ValueError):
    """What the user gave does not fit; the message says what was expected and what was received.

    The library raises it as the ValueError that it is; the command prints its message as one line.
    """


def is_number(value: Any) -> bool:
    """Whether the value is a finite real number, NumPy's included."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def require(holds: bool, expected: str, received: str = "", **values: Any) -> None:
    """Raise InputError unless the condition holds.

    Args:
        holds: the condition.
        expected: what was expected.
        received: what was received, in words.
        **values: what was received, by name.

    Raises:
        InputError: "Expected {expected}. Received: {received}".
    """
    if not holds:
        named = ", ".join(f"{name}={value}" for name, value in values.items())
        raise InputError(f"Expected {expected}. Received: {received or named}")


def require_installed(what: str, extra: str, modules: Sequence[str]) -> None:
    """Refuse what needs packages that are not installed.

    Args:
        what: needs them, in words.
        extra: of this package, which installs them.
        modules: their names in Python.

    Raises:
        InputError: says how to install them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    require(
        not missing,
        f"what {what} needs: pip install 'divtf[{extra}]'",
        f"no {', '.join(missing)} in this Python",
    )


def first_line(error: BaseException) -> str:
    """What an error says, in one line without a terminal's colours; its kind if it says nothing.

    Keras begins with where an error came up, and says what came up in the next paragraph.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    where = lines[0].startswith("Exception encountered when calling") and len(lines) > 1
    return f"{lines[0]} {lines[1]}" if where else lines[0]


def lacking_resource(error: Exception) -> str:
    """What Python or TensorFlow says of memory or a disk that it lacks; "" of any other error."""
    if isinstance(error, MemoryError):
        return str(error) or "no memory left"
    # TensorFlow's errors are known by their words: it is not imported here, and has no class for a full disk.
    words = ("OOM when allocating", *map(os.strerror, _FILE_ERRORS))
    ours = type(error).__module__.startswith("tensorflow")
    return next((line for line in str(error).splitlines() if ours and any(w in line for w in words)), "")
