"""The mean cross-entropy of the members: the first term of Equation 9."""

import dataclasses

import keras
import tensorflow as tf

from divtf.ensembles.objectives.objective import MemberValues, Memberwise
from divtf.ensembles.objectives.terms import Terms


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class CrossEntropy(Memberwise):
    """Mean cross-entropy of the members: the first term of Equation 9, for T_Base and T_Ens.

    In training the alignment terms are left out, since they would cost a backward pass to the input;
    in evaluation they are measured.
    """

    def combined(self, values: MemberValues, y: tf.Tensor) -> Terms:
        """The terms from what all members gave."""
        return values.terms()
