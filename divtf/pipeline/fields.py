"""Fields of a configuration: what each may be, and what its flag says."""

import dataclasses
import numbers
import os
import types
import typing
from collections.abc import Callable
from typing import Any

from divtf.data.paper import ATTACKS as PAPER_ATTACKS
from divtf.errors import require


def flag(
    default: Any, help_text: str, check: tuple[Callable[[Any], bool], str] | None = None, **metadata: Any
) -> Any:
    """A field that is a flag: its default, its help, and its check with the words for what it takes."""
    return dataclasses.field(default=default, metadata={"help": help_text, "check": check, **metadata})


def one_of(names: Any) -> tuple[Callable[[Any], bool], str]:
    """A check for one of the names."""
    return lambda value: value in names, f"one of {{{', '.join(names)}}}"


# What a path may be: a scheme such as gs:// would make a directory of that name here.
DATA_DIR = (lambda path: path != "" and path.isprintable(), "a path of printable characters")
PATH = (
    lambda path: DATA_DIR[0](path) and "://" not in path,
    "a path on this machine, of printable characters",
)
TYPES = {str: "text", bool: "true or false"}
# Training is in single precision, where larger numbers are infinite.
LARGEST = 3.4e38
POSITIVE = (lambda value: 0 < value <= LARGEST, f"a number > 0, at most {LARGEST:g}")
NOT_NEGATIVE = (lambda value: 0 <= value <= LARGEST, f"a number >= 0, at most {LARGEST:g}")
COUNT = (lambda value: 1 <= value < 2**31, "a whole number in [1, 2^31)")
MEMBERS = (lambda value: 1 <= value <= 1000, "a whole number in [1, 1000]")
SEED = (lambda value: 0 <= value < 2**31, "a whole number in [0, 2^31)")
SLOPE = (lambda value: 0 <= value < 1, "a number in [0, 1)")
ATTACKS = (
    lambda names: set(names) <= set(PAPER_ATTACKS) and len(set(names)) == len(names),
    f"distinct names of {{{', '.join(PAPER_ATTACKS)}}}",
)
EPSILONS = (
    lambda values: 0 < len(set(values)) == len(values) and all(0 < value <= 1 for value in values),
    "distinct numbers in (0, 1], at least one",
)


def without_none(hint: Any) -> Any:
    """The type of a field's value, None aside: int for `int | None`."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def adopted(value: Any, kind: Any) -> Any:
    """The value in its field's type, if it is a number, path or list that has the same meaning there."""
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(adopted(item, typing.get_args(kind)[0]) for item in value)
    if isinstance(value, os.PathLike) and kind is str:
        return os.fspath(value)
    number: Any = {int: numbers.Integral, float: numbers.Real}.get(kind, ())
    return kind(value) if isinstance(value, number) and not isinstance(value, bool) else value


def _has_type(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(item, typing.get_args(kind)[0]) for item in value)
    return type(value) is kind


def check_field(field: dataclasses.Field, kind: Any, value: Any) -> None:
    """Hold a value to its field's type and check.

    Raises:
        InputError: names the flag, and what it takes.
    """
    holds, expected = field.metadata["check"] or (lambda _: True, TYPES.get(kind, ""))
    require(
        _has_type(value, kind) and holds(value),
        f"--{field.name} as {expected}",
        f"{field.name}={_shown(value)}",
    )


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if text.isprintable() else ascii(text)
