"""The mean cross-entropy of the members: the first term of Equation 9."""

import dataclasses

import keras
import tensorflow as tf

from divtf.ensembles.objectives.objective import Members, MemberValues, Memberwise
from divtf.ensembles.objectives.terms import Terms


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class CrossEntropy(Memberwise):
    """Mean cross-entropy of the members: the first term of Equation 9, for T_Base and T_Ens.

    In training the alignment terms are left out, since they would cost a backward pass to the input;
    in evaluation they are measured.
    """

    def taken(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> MemberValues:
        """Logits and losses; in evaluation gradients, too."""
        return self.observed(members, x, y, training=training)

    def combined(self, values: MemberValues, y: tf.Tensor) -> Terms:
        """The terms from what all members gave."""
        return values.terms()
