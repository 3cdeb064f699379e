"""Values of files held to the types of a dataclass's fields."""

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from divtf.errors import is_number


def as_tuples(value: Any) -> Any:
    """The value with its lists, and those in them, as tuples: JSON has no tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


AnyDataclass = TypeVar("AnyDataclass")


def checked(made: AnyDataclass) -> AnyDataclass:
    """What was made of a file's values, if each is of its field's type; files may be anybody's."""
    for name, hint in typing.get_type_hints(type(made)).items():
        if not _fits(value := getattr(made, name), hint):
            raise ValueError(f"Expected {name} as {hint}. Received: {value!r:.80}")
    return made


def _fits(value: Any, hint: Any) -> bool:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Any:
        return True
    if kind is float:
        return is_number(value)
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(item, parts[0]) for item in value)
    if kind is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    return isinstance(value, kind) and not isinstance(value, bool)
