"""Checkpoints of a training run: whole, checked by their hash, the newest two kept."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError, first_line, require
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, digests, files

_LOG = get_logger(__name__)
# What reading a damaged file, or one that is not a checkpoint's, comes to. A file that is there and cannot be
# read, by its permissions or a fault of the storage, is no damage: training anew in its place would lose it.
_DAMAGE = (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError)
_FILE = re.compile(r"step-\d{8,}\.(keras|json)")


@dataclasses.dataclass
class State:
    """How far training has come.

    Attributes:
        step: batches trained on.
        seconds: time spent.
        history: one mapping of metrics an epoch.
        measures: total and count of every measure of the epoch under way.
        images: fingerprint of the images that it is trained on, see `DatasetSpec`; None of a checkpoint of
            0.2.0 or before.
        ensemble: the ensemble as restored; None for a new one.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    measures: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    images: str | None = None
    ensemble: Any = None


class Checkpoints:
    """The newest two checkpoints of a run: a .keras file each, and a JSON file with its hash and state.

    Args:
        directory: where they are kept.
        run: tells what is trained; a checkpoint of something else is refused. "" takes any.

    Attributes:
        newest: the .keras file last written or restored here, or None.
    """

    def __init__(self, directory: Path, run: str = ""):
        self.newest: Path | None = None
        self._directory = directory
        self._run = run

    def save(self, ensemble: Ensemble, state: State) -> None:
        """Write a checkpoint; it counts once its JSON file is there."""
        model_path = self._directory / f"step-{state.step:08d}.keras"
        with files.atomic_path(model_path) as partial:
            ensemble.save(partial)
        values = {name: getattr(state, name) for name in ("step", "seconds", "history", "measures", "images")}
        values |= {"run": self._run, "sha256": digests.file_digest(model_path)}
        checked_json.write_checked(model_path.with_suffix(".json"), values)
        self.newest = model_path
        self._prune(model_path.stem)

    def restore(self) -> State | None:
        """The newest checkpoint that is whole, with its ensemble; None if there is none.

        Raises:
            InputError: if a whole checkpoint is of another run, or cannot be loaded, as under another
                version of Keras: to train anew in its place would lose it.
            OSError: if a checkpoint cannot be read, for the same reason.
        """
        if (newest := self._newest_whole()) is None:
            return None
        state, run, self.newest = newest
        require(
            run == self._run or not run or not self._run,
            f"a checkpoint of this run, {self._run}",
            f"{self.newest} of {run}",
        )
        state.ensemble = _load(self.newest)
        return state

    def newest_step(self) -> int:
        """Step of the newest checkpoint that is whole; 0 if there is none."""
        newest = self._newest_whole()
        return newest[0].step if newest else 0

    def mend_metrics(self, path: Path, *, finished: bool = False) -> None:
        """Write the lines of metrics again if they are not those that the newest checkpoint remembers.

        A process killed between the two files leaves one line more, which is no damage unless the run is
        finished.
        """
        for before, state_path in enumerate(self._states()):
            try:
                state, _, _ = _read_state(state_path)
            except _DAMAGE:
                continue
            written = path.read_bytes() if path.exists() else b""
            known = _lines(state.history).encode()
            # What an older checkpoint remembers is the beginning of it only.
            whole = finished and before == 0
            if not (written == known if whole else written.startswith(known)):
                _LOG.info(f"{path} is damaged; writing it again from checkpoint {state_path.stem}")
                write_metrics(path, state.history)
            return

    def _newest_whole(self) -> tuple[State, str, Path] | None:
        """State without its ensemble, run and .keras file of the newest checkpoint that is whole."""
        for path in self._states():
            model_path = path.with_suffix(".keras")
            try:
                state, run, sha256 = _read_state(path)
                if digests.file_digest(model_path) != sha256:
                    raise ValueError("its hash is not the recorded one")
            except _DAMAGE as error:
                _LOG.info(f"checkpoint {path.stem} is damaged ({error}); trying the one before")
                continue
            return state, run, model_path
        return None

    def _states(self) -> list[Path]:
        return sorted((path for path in self._files() if path.suffix == ".json"), reverse=True)

    def _files(self) -> list[Path]:
        """The files of all checkpoints; others in the directory are not ours."""
        return [path for path in self._directory.glob("step-*") if _FILE.fullmatch(path.name)]

    def _prune(self, newest: str) -> None:
        """Keep the newest checkpoint and the one before; a later one is damaged, or was not finished."""
        newest_two = [path.stem for path in self._states() if path.stem <= newest][:2]
        for path in self._files():
            if path.stem not in newest_two:
                path.unlink()


def write_metrics(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write one line of JSON an epoch, whole or not at all."""
    files.write_file(path, _lines(history))


def _lines(history: Sequence[Mapping[str, float]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in history)


def _read_state(path: Path) -> tuple[State, str, str]:
    """State of a checkpoint without its ensemble, the run it is of, and the SHA-256 of its .keras file."""
    values = checked_json.read_checked(path)
    run, sha256 = values.pop("run", ""), values.pop("sha256")
    return State(**values), run, sha256


def _load(path: Path) -> Ensemble:
    try:
        # In safe mode Keras runs no code that a file brings.
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # A file that Keras did not write may fail in any way.
        reason = first_line(error)
        raise InputError(f"Expected a checkpoint that Keras can load. Received: {path}: {reason}") from error
    require(isinstance(model, Ensemble), "a checkpoint of an ensemble", f"{path} of a {type(model).__name__}")
    return model
