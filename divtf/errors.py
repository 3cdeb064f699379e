"""Errors that a user can mend, in one form of words."""

import math
import numbers
from typing import Any


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
