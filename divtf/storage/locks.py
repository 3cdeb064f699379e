"""A lock on a directory, which dies with the process that holds it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from divtf.errors import InputError


@contextlib.contextmanager
def lock(path: Path, waiting: Callable[[str], object] | None) -> Iterator[None]:
    """Hold the file for this process alone.

    Args:
        path: of the lock file; made if it is not there.
        waiting: takes a line if another process holds it, and then waits for that one; None does not wait.

    Raises:
        InputError: if another process holds it and `waiting` is None.
    """
    # The kernel drops the lock with the process, however it dies.
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "?"
            if waiting is None:
                raise InputError(
                    f"Expected a run directory that no living process holds. Received: {path.parent}, held "
                    f"by process {holder}"
                ) from None
            waiting(f"waits for process {holder}, which holds {path.parent}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        yield
