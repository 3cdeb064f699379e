"""Fields of a configuration: what each may be, and what its flag says."""

import dataclasses
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from divtf.attacks.names import NAMES as ATTACK_NAMES
from divtf.ensembles.serving.formats import CHOICES
from divtf.errors import require
from divtf.storage import typed
from divtf.training.trackers import TRACKERS as TRACKER_NAMES


@dataclasses.dataclass(frozen=True)
class Check:
    """What a field may be.

    Attributes:
        holds: tells it of a value of the field's type.
        expected: in words.
        names: the values, or the parts of a list, where they are few and have names.
    """

    holds: Callable[[Any], bool]
    expected: str
    names: Collection[str] = ()


def one_of(names: Collection[str]) -> Check:
    """A check for one of the names."""
    return Check(lambda value: value in names, f"one of {{{', '.join(names)}}}", names)


# Training is in single precision, where larger numbers are infinite.
_LARGEST = 3.4e38
LABEL = Check(
    lambda text: re.fullmatch(r"\w[\w +().,-]{0,39}", text) is not None,
    "1 to 40 letters, digits and of _+-.,() and space, the first a letter, digit or _",
)
SWITCH = Check(lambda value: True, "true or false")
POSITIVE = Check(lambda value: 0 < value <= _LARGEST, f"a number > 0, at most {_LARGEST:g}")
NOT_NEGATIVE = Check(lambda value: 0 <= value <= _LARGEST, f"a number >= 0, at most {_LARGEST:g}")
COUNT = Check(lambda value: 1 <= value < 2**31, "a whole number in [1, 2^31)")
MEMBERS = Check(lambda value: 1 <= value <= 1000, "a whole number in [1, 1000]")
SEED = Check(lambda value: 0 <= value < 2**31, "a whole number in [0, 2^31)")
SHARE = Check(lambda value: 0 < value <= 1, "a number in (0, 1]")
SLOPE = Check(lambda value: 0 <= value < 1, "a number in [0, 1)")
ATTACKS = Check(
    lambda names: set(names) <= set(ATTACK_NAMES) and len(set(names)) == len(names),
    f"distinct names of {{{', '.join(ATTACK_NAMES)}}}",
    ATTACK_NAMES,
)
SIZE = Check(
    lambda sides: len(sides) in (1, 2) and all(4 <= side <= 4096 for side in sides),
    "HEIGHT,WIDTH, or one number for both, in [4, 4096]",
)
EXPORT_FORMATS = Check(
    lambda names: 0 < len(set(names)) == len(names) and set(names) <= set(CHOICES),
    f"distinct names of {{{', '.join(CHOICES)}}}, at least one",
    CHOICES,
)
TRACKERS = Check(
    lambda names: len(set(names)) == len(names) and set(names) <= set(TRACKER_NAMES),
    f"distinct names of {{{', '.join(TRACKER_NAMES)}}}",
    TRACKER_NAMES,
)
EPSILONS = Check(
    lambda values: 0 < len(set(values)) == len(values) and all(0 < value <= 1 for value in values),
    "distinct numbers in (0, 1], at least one",
)
DATA_DIR = Check(lambda path: path != "" and path.isprintable(), "a path of printable characters")
# A scheme such as gs:// would make a directory of that name here.
PATH = Check(
    lambda path: DATA_DIR.holds(path) and "://" not in path,
    "a path on this machine, of printable characters",
)
PATH_OR_NOTHING = Check(lambda path: path == "" or PATH.holds(path), PATH.expected)


def flag(default: Any, help_text: str, check: Check, **metadata: Any) -> Any:
    """A field that is a flag.

    Args:
        default: its value where none is given; None for one that the configuration fills in, or leaves open.
        help_text: what the flag says of itself.
        check: what it may be.
        **metadata: identity=False for what makes no other run of it; path=True for a path; switch=True for a
            flag that may stand without a value; stands_for, what None stands for.
    """
    return dataclasses.field(default=default, metadata={"help": help_text, "check": check, **metadata})


def without_none(hint: Any) -> Any:
    """The type of a field's value, None aside: int for `int | None`."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def adopt(value: Any, kind: Any) -> Any:
    """The value in its field's type, if it is a number, path or list that has the same meaning there."""
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(adopt(item, typing.get_args(kind)[0]) for item in value)
    if isinstance(value, os.PathLike) and kind is str:
        return os.fspath(value)
    number: Any = {int: numbers.Integral, float: numbers.Real}.get(kind, ())
    return kind(value) if isinstance(value, number) and not isinstance(value, bool) else value


def check_value(name: str, value: Any, kind: Any, metadata: Mapping[str, Any]) -> None:
    """Hold a field's value to its type and check.

    Raises:
        InputError: names the flag, what it takes, and the nearest name to one that it does not take.
    """
    check: Check = metadata["check"]
    require(
        typed.fits(value, kind) and check.holds(value),
        f"--{name} as {check.expected}",
        f"{name}={_shown(value)}{nearest(value, check.names)}",
    )


def require_one_place(export: str | None, formats: Collection[str] | None) -> None:
    """Refuse formats of no export, and several of them for one path.

    Raises:
        InputError: says which.
    """
    given = f"--export_format={','.join(formats or ())}"
    require(formats is None or export is not None, "--export with --export_format", f"{given} without it")
    require(
        not export or len(formats or ()) <= 1,
        "--export without a path for several formats, each of which has its name in the run directory",
        f"--export={export} with {given}",
    )


def nearest(value: Any, names: Collection[str]) -> str:
    """What to add to a wrong value, or a list with a wrong part: the nearest of the names, if one is near."""
    import difflib

    parts = [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else []
    wrong = [part for part in parts if isinstance(part, str) and part not in names]
    near = difflib.get_close_matches(wrong[0], names, n=1) if wrong else []
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if text.isprintable() else ascii(text)
