"""Lines of progress, by the standard library's logging.

Modules log to loggers below "divtf", at level INFO. The commands show them (`shown`); who calls the library
does so by `logging.basicConfig(level=logging.INFO)`, or by a handler of their own.
"""

import contextlib
import contextvars
import logging
from collections.abc import Iterator

from divtf.runtime import progress

_PREFIX: contextvars.ContextVar[str] = contextvars.ContextVar("prefix", default="")


class _Prefixed(logging.LoggerAdapter):
    """A logger whose lines begin with what `prefixed` has set."""

    def process(self, msg, kwargs):
        return f"{_PREFIX.get()}{msg}", kwargs


def get_logger(name: str) -> logging.LoggerAdapter:
    """The logger of a module, by its `__name__`."""
    return _Prefixed(logging.getLogger(name), {})


@contextlib.contextmanager
def prefixed(name: str) -> Iterator[None]:
    """Let all lines logged inside begin with [name]: they are of that part of a run, not of the run.

    Inside another one, its [name] comes first.
    """
    token = _PREFIX.set(f"{_PREFIX.get()}[{name}] ")
    try:
        yield
    finally:
        _PREFIX.reset(token)


class _Lines(logging.Handler):
    """Writes each line to standard output as it is now, above any bar."""

    def emit(self, record):
        progress.write(self.format(record))


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Write the lines that are logged inside to standard output, as the commands do."""
    logger, handler = logging.getLogger("divtf"), _Lines()
    if any(isinstance(other, _Lines) for other in logger.handlers):  # They are shown already.
        yield
        return
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Handlers of the root logger would write them once more.
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)  # Not by assignment: logging remembers which levels are on.
        logger.propagate = propagate
