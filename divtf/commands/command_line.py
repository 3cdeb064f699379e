"""Running a command: flags parsed, and a user's error in one line."""

import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from divtf.commands.config_flags import FLAGS, config_from_flags
from divtf.errors import InputError, lacking_resource, require
from divtf.runtime import logs, progress
from divtf.runtime.processor import prepare_tensorflow


def run_with_arguments(main: Callable[[Sequence[str]], object]) -> None:
    """Run a command that takes arguments beside its flags, and no RunConfig, as `run` does."""
    prepare()

    def execute_with(arguments: Sequence[str]) -> int:
        return execute(lambda _: main(arguments[1:]), lambda _: None, arguments[:1])

    app.run(execute_with, flags_parser=parse)


def run(
    main: Callable[[Any], object], read: Callable[[flags.FlagValues], object] = config_from_flags
) -> None:
    """Run a command: parse its flags, and call main with what `read` makes of them.

    A user's error becomes one line and a non-zero exit code.
    """
    prepare()
    app.run(lambda arguments: execute(main, read, arguments), flags_parser=parse)


def prepare() -> None:
    """Set up what every command has: TensorFlow's settings, lines that show at once, bars."""
    prepare_tensorflow()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # Progress shows through a pipe, too.
    progress.show_bars()


def run_without_config(main: Callable[[], object]) -> None:
    """Run a command that has flags of its own and no RunConfig, as `run` does."""
    run(lambda _: main(), lambda _: None)


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
        with logs.shown():
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
