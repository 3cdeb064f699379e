"""What the package logs, for tests."""

import contextlib
import logging


@contextlib.contextmanager
def logged(then=lambda line: None):
    """The lines that are logged inside, as they come; `then` is called after each."""
    lines = []

    class Collector(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
            then(lines[-1])

    logger, handler = logging.getLogger("divtf"), Collector()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
