"""How an attack combines the members: what it raises, from their logits.

A loss is a frozen dataclass that is called with the members' logits [N, B, C] and the true classes [B] and
gives [B]. Its gradient counts, not its value: that of a cross-entropy keeps its direction where a member is
sure, and float32 would lose it, and its size elsewhere, by which gradients at several copies are weighed.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from divtf.errors import is_number, require
from divtf.networks.logits import DIRECTION_FLOOR, aligned_loss, log_mean_probability, true_class_margin


@dataclasses.dataclass(frozen=True)
class MeanLoss:
    """The mean of the members' cross-entropies."""

    def __call__(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """[N, B, C], [B] -> [B]."""
        margins = true_class_margin(logits, _of_all(y, logits))
        size = tf.reduce_mean(tf.sigmoid(margins), axis=0) + DIRECTION_FLOOR
        return tf.stop_gradient(size) * tf.reduce_sum(aligned_loss(margins, axis=0), axis=0)


@dataclasses.dataclass(frozen=True)
class MeanLogit:
    """The cross-entropy of the members' mean logits; Dong et al. (2018), "Boosting Adversarial Attacks"."""

    def __call__(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """[N, B, C], [B] -> [B]."""
        return _cross_entropy(true_class_margin(tf.reduce_mean(logits, axis=0), y))


@dataclasses.dataclass(frozen=True)
class MeanProbability:
    """The cross-entropy of the members' mean probability, by which an Ensemble decides."""

    def __call__(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """[N, B, C], [B] -> [B]."""
        return _cross_entropy(true_class_margin(log_mean_probability(logits), y))


@dataclasses.dataclass(frozen=True)
class Margin:
    """The mean of the members' hinges of Carlini & Wagner.

    Attributes:
        confidence: a member's hinge saturates once another class leads by so much.
    """

    confidence: float = 50.0

    def __post_init__(self):
        holds = is_number(self.confidence) and self.confidence >= 0
        require(holds, "finite confidence >= 0", f"confidence={self.confidence!r}")

    def __call__(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """[N, B, C], [B] -> [B]."""
        return self._hinge(lead(logits, _of_all(y, logits)))

    def towards(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The same of classes that are led to: a member's hinge saturates once they lead by so much."""
        return self._hinge(-lead(logits, _of_all(y, logits)))

    def _hinge(self, ahead: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.minimum(ahead, self.confidence), axis=0)


@dataclasses.dataclass(frozen=True)
class Towards:
    """The opposite of a loss: what raises it leads towards the classes that it is given.

    Attributes:
        loss: of those above, or of your own; its method `towards`, if it has one, says what its opposite is
            where that is not the negative.
    """

    loss: Any = MeanLoss()

    def __call__(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """[N, B, C], [B] -> [B]."""
        opposite = getattr(self.loss, "towards", None)
        return opposite(logits, y) if opposite else -self.loss(logits, y)


def lead(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """How far the best other class is ahead of the true one, [..., C], [...] -> [...]."""
    is_true = tf.one_hot(y, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    # The true class must not take part in the maximum, nor a masked zero in its place.
    others = tf.reduce_max(tf.where(is_true, logits.dtype.min, logits), axis=-1)
    return others - tf.reduce_sum(tf.where(is_true, logits, tf.zeros_like(logits)), axis=-1)


def _cross_entropy(margins: tf.Tensor) -> tf.Tensor:
    """Of margins, with a gradient also where that underflows."""
    return tf.nn.softplus(margins) + DIRECTION_FLOOR * margins


def _of_all(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The true classes [B] for each of the members, [N, B]."""
    return tf.broadcast_to(y, tf.shape(logits)[:-1])


LOSSES = {
    "cross_entropy": MeanLoss(),
    "mean_logit": MeanLogit(),
    "mean_probability": MeanProbability(),
    "margin": Margin(),
}
"""The name of a loss, as `make_attack(..., loss=)` takes it, and the loss."""
