"""ADP: members whose predictions differ, but for the true class; Pang et al. (2019)."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from divtf.ensembles.labels import likeliest_class
from divtf.ensembles.objectives.objective import MemberValues, Memberwise, weight
from divtf.ensembles.objectives.terms import Terms
from divtf.errors import require
from divtf.networks.logits import log_mean_probability

# Added to the diagonal, as the authors do: members that agree have a singular matrix.
_OFFSET = 1e-6


def ensemble_entropy(logits: tf.Tensor) -> tf.Tensor:
    """Shannon entropy of the mean probability, in nats, [N, B, C] -> [B]; Pang et al. (2019), Equation 5."""
    log_probability = log_mean_probability(logits)
    return -tf.reduce_sum(tf.exp(log_probability) * log_probability, axis=-1)


def log_ensemble_diversity(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Log-determinant of the products of the members' non-maximal predictions, [N, B, C], [B] -> [B].

    A non-maximal prediction is a member's probabilities of all classes but the true one, over their l2 norm.
    It is taken of the logits, since it does not depend on the true class's: nothing underflows where a member
    is sure. 0 where the predictions are orthogonal; the less, the more they agree.

    Source: Pang et al. (2019), Equation 4.
    """
    # By N for each example; the class numbers but the true one are in order.
    others = tf.range(logits.shape[-1] - 1, dtype=y.dtype)
    others = others + tf.cast(others >= y[:, None], y.dtype)
    remaining = tf.gather(tf.transpose(logits, [1, 0, 2]), others, axis=2, batch_dims=1)
    scaled = tf.exp(remaining - tf.reduce_max(remaining, axis=-1, keepdims=True))
    units = scaled * tf.math.rsqrt(tf.reduce_sum(scaled * scaled, axis=-1, keepdims=True))
    # Cholesky's roots of a matrix that is singular in float32 may be none.
    units = tf.cast(units, tf.float64)
    products = tf.matmul(units, units, transpose_b=True)
    diversity = tf.linalg.logdet(products + _OFFSET * tf.eye(logits.shape[0], dtype=tf.float64))
    return tf.cast(diversity, logits.dtype)


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class AdaptiveDiversity(Memberwise):
    """Cross-entropy less entropy and diversity of the predictions: ADP.

    (sum of the members' cross-entropies - alpha x entropy - beta x log diversity) / N. The authors do not
    divide; here the first term is a mean, as in all objectives.

    Attributes:
        alpha: weight of the mean probability's entropy.
        beta: weight of the log-determinant.

    Source: Pang et al. (2019), Equation 8; their weights for CIFAR-10.
    """

    alpha: float = weight(2.0, "alpha, the weight of the entropy,")
    beta: float = weight(0.5, "beta, the weight of the diversity,")

    least_members = 2

    def require_members(self, members: Sequence[keras.Model], num_classes: int) -> None:
        """Refuse as many members as classes: their determinant would be 0 whatever they give."""
        require(
            len(members) < num_classes,
            f"fewer members than classes ({num_classes}) for ADP",
            f"{len(members)} members",
        )

    def combined(self, values: MemberValues, y: tf.Tensor) -> Terms:
        """The terms from what all members gave."""
        diversity = self.beta * log_ensemble_diversity(values.logits, likeliest_class(y))
        promoted = self.alpha * ensemble_entropy(values.logits) + diversity
        return values.terms(-promoted / values.logits.shape[0])
