"""Run directories: who may write there, how files get there whole, and what a run has recorded.

This module imports no TensorFlow.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from divtf import files
from divtf.errors import InputError, require
from divtf.files import PARTIAL
from divtf.startup import has_avx512

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULTS = "results.json"
GAAS = "gaas.json"
MATRIX = "transfer.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
SAVED_MODEL = "saved_model"
_LOCK = ".lock"
_CHECKSUM = "checksum"
# What commands write into a checkout: it makes the code that runs no other.
_OUTPUTS = (":(exclude,top)runs", ":(exclude,top)benchmarks/results")


class DamagedError(InputError):
    """A file of a run is not as it was written."""


@contextlib.contextmanager
def open_run(
    path: Path,
    config: Mapping[str, Any],
    *,
    resume: bool,
    waiting: Callable[[str], object] | None = None,
) -> Iterator[Path]:
    """Hold a run directory for this process alone, new or of the same configuration.

    Args:
        path: the directory; made if it is not there.
        config: JSON values that identify the run.
        resume: whether an existing run of that configuration may be gone on with.
        waiting: takes a line if another process holds the directory, and then waits for that process;
            None does not wait.

    Raises:
        InputError: if the directory holds a run of another configuration, or one of this configuration
            and `resume` is false, or something that is not a run; or if a living process holds it.
        OSError: if the directory cannot be written.
    """
    require(not path.exists() or path.is_dir(), "a directory", f"{path}, which is a file")
    require(not _is_foreign(path), "an empty or new run directory", f"{path}, which holds other files")
    path.mkdir(parents=True, exist_ok=True)
    with _lock(path / _LOCK, waiting):
        # Looked at only now: whoever held the lock before may have made the run.
        if (path / CONFIG).exists():
            _check_same(path, config, resume)
        else:
            write_json(path / CONFIG, config)
        _sweep(path)
        _append_environment(path / ENVIRONMENT)
        yield path


@contextlib.contextmanager
def held(path: Path, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold a directory of files that are made once for all processes; made if it is not there.

    What a killed process left half written there is removed first: no living one writes there now.

    Args:
        path: the directory.
        waiting: as in `open_run`.

    Raises:
        InputError: if a living process holds it and `waiting` is None.
        OSError: if the directory cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    with _lock(path / _LOCK, waiting):
        _sweep(path)
        yield


def _is_foreign(path: Path) -> bool:
    """Whether a directory holds files, but no run; a run may have been killed before it said what it is."""
    if not path.exists() or (path / CONFIG).exists():
        return False
    return any(entry.name != _LOCK and not entry.name.startswith(PARTIAL) for entry in path.iterdir())


def _sweep(path: Path) -> None:
    """Remove what a killed process left half written; the lock says that none writes here now."""
    for left in [*path.glob(f"{PARTIAL}*"), *(path / CHECKPOINTS).glob(f"{PARTIAL}*")]:
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _append_environment(path: Path) -> None:
    """Keep one environment for each time the run was started or gone on with."""
    before = read_json(path) if path.exists() else []
    holds = isinstance(before, list) and all(isinstance(start, dict) for start in before)
    require(holds, f"a list of environments in {path}", f"{before!r:.80}")
    write_json(path, [*before, environment()])


def _check_same(path: Path, config: Mapping[str, Any], resume: bool) -> None:
    stored = read_json(path / CONFIG)
    require(isinstance(stored, dict), f"a configuration in {path / CONFIG}", f"{stored!r:.80}")
    if different := sorted(k for k in {*stored, *config} if stored.get(k) != config.get(k)):
        shown = ", ".join(f"{k}={stored.get(k)!r} there, {config.get(k)!r} here" for k in different)
        raise InputError(f"Expected a run directory of this configuration. Received: {path} with {shown}")
    require(resume, "--resume to go on with an existing run", f"{path} without --resume")


@contextlib.contextmanager
def _lock(path: Path, waiting: Callable[[str], object] | None) -> Iterator[None]:
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


def write_json(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    files.write_file(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DamagedError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"Expected JSON in {path}. Received: {error}") from None


def write_checked(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, and in it the SHA-256 of its values, so that `read_checked` finds any damage."""
    write_json(path, {**values, _CHECKSUM: _checksum(values)})


def read_checked(path: Path) -> Any:
    """The values of a JSON object that `write_checked` wrote, without their checksum.

    Files of version 0.1.0 have no checksum; they pass as they are.

    Raises:
        DamagedError: if it is not JSON, or its values are not those of its checksum.
    """
    values = read_json(path)
    if isinstance(values, dict) and _CHECKSUM in values:
        stated, found = values.pop(_CHECKSUM), _checksum(values)
        if stated != found:
            raise DamagedError(f"Expected values of checksum {stated!s:.12} in {path}. Received: {found:.12}")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    # As they are read again: JSON has no tuples, and only text for keys.
    plain = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def environment_of(path: Path) -> dict[str, Any]:
    """The environment of the run in a directory that `open_run` holds.

    Versions and machine are those of its last start, the command that of its first. "commit" names the
    commit of every start, since each may have trained a part.
    """
    starts = read_json(path / ENVIRONMENT)
    commits = dict.fromkeys(start.get("commit") or "unknown" for start in starts)
    return starts[-1] | {"command": starts[0].get("command", ""), "commit": ", ".join(commits)}


def environment() -> dict[str, Any]:
    """What a number depends on beside the configuration: versions, machine, commit, command."""
    packages = ("divtf", "tensorflow", "keras", "cleverhans", "tensorflow-datasets", "numpy")
    return {
        # -m keeps the module's name only in orig_argv.
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "avx512": has_avx512(),
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Commit of the source tree, "-dirty" where files differ from it; "" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]

    def ask(*question: str) -> str:
        return subprocess.run([*git, *question], capture_output=True, text=True, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", Path(__file__).name)  # Fails in somebody else's checkout.
        changed = ask("status", "--porcelain", "--", ":/", *_OUTPUTS)
        return ask("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
