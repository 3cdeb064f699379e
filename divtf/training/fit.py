"""Fitting an ensemble to a mixture of images in a run directory, from any step on."""

import contextlib
import functools
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from divtf.data.mixture import Mixture, clean_batches
from divtf.ensembles.adam import Adam
from divtf.errors import InputError
from divtf.runtime import progress
from divtf.runtime.workers import Team
from divtf.training.callbacks import Counter, Progress, Recorder
from divtf.training.checkpoints import Checkpoints, State
from divtf.training.settings import Settings

# Test images on which the curves of an epoch are measured, which select nothing: at least and at most so
# many, and one for so many images of the epoch, or curves would take a large part of short epochs.
_FEWEST_MONITORED, _MOST_MONITORED = 200, 1000
_EPOCH_PER_MONITORED = 50


def optimizer(settings: Settings, steps: int) -> keras.optimizers.Optimizer:
    """Adam, with its learning rate scheduled over so many steps (section 4.1)."""
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    return Adam(rate, weight_decay=settings.weight_decay or None)


def fit(
    state: State,
    settings: Settings,
    mixture: Mixture,
    *,
    directory: Path,
    checkpoints: Checkpoints,
    team: Team,
) -> None:
    """Train the state's ensemble from the state's step to the end of the last epoch.

    On several workers each calls this; the chief alone writes.

    Raises:
        InputError: if training meets a loss or gradient that is not finite, or loses a worker; the last
            checkpoint stays.
    """
    per_epoch = mixture.steps_per_epoch
    counter: Counter = Counter(state)
    if team.is_chief:
        counter = Recorder(state, directory, checkpoints, per_epoch, settings.checkpoint_minutes * 60)
    epoch, done = divmod(state.step, per_epoch)
    bar = progress.bar("training steps", per_epoch * settings.epochs, state.step)
    with contextlib.closing(counter), bar:
        callbacks = [counter, Progress(state, settings.epochs, per_epoch, bar)]
        try:
            if done:  # The rest of an interrupted epoch is an epoch of fewer steps to Keras.
                _fit_epochs(
                    state, mixture, callbacks, team, first=epoch, last=epoch + 1, steps=per_epoch - done
                )
                epoch += 1
            if epoch < settings.epochs:
                _fit_epochs(
                    state, mixture, callbacks, team, first=epoch, last=settings.epochs, steps=per_epoch
                )
        except InputError as error:
            if not team.is_chief:
                raise
            newest = checkpoints.newest
            last = f"the last good checkpoint is {newest}" if newest else "no checkpoint was made before"
            raise InputError(f"{error}; {last}") from None


def _fit_epochs(
    state: State, mixture: Mixture, callbacks: list, team: Team, *, first: int, last: int, steps: int
) -> None:
    """Epochs `first` to `last`, counted from 0, the last one left out, of so many steps each."""
    images, labels = mixture.data.test_set(_monitored(mixture.examples_per_epoch))
    training: Any = functools.partial(mixture.batches, state.step)
    testing: Any = functools.partial(clean_batches, images, labels, mixture.batch_size)
    if not team.has_several:  # On several workers each makes its own shares of them.
        training, testing = whole_batches(training()), whole_batches(testing())
    state.ensemble.fit(
        training,
        initial_epoch=first,
        epochs=last,
        steps_per_epoch=steps,
        validation_data=testing,
        callbacks=callbacks,
        shuffle=False,  # The mixture shuffles by itself.
        verbose=0,
    )


def _monitored(examples_per_epoch: int) -> int:
    """How many test images the curves are measured on after each epoch."""
    return min(_MOST_MONITORED, max(_FEWEST_MONITORED, examples_per_epoch // _EPOCH_PER_MONITORED))


def whole_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, to be split batch by batch over the replicas rather than by files.

    Without tuning: it has nothing to tune, and TensorFlow's tuning thread, where it misses that it is to end,
    holds up the end of `fit` for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
