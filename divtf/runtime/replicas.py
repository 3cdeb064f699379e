"""What replicas, the copies of an ensemble on several devices, do together in a train step."""

from collections.abc import Iterable, Mapping, Sequence

import keras
import tensorflow as tf

from divtf.runtime.private_names import layers_of

_SUM = tf.distribute.ReduceOp.SUM


def replicas() -> int:
    """How many replicas run the step that is being made; 1 outside a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def sums(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Each of the scalars summed over the replicas, by one message for all."""
    if replicas() == 1:
        return list(tensors)
    wide = tf.stack([tf.cast(tensor, tf.float64) for tensor in tensors])
    totals = tf.unstack(tf.distribute.get_replica_context().all_reduce(_SUM, wide))
    return [tf.cast(total, tensor.dtype) for total, tensor in zip(totals, tensors, strict=True)]


def with_a_blank(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """This replica's images [b, ...] and labels, or a blank one if there are none.

    TensorFlow's convolutions fail on an empty batch in the second-order gradient, and batch normalisation
    makes NaN of it.
    """
    if replicas() == 1:
        return x, y
    blank = tf.cast(tf.equal(tf.shape(y)[0], 0), tf.int32)
    filled = [tf.concat([part, tf.zeros([blank, *part.shape[1:]], part.dtype)], axis=0) for part in (x, y)]
    return filled[0], filled[1]


def update_means(
    means: Mapping[str, keras.metrics.Mean],
    values: Mapping[str, tf.Tensor],
    weights: Mapping[str, tf.Tensor | None],
) -> None:
    """Take this replica's examples and those of all others into running means.

    Args:
        means: by name.
        values: of this replica's examples, [b] by name.
        weights: of the examples, [b] by name; None, or no such name, for 1.
    """
    if replicas() == 1:
        for name, value in values.items():
            means[name].update_state(value, sample_weight=weights.get(name))
        return
    parts: list[tf.Tensor] = []
    for name, value in values.items():
        value, weight = tf.cast(value, tf.float32), weights.get(name)
        weight = tf.ones_like(value) if weight is None else tf.cast(weight, tf.float32)
        parts += [tf.reduce_sum(value * weight), tf.reduce_sum(weight)]
    totals = sums(parts)
    for name, total, count in zip(values, totals[::2], totals[1::2], strict=True):
        means[name].update_state(tf.math.divide_no_nan(total, count), sample_weight=count)


def share_statistics(models: Iterable[keras.Model], count: tf.Tensor) -> None:
    """Make the moving statistics of batch normalisation the replicas' mean, weighted by their images.

    Each replica normalises by the statistics of its own images, as is usual, and tracks these. Left alone the
    replicas' moving statistics would drift apart, and a checkpoint would hold the first one's.

    Args:
        models: whose BatchNormalization layers have just tracked a batch.
        count: this replica's images.
    """
    if replicas() == 1:
        return
    moving = [
        variable
        for model in models
        for layer in layers_of(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
    if not moving:
        return
    flat = tf.concat([tf.reshape(tf.cast(variable, tf.float32), [-1]) for variable in moving], axis=0)
    count = tf.cast(count, tf.float32)
    weighted = tf.concat([flat * count, count[None]], axis=0)
    total = tf.distribute.get_replica_context().all_reduce(_SUM, weighted)
    sizes = [variable.shape.num_elements() for variable in moving]
    for variable, mean in zip(moving, tf.split(total[:-1] / total[-1], sizes), strict=True):
        variable.assign(tf.cast(tf.reshape(mean, variable.shape), variable.dtype))


class ReplicatedMean(keras.metrics.Mean):
    """A mean whose updates are the same on every replica, as sums over replicas are.

    Any one of them can read, save and restore it exactly. Keras's own adds the replicas' parts up when
    it is read, which takes all workers, and spreads a restored sum over them, which changes its rounding.
    """

    def add_variable(self, *args, **kwargs):
        """As Keras's, read from the first replica."""
        return super().add_variable(*args, **kwargs | {"aggregation": "only_first_replica"})
