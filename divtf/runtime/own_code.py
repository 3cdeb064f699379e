"""Code of the user's own by name, MODULE:NAME. This module imports no TensorFlow."""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

from divtf.errors import InputError, first_line, require

_IDENTIFIERS = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_REFERENCE = re.compile(f"{_IDENTIFIERS}:{_IDENTIFIERS}")


def is_reference(text: str) -> bool:
    """Whether a text has the form MODULE:NAME."""
    return _REFERENCE.fullmatch(text) is not None


@contextlib.contextmanager
def told_in_one_line(expected: str) -> Iterator[None]:
    """Make whatever anybody's code raises an InputError: what was expected, and the first line of it."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        received = f"{type(error).__name__}: {first_line(error):.200}"
        raise InputError(f"Expected {expected}. Received: {received}") from error


def import_module(name: str, flag: str) -> Any:
    """A module of the user's, from the working directory too.

    Args:
        name: of the module.
        flag: for which it is imported.

    Raises:
        InputError: if it cannot be imported.
    """
    source = source_digest(name)
    with told_in_one_line(f"module {name} of --{flag} to be imported"):
        module = importlib.import_module(name)
    _IMPORTED.setdefault(name, source)
    return module


def function(reference: str, flag: str) -> Callable[..., Any]:
    """The function or class that MODULE:NAME names.

    Args:
        reference: to it.
        flag: whose value it is.

    Raises:
        InputError: if the module cannot be imported, or has nothing of the name that can be called.
    """
    module, _, path = reference.partition(":")
    found = import_module(module, flag)
    for part in path.split("."):
        near = difflib.get_close_matches(part, dir(found), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        require(hasattr(found, part), f"--{flag}={reference} to be there", f"no {part} in {module}{hint}")
        found = getattr(found, part)
    require(callable(found), f"--{flag}={reference} as a function", f"a {type(found).__name__}")
    return found


def source_digest(module: str) -> str:
    """A digest of a module's source as it is now; "" if there is none to be read.

    The module is not imported, only the packages that it is in.
    """
    _look_here()
    try:
        spec = importlib.util.find_spec(module)
        source = spec.loader.get_source(module)  # type: ignore[union-attr]
    except (Exception, SystemExit):  # Whoever imports it says what is wrong.
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:12] if source else ""


def imported_digest(module: str) -> str:
    """The same of its source as it was when `import_module` first had it."""
    return _IMPORTED.get(module, "")


def classes_digest(kinds: Iterable[type]) -> str:
    """A digest of what classes do: their methods as they are in this process, and their modules' source."""
    told = []
    for kind in kinds:
        methods = [getattr(each, "fget", each) for each in vars(kind).values()]
        told += [_told(each.__code__) for each in methods if isinstance(each, FunctionType)]
        told.append(source_digest(kind.__module__))
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def _told(constant: Any) -> Any:
    """What tells a constant of code, and code itself, wherever it was compiled: no file, line or process."""
    if isinstance(constant, CodeType):
        return constant.co_code, constant.co_names, [_told(each) for each in constant.co_consts]
    if isinstance(constant, frozenset):
        return sorted(map(repr, constant))
    return repr(constant)


# A process that lives on, as a notebook's, keeps the code that it has imported, whatever becomes of the file.
_IMPORTED: dict[str, str] = {}


def _look_here() -> None:
    here = os.getcwd()
    if not {"", here} & set(sys.path):  # `python -m` has it; a notebook's kernel or a script may not.
        sys.path.append(here)
