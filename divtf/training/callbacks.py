"""What happens beside the training steps: records, checkpoints at intervals, lines of progress."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.errors import require
from divtf.runtime import progress
from divtf.runtime.logs import get_logger
from divtf.storage import run_directory
from divtf.training.checkpoints import Checkpoints, State, write_metrics

_LOG = get_logger(__name__)
_STEPS_PER_SCALAR = 10
# Of the curves in TensorBoard; what is not named here is a loss, or a member's accuracy.
_GROUPS = {"gal": "alignment", "coherence": "alignment", "accuracy": "accuracy"}


class Counter(keras.callbacks.Callback):
    """Counts the steps of a training run and takes up its measures: all that workers do but the chief."""

    def __init__(self, state: State):
        super().__init__()
        self._state = state

    def close(self) -> None:
        """Finish what is written: nothing."""

    def on_epoch_begin(self, epoch, logs=None):
        """Give an epoch that goes on its measures back: they have just been reset."""
        for metric in self.model.metrics:
            if values := self._state.measures.get(metric.name):
                metric.total.assign(values[0])
                metric.count.assign(values[1])
        self._state.measures = {}

    def on_train_batch_end(self, batch, logs=None):
        """Count the step."""
        self._state.step += 1

    def on_epoch_end(self, epoch, logs=None):
        """Refuse measures that are not finite: no later step is there to find what the last one spoilt.

        Raises:
            InputError: names one of them.
        """
        lost = [name for name, value in sorted((logs or {}).items()) if not math.isfinite(value)]
        require(
            not lost,
            "finite measures at the end of an epoch",
            f"NaN or infinity as {', '.join(lost[:1])} after step {self._state.step}. A smaller learning "
            "rate or GAL weight may help",
        )


class Recorder(Counter):
    """Records a training run: checkpoints, metrics an epoch as JSON lines, curves for TensorBoard.

    Args:
        state: of the run.
        directory: of the run.
        checkpoints: where its state is kept.
        per_epoch: steps an epoch.
        interval: seconds between checkpoints within an epoch.
        coherence: gives the coherence of the monitored test images, [n]; None draws no histogram of it.
    """

    def __init__(
        self,
        state: State,
        directory: Path,
        checkpoints: Checkpoints,
        per_epoch: int,
        interval: float,
        coherence: Callable[[], np.ndarray] | None = None,
    ):
        super().__init__(state)
        self._directory = directory
        self._checkpoints = checkpoints
        self._per_epoch = per_epoch
        self._interval = interval
        self._coherence = coherence
        self._writer = tf.summary.create_file_writer(str(directory / run_directory.TENSORBOARD))
        self._clock = self._saved = time.monotonic()

    def close(self) -> None:
        """Finish the TensorBoard log."""
        self._writer.close()

    def on_train_batch_end(self, batch, logs=None):
        """Count the step; log and checkpoint at intervals."""
        super().on_train_batch_end(batch, logs)
        if self._state.step % _STEPS_PER_SCALAR == 0:
            self._write_scalars("step", logs or {}, self._state.step)
        within_epoch = self._state.step % self._per_epoch != 0
        if within_epoch and time.monotonic() - self._saved > self._interval:
            self._state.measures = {
                metric.name: [float(metric.total.numpy()), float(metric.count.numpy())]
                for metric in self.model.metrics
                if isinstance(metric, keras.metrics.Mean)
            }
            self._save()
            self._state.measures = {}

    def on_epoch_end(self, epoch, logs=None):
        """Record the epoch."""
        super().on_epoch_end(epoch, logs)
        self._state.history.append(
            {"epoch": epoch + 1} | {k: float(v) for k, v in sorted((logs or {}).items())}
        )
        write_metrics(self._directory / run_directory.METRICS, self._state.history)
        self._write_scalars("epoch", logs or {}, epoch + 1)
        if self._coherence is not None:
            with self._writer.as_default(step=epoch + 1):
                tf.summary.histogram("alignment/epoch/val_coherence_of_images", self._coherence())
            self._writer.flush()
        self._save()

    def _write_scalars(self, axis: str, values: Mapping[str, Any], step: int) -> None:
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(curve(axis, name), value)
        self._writer.flush()

    def _save(self) -> None:
        now = time.monotonic()
        self._state.seconds += now - self._clock
        self._checkpoints.save(self.model, self._state)
        self._clock = self._saved = time.monotonic()


def curve(axis: str, name: str) -> str:
    """A measure's name in TensorBoard, which groups curves by what stands before the first stroke.

    Args:
        axis: "step" or "epoch".
        name: as `fit` reports it, as "val_coherence".
    """
    measure = name.removeprefix("val_")
    other = "members" if measure.endswith("_accuracy") else "loss"
    return f"{_GROUPS.get(measure, other)}/{axis}/{name}"


class Progress(keras.callbacks.Callback):
    """Tells how training goes: a bar, or a line now and then, and lines at the end of each epoch.

    Args:
        state: as `Counter` counts it, which is called before.
        epochs: of the run.
        per_epoch: steps an epoch.
        bar: of `progress.bar`, over the steps of the run.
    """

    _SHOWN = ("loss", "cross_entropy", "gal", "coherence", "accuracy")
    _SECONDS = 10.0

    def __init__(self, state: State, epochs: int, per_epoch: int, bar: Any):
        super().__init__()
        self._state = state
        self._epochs = epochs
        self._per_epoch = per_epoch
        self._bar = bar
        self._last = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Advance the bar; without one log the running means, unless that was done a moment ago."""
        self._bar.update()
        if time.monotonic() - self._last > self._SECONDS and not progress.are_shown():
            self._last = time.monotonic()
            epoch, step = divmod(self._state.step - 1, self._per_epoch)
            self._log(f"epoch {epoch + 1}/{self._epochs}, step {step + 1}/{self._per_epoch}", logs or {})

    def on_epoch_end(self, epoch, logs=None):
        """Log the epoch's means in training, and on the monitored test images."""
        logs = logs or {}
        self._log(f"epoch {epoch + 1}/{self._epochs} trained", logs)
        self._log(f"epoch {epoch + 1}/{self._epochs} on test images", logs, prefix="val_")

    def _log(self, head: str, logs: Mapping[str, Any], prefix: str = "") -> None:
        values = [f"{n} {float(logs[prefix + n]):.4f}" for n in self._SHOWN if prefix + n in logs]
        _LOG.info(f"{head}: {', '.join(values)}")
