"""Command-line flags, declared once from the configuration's fields; and the errors' one line."""

import dataclasses
import io
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from divtf.config import RunConfig, field_type
from divtf.errors import InputError, lacking_resource, require
from divtf.startup import prepare_tensorflow

FLAGS = flags.FLAGS


class _SwitchParser(flags.ArgumentParser):
    """--name is "", --noname is None, and --name=PATH is PATH."""

    syntactic_help = "nothing, or a path"

    def parse(self, argument):
        named = {"true": "", "false": None}
        return named.get(argument.lower(), argument) if isinstance(argument, str) else argument


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Declare a flag for every field of RunConfig."""
    for field in dataclasses.fields(RunConfig):
        kind, help_text = field_type(field.name), field.metadata["help"]
        options: dict[str, Any] = {"help": help_text, "flag_values": flag_values}
        if field.metadata.get("switch"):
            switch: Any = flags.Flag(
                _SwitchParser(), None, field.name, field.default, help_text, boolean=True
            )
            flags.DEFINE_flag(switch, flag_values)
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


def config_from_flags(flag_values: flags.FlagValues = FLAGS, **overrides: Any) -> RunConfig:
    """The configuration that the parsed flags ask for.

    Args:
        flag_values: where the flags of `define_flags` were parsed.
        **overrides: values of fields, in place of their flags'.

    Raises:
        InputError: if a value does not fit.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(RunConfig):
        value, kind = flag_values[field.name].value, field_type(field.name)
        items = typing.get_args(kind)
        values[field.name] = parse_list(field.name, value, items[0]) if isinstance(value, list) else value
    return RunConfig(**values | overrides)


def parse_list(name: str, texts: Sequence[str], kind: type) -> tuple:
    """The values of a list flag.

    Raises:
        InputError: if one is not of the kind.
    """
    try:
        return tuple(kind(text.strip()) for text in texts)
    except ValueError:
        raise InputError(
            f"Expected --{name} as a comma-separated list of {kind.__name__}. Received: {','.join(texts)}"
        ) from None


def launch(
    main: Callable[[Any], object], read: Callable[[flags.FlagValues], object] = config_from_flags
) -> None:
    """Run a command: parse its flags, and call main with what `read` makes of them.

    A user's error becomes one line and a non-zero exit code.
    """
    prepare_tensorflow()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # Progress shows through a pipe, too.
    app.run(lambda arguments: execute(main, read, arguments), flags_parser=parse)


def launch_without_config(main: Callable[[], object]) -> None:
    """Run a command that has flags of its own and no RunConfig, as `launch` does."""
    launch(lambda _: main(), lambda _: None)


def parse(arguments: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> list[str]:
    """Parse a command line, program name first; what is left of it is returned.

    Raises:
        SystemExit: with code 2 if it cannot be parsed, and 0 after --help.
    """
    try:
        return flag_values(list(arguments))
    except (flags.Error, ValueError, OSError) as error:  # All of them come of flags or flagfiles.
        reason = str(error).removeprefix("ERROR:: ")
        raise SystemExit(_fail(f"Expected flags as --help lists them. Received: {reason}")) from None
    except SystemExit:
        raise SystemExit(0) from None  # absl leaves with 1 after it has printed the help.


def execute(
    main: Callable[[Any], object],
    read: Callable[[flags.FlagValues], object],
    arguments: Sequence[str],
    flag_values: flags.FlagValues = FLAGS,
) -> int:
    """Call main with what `read` makes of the parsed flags; returns the exit code."""
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # TFDS warns of what the one line tells.
    try:
        require(not arguments[1:], "flags only", " ".join(arguments[1:]))
        main(read(flag_values))
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"Expected a usable file or directory{where}. Received: {error.strerror or error}")
    except Exception as error:
        if not (reason := lacking_resource(error)):
            raise
        return _fail(f"Expected memory, and files that can be written. Received: {reason}")
    except KeyboardInterrupt:
        return _fail(
            "Expected to finish. Received: an interrupt; the same command goes on, a run's with --resume"
        )
    return 0


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)
    return 2
