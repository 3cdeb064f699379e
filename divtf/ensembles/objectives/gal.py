"""GAL, the paper's objective: members whose input gradients point apart."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from divtf.ensembles import alignment
from divtf.ensembles.objectives.objective import Members, MemberValues, Memberwise, setting, weight
from divtf.ensembles.objectives.terms import Terms


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class GradientAlignment(Memberwise):
    """Mean cross-entropy of the members + weight x GAL: Equation 9, for T_Div and T_Ens+Div.

    Attributes:
        weight: lambda of Equation 9, at least 0; the paper's is 0.5.
        sharpness: t of log-sum-exp(t x cosines) / t. At 1, the paper's, all pairs have a part in it; the
            larger, the more it is the largest cosine alone, which is the coherence (Equation 7).
    """

    weight: float = weight(0.5, "a GAL weight (lambda)")
    sharpness: float = setting(1.0, "a finite sharpness > 0", lambda value: value > 0, kw_only=True)

    least_members = 2
    second_order = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`; the paper's sharpness is left out, as in files of earlier versions."""
        config = super().get_config()
        if self.sharpness == 1:
            del config["sharpness"]
        return config

    def taken(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> MemberValues:
        """Logits, losses and gradients."""
        return self.aligned(members, x, y, training=training)

    def combined(self, values: MemberValues, y: tf.Tensor) -> Terms:
        """The terms from what all members gave; `gal` is Equation 8 whatever the sharpness."""
        terms = values.terms()
        if not self.weight:
            return terms
        gal = alignment.gradient_alignment_loss(values.gradients, self.sharpness)
        return dataclasses.replace(terms, loss=terms.cross_entropy + self.weight * gal)
