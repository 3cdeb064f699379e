"""A lock file, whose lock dies with the process that holds it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from divtf.errors import require
from divtf.runtime.logs import get_logger

_LOG = get_logger(__name__)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock file for this process alone; the file names the process.

    Args:
        path: of the file; made if it is not there.
        wait: whether to wait for another process that holds it.

    Raises:
        InputError: if another process holds it and `wait` is false.
        OSError: if the file cannot be written, or its file system has no locks.
    """
    import filelock  # Late: `--help` does without.

    # Without `flock` filelock would take a lock that outlives its process.
    held = filelock.FileLock(path, fallback_to_soft=False)
    try:
        held.acquire(blocking=False)
    except filelock.Timeout:
        holder = path.read_text().strip() or "?"
        directory = path.parent
        require(
            wait, "a run directory that no living process holds", f"{directory}, held by process {holder}"
        )
        _LOG.info(f"waits for process {holder}, which holds {directory}")
        held.acquire()
    try:
        path.write_text(str(os.getpid()))
        yield
    finally:
        held.release()
