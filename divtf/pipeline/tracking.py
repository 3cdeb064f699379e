"""Telling trackers of a run (`--track`), so that no number of the run depends on it, nor its end."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from divtf.errors import InputError, first_line
from divtf.pipeline import shown
from divtf.pipeline.config import RunConfig
from divtf.runtime.draws import draws_kept
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json
from divtf.storage.records import TargetRecord
from divtf.training.trackers import TRACKERS, Subject, Tracker

_LOG = get_logger(__name__)
# By which names trackers know the run, and which of them have been told all.
_STATE = "tracking.json"
# Of the run directory, what trackers are given.
_FILES = ("config.json", "report.md", "report.html", "table.csv", "table.json", "*.png")


class Tracking:
    """The trackers of one run. One that fails is named in a line, and left out from there on."""

    def __init__(self, trackers: dict[str, Tracker]):
        self._trackers = trackers

    def listeners(self) -> list[keras.callbacks.Callback]:
        """Callbacks for a training."""
        made = {name: self.call(name, lambda each: each.callback()) for name in list(self._trackers)}
        return [_Listener(self, name, callback) for name, callback in made.items() if callback is not None]

    def finish(self, config: RunConfig, record: TargetRecord) -> None:
        """Tell what the run found, once its report is written."""
        directory = Path(config.run_dir)
        paths = [path for pattern in _FILES for path in sorted(directory.glob(pattern))]
        for name in list(self._trackers):
            self.call(name, lambda tracker: tracker.finish(shown.figures(record), paths))
            if name in self._trackers:
                _remember(directory, name, whole=True)

    def end(self, failed: bool) -> None:
        """Close what is open."""
        for name in list(self._trackers):
            self.call(name, lambda tracker: tracker.end(failed))

    def call(self, name: str, do: Callable[[Tracker], Any]) -> Any:
        """What the tracker gives; None if it fails or is left out."""
        if name not in self._trackers:
            return None
        try:
            with draws_kept():
                return do(self._trackers[name])
        except Exception as error:  # Whatever goes wrong there, the run is worth more.
            _LOG.info(f"--track={name} fails, and the run goes on without it: {first_line(error)}")
            with contextlib.suppress(Exception):
                self._trackers.pop(name).end(failed=True)
            return None


class _Listener(keras.callbacks.Callback):
    """A tracker's callback, called where that tells it something."""

    def __init__(self, tracking: Tracking, name: str, callback: keras.callbacks.Callback):
        super().__init__()
        self._tracking = tracking
        self._name = name
        self._callback = callback

    def set_model(self, model):
        super().set_model(model)
        self._callback.set_model(model)

    def on_train_begin(self, logs=None):
        self._tracking.call(self._name, lambda _: self._callback.on_train_begin(logs))

    def on_epoch_end(self, epoch, logs=None):
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._tracking.call(self._name, lambda _: self._callback.on_epoch_end(epoch, values))


@contextlib.contextmanager
def tracked(config: RunConfig) -> Iterator[Tracking]:
    """The run's trackers, those left out that have been told all before.

    Raises:
        InputError: if one cannot begin.
    """
    directory = Path(config.run_dir)
    subject = Subject(directory.name, shown.settings(config), directory.absolute().parent)
    trackers: dict[str, Tracker] = {}
    tracking, failed = Tracking(trackers), True
    try:
        for name in config.track or ():
            before = _state(directory).get(name, {})
            if not before.get("whole"):
                tracker = TRACKERS[name]()
                _remember(directory, name, run=_begin(name, tracker, subject, before.get("run")))
                trackers[name] = tracker
        yield tracking
        failed = False
    finally:
        tracking.end(failed)


def _begin(name: str, tracker: Tracker, subject: Subject, known: str | None) -> str:
    try:
        with draws_kept():
            return tracker.begin(subject, known)
    except Exception as error:
        with contextlib.suppress(Exception):
            tracker.end(failed=True)
        if isinstance(error, InputError):
            raise
        reason = first_line(error)
        raise InputError(f"Expected --track={name} to begin a run. Received: {reason}") from error


def _state(directory: Path) -> dict[str, dict[str, Any]]:
    try:
        return checked_json.read_json(directory / _STATE)
    except (FileNotFoundError, checked_json.DamagedError):
        return {}


def _remember(directory: Path, name: str, **values: Any) -> None:
    state = _state(directory)
    checked_json.write_json(directory / _STATE, state | {name: state.get(name, {}) | values})
