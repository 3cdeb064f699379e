"""Run directories: who may write there, and what lies where."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from divtf.errors import InputError, require
from divtf.storage.checked_json import read_json, write_json
from divtf.storage.environment import environment
from divtf.storage.files import PARTIAL
from divtf.storage.locks import lock

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULTS = "results.json"
GAAS = "gaas.json"
TRANSFER_MATRIX = "transfer.json"
COMPARISON = "comparison.json"
EXAMPLES = "examples.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
ENSEMBLE = "ensemble.keras"
_LOCK = ".lock"


def evaluation(protocol: str) -> str:
    """The file of an evaluation by that protocol."""
    return f"evaluation-{protocol}.json"


@contextlib.contextmanager
def open_run(
    path: Path,
    config: Mapping[str, Any],
    *,
    resume: bool,
    wait: bool = False,
) -> Iterator[Path]:
    """Hold a run directory for this process alone, new or of the same configuration.

    Args:
        path: the directory; made if it is not there.
        config: JSON values that identify the run.
        resume: whether an existing run of that configuration may be gone on with.
        wait: whether to wait for another process that holds the directory.

    Raises:
        InputError: if the directory holds a run of another configuration, or one of this configuration
            and `resume` is false, or something that is not a run; or if a living process holds it and
            `wait` is false.
        OSError: if the directory cannot be written.
    """
    _require_place(path)
    path.mkdir(parents=True, exist_ok=True)
    with lock(path / _LOCK, wait=wait):
        # Looked at only now: whoever held the lock before may have made the run.
        if (path / CONFIG).exists():
            _check_same(path, config, resume)
        else:
            write_json(path / CONFIG, config)
        _sweep(path)
        _append_environment(path / ENVIRONMENT)
        yield path


def require_usable(path: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse a directory that `open_run` would refuse with these arguments, whoever holds it now.

    Raises:
        InputError: says what is wrong with it.
    """
    _require_place(path)
    if (path / CONFIG).exists():
        _check_same(path, config, resume)


@contextlib.contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a directory of files that are made once for all processes; made if it is not there.

    What a killed process left half written there is removed first: no living one writes there now.

    Args:
        path: the directory.
        wait: as in `open_run`.

    Raises:
        InputError: if a living process holds it and `wait` is false.
        OSError: if the directory cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    with lock(path / _LOCK, wait=wait):
        _sweep(path)
        yield


def _require_place(path: Path) -> None:
    require(not path.exists() or path.is_dir(), "a directory", f"{path}, which is a file")
    require(not _is_foreign(path), "an empty or new run directory", f"{path}, which holds other files")


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


def environment_of(path: Path) -> dict[str, Any]:
    """The environment of the run in a directory that `open_run` holds.

    Versions and machine are those of its last start, the command that of its first. "commit" names the
    commit of every start, since each may have trained a part.
    """
    starts = read_json(path / ENVIRONMENT)
    commits = dict.fromkeys(start.get("commit") or "unknown" for start in starts)
    return starts[-1] | {"command": starts[0].get("command", ""), "commit": ", ".join(commits)}


def _check_same(path: Path, config: Mapping[str, Any], resume: bool) -> None:
    stored = read_json(path / CONFIG)
    require(isinstance(stored, dict), f"a configuration in {path / CONFIG}", f"{stored!r:.80}")
    if different := sorted(k for k in {*stored, *config} if stored.get(k) != config.get(k)):
        shown = ", ".join(f"{k}={stored.get(k)!r} there, {config.get(k)!r} here" for k in different)
        raise InputError(f"Expected a run directory of this configuration. Received: {path} with {shown}")
    require(resume, "--resume to go on with an existing run", f"{path} without --resume")
