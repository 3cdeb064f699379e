"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# How the name of a file begins that is not whole yet, or was left by a killed process.
PARTIAL = ".partial-"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; it takes the place of `path` once it is whole on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: Keras and NumPy go by it.
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
        _sync_directory(path.parent)
    except OSError as error:
        # Users know the file by its own name.
        if error.filename is not None and os.fspath(error.filename) == str(partial):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
