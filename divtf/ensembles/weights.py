"""Sample weights as Keras takes them: of an example's whole loss, or by name of its cross-entropy alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from divtf.errors import require


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of a batch's examples.

    Attributes:
        whole: of the whole loss, [B]; None for 1.
        cross_entropy: of its first term alone, [B]; None for 1. At 0 an example teaches the members to
            diverge, and no class (section 6).
    """

    whole: tf.Tensor | None = None
    cross_entropy: tf.Tensor | None = None

    @property
    def for_metrics(self) -> tf.Tensor | None:
        """What Keras's metrics are to weigh examples by."""
        return self.cross_entropy if self.whole is None else self.whole

    def loss(self, terms: Any) -> tf.Tensor:
        """The loss [B] of an objective's terms, so weighted."""
        loss = terms.loss
        if self.cross_entropy is not None:
            loss += (tf.cast(self.cross_entropy, loss.dtype) - 1) * terms.cross_entropy
        return loss if self.whole is None else loss * tf.cast(self.whole, loss.dtype)


def checked_weights(given: Any) -> Weights:
    """Weights as `fit` was given them: None, [B] or [B, 1], or such of the cross-entropy by its name.

    Raises:
        InputError: for another shape or name.
    """
    if given is None:
        return Weights()
    if not isinstance(given, Mapping):
        return Weights(whole=_one_each(given))
    require(set(given) == {"cross_entropy"}, "sample weights, or {'cross_entropy': them}", f"{sorted(given)}")
    return Weights(cross_entropy=_one_each(given["cross_entropy"]))


def _one_each(given: Any) -> tf.Tensor:
    weights = tf.convert_to_tensor(given)  # Eager batches may be NumPy's.
    one_each = weights.shape.rank == 1 or (weights.shape.rank == 2 and weights.shape[-1] == 1)
    require(one_each, "sample weights [batch]", f"sample weights of shape {weights.shape}")
    return tf.reshape(weights, [-1])
