"""Code of the user's own by name, MODULE:NAME. This module imports no TensorFlow."""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from divtf.errors import InputError, first_line, require

_IDENTIFIERS = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_REFERENCE = re.compile(f"{_IDENTIFIERS}:{_IDENTIFIERS}")


def is_reference(text: str) -> bool:
    """Whether a text has the form MODULE:NAME."""
    return _REFERENCE.fullmatch(text) is not None


def import_module(name: str, flag: str) -> Any:
    """A module of the user's, from the working directory too.

    Args:
        name: of the module.
        flag: for which it is imported.

    Raises:
        InputError: if it cannot be imported.
    """
    _look_here()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # It may be anybody's code.
        raise InputError(
            f"Expected module {name} of --{flag} to be imported. "
            f"Received: {type(error).__name__}: {first_line(error):.200}"
        ) from error


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


def reference_digest(reference: str) -> str:
    """A digest of the source of MODULE:NAME, see `source_digest`; "" if there is no source to be read.

    The module is not imported, only the packages that it is in.
    """
    module, _, path = reference.partition(":")
    _look_here()
    try:
        spec = importlib.util.find_spec(module)
        source = spec.loader.get_source(module)  # type: ignore[union-attr]
        return source_digest(source, path.split(".")[0])
    except Exception:  # Whoever imports it says what is wrong.
        return ""


def source_digest(source: str, name: str) -> str:
    """A digest of what a module defines by a name, and of all in the module that this uses.

    Comments, documentation and layout do not count, nor does what else is in the module. Code of other
    modules is not followed. For a name that comes from one, or from a loop, it is all of the module.
    """
    statements = ast.parse(source).body
    used, waiting = [], [name]
    while waiting:
        wanted = waiting.pop()
        new = [each for each in statements if wanted in _bound(each) and each not in used]
        used += new
        waiting += [node.id for each in new for node in ast.walk(each) if isinstance(node, ast.Name)]
    text = "\n".join(ast.dump(_undocumented(each)) for each in statements if each in (used or statements))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module gives a value; an import gives none."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    nodes = list(ast.walk(statement))
    definitions = {node.name for node in nodes if isinstance(node, _DEFINITIONS)}
    return definitions | {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _undocumented(statement: ast.stmt) -> ast.stmt:
    for node in ast.walk(statement):
        if isinstance(node, _DEFINITIONS) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return statement


def _look_here() -> None:
    here = os.getcwd()
    if not {"", here} & set(sys.path):  # `python -m` has it; a notebook's kernel or a script may not.
        sys.path.append(here)
