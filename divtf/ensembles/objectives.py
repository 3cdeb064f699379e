"""What a training step minimises: cross-entropy, or cross-entropy with GAL (Equation 9)."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from divtf.ensembles import alignment
from divtf.ensembles.weights import Weights
from divtf.errors import is_number, require
from divtf.networks.logits import at_least_float32, cross_entropy

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

    def weighted(self, weights: Weights) -> "Terms":
        """The terms with a loss in which each example weighs as much as these say."""
        return dataclasses.replace(self, loss=weights.loss(self))


class _Objective:
    """What objectives share: label smoothing, and a configuration."""

    def __init__(self, label_smoothing: float):
        require(
            is_number(label_smoothing) and 0 <= label_smoothing < 1,
            "label_smoothing in [0, 1)",
            f"label_smoothing={label_smoothing!r}",
        )
        self.label_smoothing = float(label_smoothing)

    def _terms(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, gal_weight: float, training: bool):
        """Equation 9 from one forward pass a member, with its alignment terms."""
        logits, losses, gradients = alignment.input_gradients(
            members, x, y, training=training, label_smoothing=self.label_smoothing
        )
        cross_entropy = tf.reduce_mean(losses, axis=0)
        gal = alignment.gradient_alignment_loss(gradients)
        return Terms(
            logits=logits,
            loss=cross_entropy + gal_weight * gal if gal_weight else cross_entropy,
            cross_entropy=cross_entropy,
            gal=gal,
            coherence=alignment.coherence(gradients),
        )

    def get_config(self) -> dict:
        """Arguments of `__init__`."""
        return {"label_smoothing": self.label_smoothing}

    @classmethod
    def from_config(cls, config: dict):
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="divtf")
class CrossEntropy(_Objective):
    """Mean cross-entropy of the members: the first term of Equation 9, for T_Base and T_Ens.

    In training the alignment terms are left out, since they would cost a backward pass to the input;
    in evaluation they are measured.

    Args:
        label_smoothing: share of each label that is spread over all classes, in [0, 1).

    Raises:
        InputError: if that is out of range.
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__(label_smoothing)

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """Terms on images x [B, ...] with class indices y, integer [B], or probabilities, floating [B, C]."""
        if not training and len(members) > 1:
            return self._terms(members, x, y, gal_weight=0.0, training=False)
        logits = tf.stack([at_least_float32(member(x, training=training)) for member in members])
        losses, _ = cross_entropy(logits, y, self.label_smoothing)
        mean_loss = tf.reduce_mean(losses, axis=0)
        return Terms(logits=logits, loss=mean_loss, cross_entropy=mean_loss)


@keras.saving.register_keras_serializable(package="divtf")
class GradientAlignment(_Objective):
    """Mean cross-entropy of the members + weight x GAL: Equation 9, for T_Div and T_Ens+Div.

    Args:
        weight: lambda of Equation 9, at least 0; the paper's is 0.5.
        label_smoothing: as in `CrossEntropy`; the gradients of GAL are those of the loss so smoothed.

    Raises:
        InputError: if the weight is negative or not finite, or the smoothing out of range.
    """

    def __init__(self, weight: float = 0.5, label_smoothing: float = 0.0):
        super().__init__(label_smoothing)
        require(
            is_number(weight) and weight >= 0,
            "a GAL weight (lambda) that is finite and >= 0",
            f"weight={weight!r}",
        )
        self.weight = float(weight)

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """Terms on images x [B, ...] with class indices y, integer [B], or probabilities, floating [B, C]."""
        return self._terms(members, x, y, gal_weight=self.weight, training=training)

    def get_config(self) -> dict:
        """Arguments of `__init__`."""
        return {"weight": self.weight, **super().get_config()}
