"""Checkpoints of a training run: whole, checked by their hash, the newest two kept."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from divtf import run_dir
from divtf.ensemble import Ensemble
from divtf.errors import InputError


@dataclasses.dataclass
class State:
    """How far training has come.

    Attributes:
        step: batches trained on.
        seconds: time spent.
        history: one mapping of metrics an epoch.
        measures: total and count of every measure of the epoch under way.
        ensemble: the ensemble as restored; None for a new one.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    measures: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    ensemble: Any = None


class Checkpoints:
    """The newest two checkpoints of a run: a .keras file each, and a JSON file with its hash and state.

    Attributes:
        newest: the .keras file last written or restored here, or None.
    """

    def __init__(self, directory: Path, say: Callable[[str], object] = print):
        self.newest: Path | None = None
        self._directory = directory
        self._say = say

    def save(self, ensemble: Ensemble, state: State) -> None:
        """Write a checkpoint; it counts once its JSON file is there."""
        model_path = self._directory / f"step-{state.step:08d}.keras"
        with run_dir.atomic_path(model_path) as partial:
            ensemble.save(partial)
        values = {name: getattr(state, name) for name in ("step", "seconds", "history", "measures")}
        run_dir.write_json(
            model_path.with_suffix(".json"), values | {"sha256": run_dir.file_digest(model_path)}
        )
        self.newest = model_path
        self._prune(model_path.stem)

    def restore(self) -> State | None:
        """The newest checkpoint that is whole, with its ensemble; None if there is none.

        Raises:
            InputError: if a whole checkpoint cannot be loaded, as under another version of Keras: to
                train anew in its place would lose it.
        """
        for path in self._states():
            model_path = path.with_suffix(".keras")
            try:
                values = json.loads(path.read_text())
                if run_dir.file_digest(model_path) != values.pop("sha256"):
                    raise ValueError("its hash is not the recorded one")
                state = State(**values)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                self._say(f"checkpoint {path.stem} is damaged ({error}); trying the one before")
                continue
            state.ensemble = _load(model_path)
            self.newest = model_path
            return state
        return None

    def _states(self) -> list[Path]:
        return sorted(self._directory.glob("step-*.json"), reverse=True)

    def _prune(self, newest: str) -> None:
        """Keep the newest checkpoint and the one before; a later one is damaged, or was not finished."""
        kept = [path.stem for path in self._states() if path.stem <= newest][:2]
        for path in self._directory.glob("step-*"):
            if path.stem not in kept:
                path.unlink()


def _load(path: Path) -> Ensemble:
    try:
        return keras.saving.load_model(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"Expected a checkpoint that Keras can load. Received: {path}: {reason}") from error
