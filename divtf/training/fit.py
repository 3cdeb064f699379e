"""Fitting an ensemble to a mixture of images in a run directory, from any step on."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.data.images import blocks
from divtf.data.mixture import Mixture, clean_batches
from divtf.ensembles import alignment
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
    listeners: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train the state's ensemble from the state's step to the end of the last epoch.

    On several workers each calls this; the chief alone writes.

    Args:
        state: how far training has come.
        settings: how to fit.
        mixture: of which images.
        directory: of the run.
        checkpoints: where the state is kept.
        team: of workers.
        listeners: more callbacks, which only look on.

    Raises:
        InputError: if training meets a loss or gradient that is not finite, or loses a worker; the last
            checkpoint stays.
    """
    per_epoch = mixture.steps_per_epoch
    counter: Counter = Counter(state)
    if team.is_chief:
        coherence = _coherence_of(state, mixture, team)
        interval = settings.checkpoint_minutes * 60
        counter = Recorder(state, directory, checkpoints, per_epoch, interval, coherence)
    epoch, done = divmod(state.step, per_epoch)
    bar = progress.bar("training steps", per_epoch * settings.epochs, state.step)
    with contextlib.closing(counter), bar:
        callbacks = [counter, Progress(state, settings.epochs, per_epoch, bar), *listeners]
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


def _coherence_of(state: State, mixture: Mixture, team: Team) -> Callable[[], np.ndarray] | None:
    """What measures Equation 7 on each of the monitored test images, [n], with the weights as they are then.

    None for one member, which has none, and on several workers, of whom the chief cannot measure alone.
    """
    members = state.ensemble.members
    if len(members) < 2 or team.has_several:
        return None

    @tf.function(reduce_retracing=True, autograph=False)
    def measure(x, y):
        _, _, gradients = alignment.input_gradients(members, x, y)
        return alignment.coherence(gradients)

    def of_images() -> np.ndarray:
        images, labels = mixture.data.test_set(_monitored(mixture.examples_per_epoch))
        sizes = blocks(images, mixture.batch_size), blocks(labels, mixture.batch_size)
        parts = [measure(tf.constant(x), tf.constant(y)).numpy() for x, y in zip(*sizes, strict=True)]
        return np.concatenate(parts)

    return of_images


def whole_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, to be split batch by batch over the replicas rather than by files.

    Without tuning: it has nothing to tune, and TensorFlow's tuning thread, where it misses that it is to end,
    holds up the end of `fit` for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
