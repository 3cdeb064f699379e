"""Batch normalisation whose first and second derivatives are written out: Ioffe & Szegedy (2015).

GAL's gradient differentiates the network twice. Left to automatic differentiation, batch normalisation is
most of a residual network's elementwise work; in closed form it takes about half of that, and the
single-precision kernels of TensorFlow do its linear parts in one pass.

Notation, a channel, over the n values that it has in the batch: mean m, r = (variance + epsilon)^-1/2,
h = (x - m) r, y = gamma h + beta, a = gamma r. d is the cotangent of y, and (v, p, q) are the cotangents of
the first derivative's results: of the gradient to x, to gamma and to beta.
"""

from typing import NamedTuple

import tensorflow as tf


class _Batch(NamedTuple):
    """What the forward pass leaves for the derivatives; statistics are [C]."""

    x: tf.Tensor
    gamma: tf.Tensor
    mean: tf.Tensor
    r: tf.Tensor
    count: tf.Tensor
    epsilon: float
    reserved: tuple[tf.Tensor, ...]


def batch_normalize(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise by the batch's own statistics, differentiable twice.

    Args:
        x: [n, H, W, C], float32 or float64.
        gamma: scale, [C].
        beta: shift, [C].
        epsilon: added to the variance, > 0.

    Returns:
        The result [n, H, W, C], and the batch's mean and (biased) variance [C], both constants to
        differentiation.
    """

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        count = tf.cast(tf.size(x) // tf.shape(x)[-1], x.dtype)
        y, mean, variance, reserved = _forward(x, gamma, beta, count, epsilon)
        batch = _Batch(x, gamma, mean, tf.math.rsqrt(variance + epsilon), count, epsilon, reserved)

        def gradient(d, *_):
            return _first_derivative(d, batch)

        return (y, mean, variance), gradient

    y, mean, variance = normalize(x, gamma, beta)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)


def synchronized_batch_normalize(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As `batch_normalize`, by the statistics of the batches of all replicas.

    The gradient of a sum over replicas is the sum of the replicas' gradients: what comes of it is the
    gradient of the loss summed over all of them, as for one device with the whole batch.
    """

    def total(value):
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    count = total(tf.cast(tf.size(x) // tf.shape(x)[-1], x.dtype))
    mean = total(_channel_sum(x)) / count
    centred = x - mean
    variance = total(_channel_sum(centred * centred)) / count
    y = centred * (gamma * tf.math.rsqrt(variance + epsilon)) + beta
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _first_derivative(d: tf.Tensor, batch: _Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients to x, gamma and beta, differentiable with respect to d, x and gamma."""

    # All tensors are arguments: TensorFlow looks for variables from the results back to the arguments, and
    # from a captured tensor through the whole network before it.
    @tf.custom_gradient
    def derivative(d, x, gamma, mean, r, count, *reserved):
        arguments = _Batch(x, gamma, mean, r, count, batch.epsilon, reserved)
        to_x, sum_dh, sum_d = _backward(d, arguments)

        def gradient(v, p, q):
            constants = [None] * (3 + len(reserved))  # What they depend on x by is in its gradient.
            return *_second_derivative(v, p, q, d, sum_d, sum_dh, arguments), *constants

        return (to_x, sum_dh, sum_d), gradient

    x, gamma, mean, r, count, _, reserved = batch
    return derivative(d, x, gamma, mean, r, count, *reserved)


def _second_derivative(v, p, q, d, sum_d, sum_dh, batch: _Batch):
    """Gradients of <v, to_x> + <p, to_gamma> + <q, to_beta> to d, x and gamma.

    With Q = sum(v d) - (sum(d) sum(v) + sum(d h) sum(v h)) / n that product is
    F = a Q + p sum(d h) + q sum(d). F depends on x by h, whose cotangent is
    E = -(a/n) (sum(v h) d + sum(d h) v) + p d, and by r within a.
    """
    x, gamma, mean, r, count, _, _ = batch
    a, r_n = gamma * r, r / count
    # The first derivative is linear in d and symmetric: its transpose maps v as it maps d.
    to_d, sum_vh, sum_v = _backward(v, batch)
    dh_vh, a_n = sum_dh * sum_vh, gamma * r_n
    product = _channel_sum(v * d) - (sum_d * sum_v + dh_vh) / count
    # Each of them with its sign turned: sum(E), and sum(E h) + a Q, by which F changes with r.
    sum_e = a_n * (sum_vh * sum_d + sum_dh * sum_v)
    by_r = (a_n + a_n) * dh_vh - a * product
    of_d, of_v = a_n * sum_vh, a_n * sum_dh  # E's factors of d and v.
    if not (_is_zero(p) and _is_zero(q)):  # Zero where only gradients to x were asked for, as for GAL.
        to_d += x * (p * r) + (q - p * r * mean)
        sum_e, by_r, of_d = sum_e - p * sum_d, by_r - p * sum_dh, of_d - p
    along_x, minus_r = r * r_n * by_r, -r
    parts = [d * (minus_r * of_d), v * (minus_r * of_v), x * along_x]
    to_x = tf.add_n(parts) + (r_n * sum_e - along_x * mean)
    return to_d, to_x, r * product


def _forward(x, gamma, beta, count, epsilon):
    """y, mean, variance, and what TensorFlow's kernel reserves for its gradient."""
    if x.dtype != tf.float32:  # There is no kernel.
        mean = tf.reduce_mean(x, _AXES)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), _AXES)
        scale = gamma * tf.math.rsqrt(variance + epsilon)
        return x * scale + (beta - mean * scale), mean, variance, ()
    y, mean, variance, *reserved = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    # The kernel gives the unbiased variance, but normalises by the biased one.
    return y, mean, variance * ((count - 1) / count), tuple(reserved)


def _backward(d: tf.Tensor, batch: _Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """a (d - sum(d) / n - h sum(d h) / n), sum(d h) and sum(d)."""
    x, gamma, mean, r, count, epsilon, reserved = batch
    if reserved:
        first, second, third = reserved
        return tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=d,
            x=x,
            scale=gamma,
            reserve_space_1=first,
            reserve_space_2=second,
            reserve_space_3=third,
            epsilon=epsilon,
            is_training=True,
        )[:3]
    sum_d = _channel_sum(d)
    sum_dh = r * (_channel_sum(d * x) - mean * sum_d)
    a = gamma * r
    along_x = -a * r * sum_dh / count
    return d * a + x * along_x - (a * sum_d / count + along_x * mean), sum_dh, sum_d


_AXES = (0, 1, 2)


def _channel_sum(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, _AXES)


def _is_zero(cotangent: tf.Tensor) -> bool:
    """Whether it is known to be zero when the graph is made."""
    value = tf.get_static_value(cotangent)
    return value is not None and not value.any()
