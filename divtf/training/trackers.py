"""MLflow and Weights & Biases: where a run is told to them, by their own Keras callbacks. No TensorFlow.

Each is an extra of this package, imported where it is used, and writes to a folder on this machine unless the
user has named another place in its own way.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from divtf.errors import require, require_installed

if TYPE_CHECKING:
    import keras

_PROJECT = "divtf"
_MLFLOW_PLACE = "MLFLOW_TRACKING_URI"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is told.

    Attributes:
        name: of the run.
        settings: of the run, by name.
        place: a directory that holds several runs, and so the folders of the trackers.
    """

    name: str
    settings: Mapping[str, bool | int | float | str]
    place: Path


class Tracker(Protocol):
    """One of them: `begin`, then `callback` for each training, `finish` if all went well, `end`."""

    def begin(self, subject: Subject, known: str | None) -> str:
        """Begin a run, or go on with the known one; gives the name by which it is known."""
        ...

    def callback(self) -> "keras.callbacks.Callback":
        """What tells it of the measures of each epoch."""
        ...

    def finish(self, figures: Mapping[str, float], paths: Sequence[Path]) -> None:
        """Tell it what the run found, and give it the files."""
        ...

    def end(self, failed: bool) -> None:
        """Close the run."""
        ...


class MLflow:
    """A run of MLflow: in `mlruns` beside the run directory, or at MLFLOW_TRACKING_URI."""

    def begin(self, subject: Subject, known: str | None) -> str:
        """As `Tracker.begin`; a known run that is gone is begun anew."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # It would begin with the import.
        import mlflow

        self._is_ours = not mlflow.is_tracking_uri_set()
        if self._is_ours:
            # MLflow keeps runs in files only for those who say that they mean it.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            os.environ[_MLFLOW_PLACE] = (subject.place / "mlruns").absolute().as_uri()
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
        known = known if known and _is_there(known) else None
        nested = mlflow.active_run() is not None  # The caller's own.
        run = mlflow.start_run(run_id=known, run_name=None if known else subject.name, nested=nested)
        mlflow.log_params(dict(subject.settings))
        return run.info.run_id

    def callback(self) -> "keras.callbacks.Callback":
        """As `Tracker.callback`."""
        from mlflow.keras import MlflowCallback

        return MlflowCallback()

    def finish(self, figures: Mapping[str, float], paths: Sequence[Path]) -> None:
        """As `Tracker.finish`."""
        import mlflow

        mlflow.log_metrics(dict(figures))
        for path in paths:
            mlflow.log_artifact(str(path))

    def end(self, failed: bool) -> None:
        """As `Tracker.end`."""
        import mlflow

        mlflow.flush_async_logging()
        mlflow.end_run("FAILED" if failed else "FINISHED")
        if self._is_ours:
            del os.environ[_MLFLOW_PLACE]  # The next run may lie elsewhere.


def _is_there(run_id: str) -> bool:
    """Whether the store has the run; it may have been thrown away."""
    import mlflow

    try:
        return mlflow.get_run(run_id).info.lifecycle_stage == "active"
    except mlflow.exceptions.MlflowException:
        return False


class WeightsAndBiases:
    """A run of Weights & Biases: offline, in `wandb` beside the run directory, unless WANDB_MODE is set."""

    def begin(self, subject: Subject, known: str | None) -> str:
        """As `Tracker.begin`; offline a known run goes on in a folder of its own, of the same id."""
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # To its makers, from the import on.
        import wandb

        require(wandb.run is None, "--track=wandb outside of any run of wandb", "one that is under way")
        # It takes standard output otherwise, and prints an advertisement.
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=subject.name,
            id=known,
            resume="allow" if known and mode == "online" else None,
            config=dict(subject.settings),
            dir=os.environ.get("WANDB_DIR", str(subject.place)),
            mode=mode,
            settings=settings,
        )
        return self._run.id

    def callback(self) -> "keras.callbacks.Callback":
        """As `Tracker.callback`."""
        from wandb.integration.keras import WandbMetricsLogger

        return WandbMetricsLogger()

    def finish(self, figures: Mapping[str, float], paths: Sequence[Path]) -> None:
        """As `Tracker.finish`."""
        import wandb

        self._run.summary.update(dict(figures))
        pictures = {path.stem: wandb.Image(str(path)) for path in paths if path.suffix == ".png"}
        if pictures:
            self._run.log({f"report/{name}": picture for name, picture in pictures.items()})
        for path in paths:
            self._run.save(str(path), base_path=str(path.parent), policy="now")

    def end(self, failed: bool) -> None:
        """As `Tracker.end`."""
        self._run.finish(exit_code=int(failed))


# By their names, which are those of the extras and of the packages too.
TRACKERS: dict[str, type[Tracker]] = {"mlflow": MLflow, "wandb": WeightsAndBiases}


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        InputError: says how to install one.
    """
    for name in names:
        require_installed(f"--track={name}", name, [name])
