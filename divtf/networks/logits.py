"""Logits, where they come from and what is read off them: margins, and whether they are logits at all."""

from typing import Any

import numpy as np
import tensorflow as tf


def member_logits(target: Any, x: tf.Tensor) -> tf.Tensor:
    """Logits of every member of a target, [N, B, C], for images [B, ...].

    Args:
        target: has `member_logits(x)`, as an Ensemble; or is a callable that gives logits [B, C], and then
            counts as its own and only member.
        x: images, [B, ...].
    """
    if hasattr(target, "member_logits"):
        return target.member_logits(x)
    return tf.convert_to_tensor(target(x))[None]


def at_least_float32(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor, cast to float32 where it is narrower: losses and cosines need the precision."""
    return tf.cast(tensor, tf.float32) if tensor.dtype.size < 4 else tensor


def true_class_margin(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """log-sum-exp of the other classes' logits minus the true class's logit, [..., C], [...] -> [...].

    The cross-entropy is softplus of this margin. Written so, its input gradient does not cancel:
    softmax(z) - onehot(y) rounds to zero at the true class once p_y > 1 - 6e-8 in float32.
    """
    one_hot = tf.one_hot(y, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    true_logit = tf.reduce_sum(tf.where(one_hot, logits, tf.zeros_like(logits)), axis=-1)
    lowest = tf.fill(tf.shape(logits), tf.constant(float("-inf"), logits.dtype))
    return tf.reduce_logsumexp(tf.where(one_hot, lowest, logits), axis=-1) - true_logit


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs [B, C] are probabilities, which losses and attacks would take for logits."""
    outputs = outputs.astype("float64")
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))
