"""What a training step minimises: cross-entropy, or cross-entropy with GAL (Equation 9)."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from divtf.ensembles import alignment
from divtf.errors import is_number, require
from divtf.networks.logits import at_least_float32

Members = Sequence[Callable[..., tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Terms:
    """An objective's value and its parts on one batch, one value an example.

    Attributes:
        logits: [N, B, C].
        loss: what is minimised, [B].
        cross_entropy: mean over the members, [B]; the first term of Equation 9.
        gal: Equation 8, [B]; None where it was not computed.
        coherence: Equation 7, [B]; None where it was not computed.
    """

    logits: tf.Tensor
    loss: tf.Tensor
    cross_entropy: tf.Tensor
    gal: tf.Tensor | None = None
    coherence: tf.Tensor | None = None

    def means(self) -> dict[str, tf.Tensor]:
        """Every computed per-example part by name."""
        parts = {name: getattr(self, name) for name in ("loss", "cross_entropy", "gal", "coherence")}
        return {name: part for name, part in parts.items() if part is not None}

    def first(self, count: tf.Tensor) -> "Terms":
        """The terms of the first `count` examples."""
        cut = {name: part[:count] for name, part in self.means().items()}
        return dataclasses.replace(self, logits=self.logits[:, :count], **cut)


def _terms(members: Members, x: tf.Tensor, y: tf.Tensor, *, gal_weight: float, training: bool) -> Terms:
    """Equation 9 from one forward pass a member, with its alignment terms."""
    logits, losses, gradients = alignment.input_gradients(members, x, y, training=training)
    cross_entropy = tf.reduce_mean(losses, axis=0)
    gal = alignment.gradient_alignment_loss(gradients)
    return Terms(
        logits=logits,
        loss=cross_entropy + gal_weight * gal if gal_weight else cross_entropy,
        cross_entropy=cross_entropy,
        gal=gal,
        coherence=alignment.coherence(gradients),
    )


@keras.saving.register_keras_serializable(package="divtf")
class CrossEntropy:
    """Mean cross-entropy of the members: the first term of Equation 9, for T_Base and T_Ens.

    In training the alignment terms are left out, since they would cost a backward pass to the input;
    in evaluation they are measured.
    """

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """Terms on images x [B, ...] with true classes y [B]."""
        if not training and len(members) > 1:
            return _terms(members, x, y, gal_weight=0.0, training=False)
        logits = tf.stack([at_least_float32(member(x, training=training)) for member in members])
        labels = tf.broadcast_to(y, tf.shape(logits)[:-1])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        cross_entropy = tf.reduce_mean(losses, axis=0)
        return Terms(logits=logits, loss=cross_entropy, cross_entropy=cross_entropy)

    def get_config(self) -> dict:
        """Arguments of `__init__`: none."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "CrossEntropy":
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="divtf")
class GradientAlignment:
    """Mean cross-entropy of the members + weight x GAL: Equation 9, for T_Div and T_Ens+Div.

    Args:
        weight: lambda of Equation 9, at least 0; the paper's is 0.5.

    Raises:
        InputError: if the weight is negative or not finite.
    """

    def __init__(self, weight: float = 0.5):
        require(
            is_number(weight) and weight >= 0,
            "a GAL weight (lambda) that is finite and >= 0",
            f"weight={weight!r}",
        )
        self.weight = float(weight)

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """Terms on images x [B, ...] with true classes y [B]."""
        return _terms(members, x, y, gal_weight=self.weight, training=training)

    def get_config(self) -> dict:
        """Arguments of `__init__`."""
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config: dict) -> "GradientAlignment":
        """The inverse of `get_config`."""
        return cls(**config)
