"""`keras.Model.fit` for the replicas of several processes.

Keras's own drives the replicas of one process. It cannot drive those of several: it builds the model on a
batch that it first adds up over the replicas, and reduces scalar measures along an axis that they lack.
`fit` here does, around the same train step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.errors import require
from divtf.runtime.workers import team_of

Batches = Callable[[Callable[[tf.data.Dataset], tf.data.Dataset]], tf.data.Dataset]
"""Makes a data set of batches, given the function that leaves of each what one worker is to have."""


def shares(batches: tf.data.Dataset, first: int, count: int, replicas: int) -> tf.data.Dataset:
    """Of every batch the shares of some replicas, one after another.

    All shares together are the batch, and none is larger than another by more than one example; in a batch
    with fewer examples than replicas some are empty.

    Args:
        batches: tuples of tensors [B], as the numbers of the images, which nobody has read yet.
        first: the first replica whose shares are wanted.
        count: of so many replicas.
        replicas: in all.
    """

    def cut(*batch):
        size = tf.shape(batch[0], tf.int64)[0]

        def share(replica):
            part = slice(size * replica // replicas, size * (replica + 1) // replicas)
            return tuple(each[part] for each in batch)

        return tf.data.Dataset.range(first, first + count).map(share)

    return batches.flat_map(cut)


def fit(
    ensemble: Any,
    batches: Batches,
    *,
    steps_per_epoch: int,
    epochs: int = 1,
    initial_epoch: int = 0,
    validation_data: Batches | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
    shuffle: bool = False,
) -> keras.callbacks.History:
    """Train as `keras.Model.fit` on all workers, each of which calls this with the same arguments.

    Args:
        ensemble: compiled, and made in the strategy's scope.
        batches: makes endless batches, the same on every worker but for its share of each.
        steps_per_epoch: batches an epoch.
        epochs: the epoch before which to stop, counted from 0.
        initial_epoch: the first one.
        validation_data: makes the batches to measure after each epoch, shared out in the same way.
        callbacks: of this worker.
        verbose: 0; progress is the callbacks' affair.
        shuffle: False; so is the order of the batches' maker.

    Raises:
        InputError: if a worker is gone.
    """
    require(not verbose and not shuffle, "verbose=0 and shuffle=False", verbose=verbose, shuffle=shuffle)
    strategy = ensemble.distribute_strategy
    team = team_of(strategy)
    listeners = keras.callbacks.CallbackList(
        list(callbacks), add_history=True, model=ensemble, epochs=epochs, steps=steps_per_epoch
    )
    # Keras's places for them, which `compile` empties: a second call needs no second trace.
    ensemble.train_function = ensemble.train_function or _on_replicas(strategy, ensemble.train_step)
    ensemble.test_function = ensemble.test_function or _on_replicas(strategy, ensemble.test_step)
    training = iter(_shares_of_worker(strategy, batches))
    testing, tests = None, 0
    if validation_data is not None:
        testing = iter(_shares_of_worker(strategy, validation_data))
        tests = int(validation_data(lambda plan: plan).cardinality())
    with team.clear_errors():
        ensemble.stop_training = False
        listeners.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            ensemble.reset_metrics()
            listeners.on_epoch_begin(epoch)
            logs = _train(ensemble, training, steps_per_epoch, listeners)
            if testing is not None:
                logs |= _test(ensemble, testing, tests, listeners)
            listeners.on_epoch_end(epoch, logs)
            if team.from_chief(ensemble.stop_training):  # A callback may ask for it, on the chief alone.
                break
        listeners.on_train_end()
    return ensemble.history


def _train(ensemble: Any, batches: Any, steps: int, listeners: keras.callbacks.CallbackList) -> dict:
    """An epoch's training; gives its measures."""
    for step in range(steps):
        listeners.on_train_batch_begin(step)
        listeners.on_train_batch_end(step, ensemble.train_function(batches))
    return _results(ensemble)


def _test(ensemble: Any, batches: Any, steps: int, listeners: keras.callbacks.CallbackList) -> dict:
    """The measures of test images, by names with the val_ of Keras."""
    listeners.on_test_begin()
    ensemble.reset_metrics()
    for _ in range(steps):
        ensemble.test_function(batches)
    results = _results(ensemble)
    listeners.on_test_end(results)
    return {f"val_{name}": value for name, value in results.items()}


def _shares_of_worker(strategy: tf.distribute.Strategy, batches: Batches) -> Any:
    """This worker's shares of the batches, again and again, as the strategy hands them to its replicas."""

    def make(worker: tf.distribute.InputContext) -> tf.data.Dataset:
        count = worker.num_replicas_in_sync // worker.num_input_pipelines
        first = worker.input_pipeline_id * count
        own = batches(lambda plan: shares(plan, first, count, worker.num_replicas_in_sync))
        endless = tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY)
        return own.repeat().apply(endless).prefetch(2)

    return strategy.distribute_datasets_from_function(make)


def _on_replicas(
    strategy: tf.distribute.Strategy, step: Callable[[Any], dict[str, Any]]
) -> Callable[[Any], dict[str, Any]]:
    """A step on the next batch of an iterator by all replicas, as one graph."""

    @tf.function(autograph=False)
    def run(iterator):
        logs = strategy.run(step, args=(next(iterator),))
        return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

    return run


def _results(ensemble: Any) -> dict[str, float]:
    return {name: float(value) for name, value in ensemble.get_metrics_result().items()}
