"""Targets whose gradients are none, or not finite, as attacks can be tried on them."""

from typing import Any

import tensorflow as tf

from divtf.networks.logits import log_mean_probability, member_logits


class Guarded:
    """A target as it is, whose input gradients are zero where they are none or not finite.

    So attacks, which refuse such a target, can be tried on it.
    """

    def __init__(self, target: Any):
        self._target = target

    def member_logits(self, x: tf.Tensor) -> tf.Tensor:
        """Logits of every member, [N, B, C]."""
        logits = member_logits(self._target, _with_finite_gradient(x))
        # Adds nothing, but ties the logits to the images if nothing else does.
        tie = tf.reduce_sum(0 * x, axis=range(1, x.shape.rank))
        return logits + tf.cast(tie, logits.dtype)[None, :, None]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Log of the mean member probability, [B, C]."""
        return log_mean_probability(self.member_logits(x))


@tf.custom_gradient
def _with_finite_gradient(x):
    def gradient(upstream):
        return tf.where(tf.math.is_finite(upstream), upstream, tf.zeros_like(upstream))

    return tf.identity(x), gradient
