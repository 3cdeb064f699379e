"""Command-line flags, declared once from the configuration's fields; and the errors' one line."""

import dataclasses
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from divtf.config import RunConfig
from divtf.errors import InputError

FLAGS = flags.FLAGS


class _SwitchParser(flags.ArgumentParser):
    """--name is "", --noname is None, and --name=PATH is PATH."""

    syntactic_help = "nothing, or a path"

    def parse(self, argument):
        return {"true": "", "false": None}.get(argument, argument) if isinstance(argument, str) else argument


class _SwitchFlag(flags.Flag):
    boolean = True


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Declare a flag for every field of RunConfig."""
    hints = typing.get_type_hints(RunConfig)
    for field in dataclasses.fields(RunConfig):
        kind = _without_none(hints[field.name])
        options: dict[str, Any] = {"help": field.metadata["help"], "flag_values": flag_values}
        if field.metadata.get("switch"):
            flag = _SwitchFlag(
                _SwitchParser(), None, field.name, field.default, field.metadata["help"], boolean=True
            )
            flags.DEFINE_flag(flag, flag_values)
        elif typing.get_origin(kind) is tuple:
            default: Any = field.default
            flags.DEFINE_list(field.name, default and list(default), **options)
        else:
            define: dict[Any, Callable] = {
                bool: flags.DEFINE_bool,
                int: flags.DEFINE_integer,
                float: flags.DEFINE_float,
            }
            define.get(kind, flags.DEFINE_string)(field.name, field.default, **options)


def config_from_flags(flag_values: flags.FlagValues = FLAGS) -> RunConfig:
    """The configuration that the parsed flags ask for.

    Raises:
        InputError: if a value does not fit.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(RunConfig):
        value = flag_values[field.name].value
        kind = _without_none(typing.get_type_hints(RunConfig)[field.name])
        values[field.name] = _as_tuple(field.name, value, kind) if isinstance(value, list) else value
    return RunConfig(**values)


def launch(main: Callable[[RunConfig], object]) -> None:
    """Parse the flags, call main with the configuration, and print a user's error as one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)

    def run(arguments: Sequence[str]) -> int:
        try:
            if arguments[1:]:
                raise InputError(f"Expected flags only. Received: {' '.join(arguments[1:])}")
            main(config_from_flags())
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            print(
                f"error: Expected a usable file or directory{where}. Received: {error.strerror}",
                file=sys.stderr,
            )
            return 2
        return 0

    app.run(run)


def _without_none(hint: Any) -> Any:
    """int | None -> int."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _as_tuple(name: str, texts: list[str], kind: Any) -> tuple:
    item = typing.get_args(kind)[0]
    try:
        return tuple(item(text.strip()) for text in texts)
    except ValueError:
        raise InputError(
            f"Expected --{name} as a comma-separated list of {item.__name__}. Received: {','.join(texts)}"
        ) from None
