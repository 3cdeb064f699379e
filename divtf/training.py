"""Training an ensemble in a run directory: build, fit, checkpoint, go on."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf import run_dir
from divtf.config import MODES, RunConfig
from divtf.data import Mixture
from divtf.datasets import DatasetSpec, ImageData
from divtf.ensemble import Ensemble
from divtf.errors import InputError, require
from divtf.models import build_members
from divtf.objectives import CrossEntropy, GradientAlignment

# Test images on which the curves of an epoch are measured; they select nothing.
_MONITORED = 1000
_LOG_EVERY = 10


def build_ensemble(config: RunConfig, spec: DatasetSpec, *, precision: str = "float32") -> Ensemble:
    """A new ensemble for the configuration, not compiled."""
    members = build_members(
        config.model,
        config.num_members,
        spec.image_shape,
        spec.num_classes,
        seed=config.seed,
        activation=config.activation,
        negative_slope=config.negative_slope,
        dtype=precision,
    )
    objective = GradientAlignment(config.gal_weight) if MODES[config.mode].gal else CrossEntropy()
    return Ensemble(members, objective)


def train(
    config: RunConfig,
    data: ImageData,
    directory: Path,
    *,
    signs: np.ndarray | None = None,
    say: Callable[[str], object] = print,
) -> tuple[Ensemble, float]:
    """Train the configuration's ensemble, or go on from the newest checkpoint in the directory.

    Args:
        config: resolved or not.
        data: training and test images.
        directory: a run directory that this process holds.
        signs: gradient signs of the static model at the training images, for modes ens and ens_div.
        say: takes a line of progress.

    Returns:
        The trained ensemble in float32, whatever the precision of its training, and the seconds spent
        training it, interruptions not counted.

    Raises:
        InputError: if training meets a loss or gradient that is not finite; the last checkpoint stays.
    """
    config = config.resolved()
    mixture = Mixture(
        data, MODES[config.mode].sources, config.largest_epsilon, config.batch_size, config.seed, signs
    )
    checkpoints = Checkpoints(directory / run_dir.CHECKPOINTS, say)
    total = mixture.steps_per_epoch * config.epochs
    with _devices(config):
        state = checkpoints.restore()
        if state is None:
            ensemble = build_ensemble(config, data.spec, precision=config.precision)
            ensemble.compile(_optimizer(config, total))
            # Otherwise the first step makes its variables, and has to be traced a second time without that.
            ensemble.optimizer.build(ensemble.trainable_variables)
            state = State()
        else:
            ensemble = state.ensemble
            head = "goes on from" if state.step < total else "was trained before:"
            say(f"{head} step {state.step} of {total}")
        if state.step < total:
            _fit(ensemble, state, config, mixture, directory, checkpoints, say)
    return _in_float32(ensemble, config, data.spec), state.seconds


def _fit(ensemble, state, config, mixture, directory, checkpoints, say) -> None:
    per_epoch = mixture.steps_per_epoch
    recorder = Recorder(state, directory, checkpoints, per_epoch, config.checkpoint_minutes * 60)
    epoch, done = divmod(state.step, per_epoch)
    options = {
        "validation_data": mixture.data.test_set(_MONITORED),
        "validation_batch_size": config.batch_size,
        "callbacks": [recorder, Progress(say, state, config.epochs, per_epoch)],
        "shuffle": False,  # The mixture shuffles by itself.
        "verbose": 0,
    }
    images = f"{mixture.examples_per_epoch} images"
    target = MODES[config.mode].target
    say(f"trains {target}: {config.num_members} x {config.model}, {config.epochs} epochs of {images}")

    def fit(first: int, last: int, steps: int) -> None:
        """Epochs `first` to `last`, counted from 0, the last one left out."""
        batches = _split_by_batch(mixture.batches(state.step))
        ensemble.fit(batches, initial_epoch=first, epochs=last, steps_per_epoch=steps, **options)

    with contextlib.closing(recorder):
        try:
            if done:  # The rest of an interrupted epoch is an epoch of fewer steps to Keras.
                fit(epoch, epoch + 1, per_epoch - done)
                epoch += 1
            if epoch < config.epochs:
                fit(epoch, config.epochs, per_epoch)
        except InputError as error:
            last = checkpoints.newest
            kept = f"the last good checkpoint is {last}" if last else "no checkpoint was made before"
            raise InputError(f"{error}; {kept}") from None


def restore(config: RunConfig, spec: DatasetSpec, directory: Path) -> Ensemble:
    """The trained ensemble of a finished run, in float32.

    Raises:
        InputError: if the directory has no whole checkpoint.
    """
    state = Checkpoints(directory / run_dir.CHECKPOINTS).restore()
    if state is None:
        raise InputError(f"Expected a whole checkpoint in {directory / run_dir.CHECKPOINTS}. Received: none")
    return _in_float32(state.ensemble, config, spec)


def _split_by_batch(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, to be split batch by batch over the replicas rather than by files."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


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
        """The newest checkpoint that is whole, with its ensemble; None if there is none."""
        for path in self._states():
            try:
                values = json.loads(path.read_text())
                model_path = path.with_suffix(".keras")
                if run_dir.file_digest(model_path) != values.pop("sha256"):
                    raise ValueError("its hash is not the recorded one")
                state = State(**values, ensemble=keras.saving.load_model(model_path))
                self.newest = model_path
                return state
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._say(f"checkpoint {path.stem} is damaged ({error}); trying the one before")
        return None

    def _states(self) -> list[Path]:
        return sorted(self._directory.glob("step-*.json"), reverse=True)

    def _prune(self, newest: str) -> None:
        """Keep the newest checkpoint and the one before; a later one is damaged, or was not finished."""
        kept = [path.stem for path in self._states() if path.stem <= newest][:2]
        for path in self._directory.glob("step-*"):
            if path.stem not in kept:
                path.unlink()


class Recorder(keras.callbacks.Callback):
    """Records a training run: checkpoints, metrics an epoch as JSON lines, TensorBoard scalars."""

    def __init__(
        self, state: State, directory: Path, checkpoints: Checkpoints, per_epoch: int, interval: float
    ):
        super().__init__()
        self._state = state
        self._directory = directory
        self._checkpoints = checkpoints
        self._per_epoch = per_epoch
        self._interval = interval
        self._writer = tf.summary.create_file_writer(str(directory / run_dir.TENSORBOARD))
        self._clock = self._saved = time.monotonic()

    def close(self) -> None:
        """Finish the TensorBoard log."""
        self._writer.close()

    def on_epoch_begin(self, epoch, logs=None):
        """Give an epoch that goes on its measures back: Keras has just reset them."""
        for metric in self.model.metrics:
            if values := self._state.measures.get(metric.name):
                metric.total.assign(values[0])
                metric.count.assign(values[1])
        self._state.measures = {}

    def on_train_batch_end(self, batch, logs=None):
        """Count the step; log and checkpoint at intervals."""
        self._state.step += 1
        if self._state.step % _LOG_EVERY == 0:
            self._log({f"step/{name}": value for name, value in (logs or {}).items()}, self._state.step)
        within_epoch = self._state.step % self._per_epoch != 0
        if within_epoch and time.monotonic() - self._saved > self._interval:
            self._state.measures = {
                metric.name: [float(metric.total), float(metric.count)]
                for metric in self.model.metrics
                if isinstance(metric, keras.metrics.Mean)
            }
            self._save()
            self._state.measures = {}

    def on_epoch_end(self, epoch, logs=None):
        """Record the epoch."""
        self._state.history.append(
            {"epoch": epoch + 1} | {k: float(v) for k, v in sorted((logs or {}).items())}
        )
        lines = "".join(json.dumps(line) + "\n" for line in self._state.history)
        with run_dir.atomic_path(self._directory / run_dir.METRICS) as partial:
            partial.write_text(lines)
        self._log({f"epoch/{name}": value for name, value in (logs or {}).items()}, epoch + 1)
        self._save()

    def _log(self, values: dict[str, Any], step: int) -> None:
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def _save(self) -> None:
        now = time.monotonic()
        self._state.seconds += now - self._clock
        self._checkpoints.save(self.model, self._state)
        self._clock = self._saved = time.monotonic()


class Progress(keras.callbacks.Callback):
    """Says how training goes: a line now and then, and one at the end of each epoch."""

    _SHOWN = ("loss", "cross_entropy", "gal", "coherence", "accuracy")
    _SECONDS = 10.0

    def __init__(self, say: Callable[[str], object], state: State, epochs: int, per_epoch: int):
        super().__init__()
        self._say = say
        self._state = state
        self._epochs = epochs
        self._per_epoch = per_epoch
        self._last = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Say the running means, unless it was done a moment ago."""
        if time.monotonic() - self._last > self._SECONDS:
            self._last = time.monotonic()
            epoch, step = divmod(self._state.step - 1, self._per_epoch)
            self._line(f"epoch {epoch + 1}/{self._epochs}, step {step + 1}/{self._per_epoch}", logs or {})

    def on_epoch_end(self, epoch, logs=None):
        """Say the epoch's means in training, and on the monitored test images."""
        logs = logs or {}
        self._line(f"epoch {epoch + 1}/{self._epochs} trained", logs)
        self._line(f"epoch {epoch + 1}/{self._epochs} on test images", logs, prefix="val_")

    def _line(self, head: str, logs: Mapping[str, Any], prefix: str = "") -> None:
        values = [f"{n} {float(logs[prefix + n]):.4f}" for n in self._SHOWN if prefix + n in logs]
        self._say(f"{head}: {', '.join(values)}")


def _optimizer(config: RunConfig, steps: int) -> keras.optimizers.Optimizer:
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    return keras.optimizers.Adam(rate, weight_decay=config.weight_decay or None)


def _devices(config: RunConfig) -> contextlib.AbstractContextManager:
    """The scope of the devices to train on."""
    if config.precision == "mixed_bfloat16":
        require(
            os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
            "oneDNN on for --precision=mixed_bfloat16, which is some 25 times slower on a CPU without it",
            "TF_ENABLE_ONEDNN_OPTS=0",
        )
    if config.strategy == "mirrored":
        return tf.distribute.MirroredStrategy().scope()
    return contextlib.nullcontext()


def _in_float32(ensemble: Ensemble, config: RunConfig, spec: DatasetSpec) -> Ensemble:
    if config.precision == "float32":
        return ensemble
    exact = build_ensemble(config, spec)
    exact.set_weights(ensemble.get_weights())
    exact.compile()
    return exact
