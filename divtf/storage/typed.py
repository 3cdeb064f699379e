"""Values from outside, as those of a file, held to the types that a dataclass gives its fields."""

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from divtf.errors import is_number

AnyDataclass = TypeVar("AnyDataclass")


def as_tuples(value: Any) -> Any:
    """The value with its lists, and those in them, as tuples: JSON has no tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


def checked(instance: AnyDataclass) -> AnyDataclass:
    """What was made of a file's values, if each is of its field's type; files may be anybody's.

    Raises:
        ValueError: names the first field whose value is of another type.
    """
    for name, hint in typing.get_type_hints(type(instance)).items():
        if not fits(value := getattr(instance, name), hint):
            raise ValueError(f"Expected {name} as {hint}. Received: {value!r:.80}")
    return instance


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type.

    Args:
        value: anything.
        hint: `Any`, a class, `tuple[X, ...]`, `Mapping[K, V]`, or a union of these, as `int | None`. A float
            may be any finite real number, whole or NumPy's; of any other class a value must be exactly,
            so that True is no int.
    """
    if hint is Any:
        return True
    if hint is float:
        return is_number(value)
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return any(fits(value, part) for part in parts)
    if kind is tuple:
        return isinstance(value, tuple) and all(fits(item, parts[0]) for item in value)
    if kind is Mapping:
        return isinstance(value, Mapping) and all(
            fits(key, parts[0]) and fits(item, parts[1]) for key, item in value.items()
        )
    return type(value) is hint
