"""Training an ensemble in a run directory: build, fit, checkpoint, go on."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.data.datasets import DatasetSpec, ImageData
from divtf.data.mixture import Mixture
from divtf.ensembles.adam import Adam
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.objectives import CrossEntropy, GradientAlignment
from divtf.errors import InputError, require
from divtf.networks.models import build_members
from divtf.pipeline import preflight
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.runtime import devices, workers
from divtf.storage import run_directory
from divtf.storage.digests import digest
from divtf.training.callbacks import Counter, Progress, Recorder
from divtf.training.checkpoints import Checkpoints, State

# Test images on which the curves of an epoch are measured, which select nothing: at least and at most so
# many, and one for so many images of the epoch, or curves would take a large part of short epochs.
_MONITORED = 200, 1000
_EPOCH_PER_MONITORED = 50


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
        directory: a run directory that this process holds; on several workers, that the chief holds, and
            that all of them can read.
        signs: gradient signs of the static model at the training images, for modes ens and ens_div.
        say: takes a line of progress.

    Returns:
        The trained ensemble in float32, whatever the precision of its training, and the seconds spent
        training it, interruptions not counted. After training on several workers it is a copy on this
        one, which each may use without the others.

    Raises:
        InputError: if training meets a loss or gradient that is not finite, or loses a worker; the last
            checkpoint stays.
    """
    config = config.resolved()
    preflight.require_fast_precision(config.precision)
    on = devices.strategy(config.strategy)
    mixture = Mixture(
        data, MODES[config.mode].sources, config.largest_epsilon, config.batch_size, config.seed, signs
    )
    checkpoints = _checkpoints(config, directory, say)
    if workers.is_chief(on):
        checkpoints.mend_metrics(directory / run_directory.METRICS)
    total = mixture.steps_per_epoch * config.epochs
    _agree(config, on, directory)
    with devices.scope(on):
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
    # Outside the scope: what Keras makes on the way, as to save, would take all workers.
    if state.step < total:
        _fit(ensemble, state, config, mixture, directory, checkpoints, say)
    return _evaluated(ensemble, config, data.spec), state.seconds


def _fit(ensemble, state, config, mixture, directory, checkpoints, say) -> None:
    per_epoch = mixture.steps_per_epoch
    chief = workers.is_chief(ensemble.distribute_strategy)
    recorder: Counter = Counter(state)
    if chief:
        recorder = Recorder(state, directory, checkpoints, per_epoch, config.checkpoint_minutes * 60)
    epoch, done = divmod(state.step, per_epoch)
    options = {
        "validation_data": mixture.data.test_set(_monitored(mixture.examples_per_epoch)),
        "validation_batch_size": config.batch_size,
        "callbacks": [recorder, Progress(say, state, config.epochs, per_epoch)],
        "shuffle": False,  # The mixture shuffles by itself.
        "verbose": 0,
    }
    images = f"{mixture.examples_per_epoch} images"
    say(f"trains {config.target}: {config.num_members} x {config.model}, {config.epochs} epochs of {images}")

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
            if not chief:
                raise
            last = checkpoints.newest
            kept = f"the last good checkpoint is {last}" if last else "no checkpoint was made before"
            raise InputError(f"{error}; {kept}") from None


def _monitored(examples_per_epoch: int) -> int:
    """How many test images the curves are measured on after each epoch."""
    least, most = _MONITORED
    return min(most, max(least, examples_per_epoch // _EPOCH_PER_MONITORED))


def restore(config: RunConfig, spec: DatasetSpec, directory: Path) -> Ensemble:
    """The trained ensemble of a finished run, in float32.

    Raises:
        InputError: if the directory has no whole checkpoint, or only one from before the end of training.
    """
    state = _checkpoints(config, directory, print).restore()
    epochs = config.resolved().epochs
    trained = len(state.history) if state else 0
    if state is None or trained < epochs:
        found = f"one of epoch {trained}" if state else "none"
        raise InputError(
            f"Expected a whole checkpoint of epoch {epochs}, the last one, in "
            f"{directory / run_directory.CHECKPOINTS}. Received: {found}; "
            f"without {run_directory.RESULTS} --resume makes it anew"
        )
    return _evaluated(state.ensemble, config, spec)


def mend_metrics(config: RunConfig, directory: Path, say: Callable[[str], object] = print) -> None:
    """Write the metrics of a finished run again if they are not those that its checkpoint remembers."""
    _checkpoints(config, directory, say).mend_metrics(directory / run_directory.METRICS, finished=True)


def _checkpoints(config: RunConfig, directory: Path, say: Callable[[str], object]) -> Checkpoints:
    return Checkpoints(directory / run_directory.CHECKPOINTS, say, run=digest(config.training()))


def _split_by_batch(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, to be split batch by batch over the replicas rather than by files."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def _optimizer(config: RunConfig, steps: int) -> keras.optimizers.Optimizer:
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    return Adam(rate, weight_decay=config.weight_decay or None)


def _agree(config: RunConfig, on: tf.distribute.Strategy, directory: Path) -> None:
    """Hold all workers to the chief's configuration and checkpoint, before they make anything together.

    Raises:
        InputError: on a worker that has others; the chief then learns that it is gone.
    """
    if not workers.has_several(on):
        return
    own = digest(config.training())
    chiefs = workers.from_chief(on, int(own, 16))
    require(int(own, 16) == chiefs, "the chief's configuration on every worker", f"another one: {own}")
    step = _checkpoints(config, directory, lambda line: None).newest_step()
    chiefs = workers.from_chief(on, step)
    require(
        step == chiefs,
        f"the chief's checkpoint of step {chiefs} in {directory} on every worker: they are to share storage",
        f"that of step {step}",
    )


def _evaluated(ensemble: Ensemble, config: RunConfig, spec: DatasetSpec) -> Ensemble:
    """The ensemble for evaluation: in float32, on the devices of this process."""
    on = ensemble.distribute_strategy
    if config.precision == "float32" and not workers.has_several(on):
        return ensemble
    with contextlib.nullcontext() if workers.has_several(on) else on.scope():
        exact = build_ensemble(config, spec)
        exact.set_weights(ensemble.get_weights())
        exact.compile()
    return exact
