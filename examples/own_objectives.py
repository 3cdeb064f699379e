"""Objectives of one's own, for any mode and for comparisons with divtf's.

    python -m divtf.main --objective=examples.own_objectives:smooth_alignment --mode=ens_div --dataset=mnist
    python -m divtf.compare --flagfile=flags/candidates.flags

A class or function that `--objective` names is called without arguments, and gives the objective. Checkpoints
keep it by `get_config` and `from_config`, which these have of divtf's, and Keras's registry.
"""

import dataclasses

import keras
import tensorflow as tf

from divtf.ensembles.objectives.adversarial import AdversarialTraining
from divtf.ensembles.objectives.perturbed import image_numbers
from divtf.ensembles.objectives.trs import TransferabilityReducedSmoothness
from divtf.networks.logits import cross_entropy


@keras.saving.register_keras_serializable("examples")
@dataclasses.dataclass(frozen=True)
class SmoothAlignment(TransferabilityReducedSmoothness):
    """GAL with TRS's smoothness, in place of TRS's cosines."""

    similarity: float = 0.0
    weight: float = 0.5

    def __call__(self, members, x, y, *, training):
        """The terms of TRS without its cosines, and GAL."""
        terms = super().__call__(members, x, y, training=training)
        return dataclasses.replace(terms, loss=terms.loss + self.weight * terms.gal)


@keras.saving.register_keras_serializable("examples")
@dataclasses.dataclass(frozen=True)
class InTurn(AdversarialTraining):
    """Adversarial training on images that attack one member each, the members in turn."""

    def attacked(self, members, x, classes):
        """Images [B, ...], each against the member whose turn it is, which its pixels draw.

        By its place in the batch it would be another member's on several devices.
        """
        turn = image_numbers(x, len(members))

        def loss(images):
            logits = self.clean(members, images, classes, training=False).logits
            own = tf.gather(tf.transpose(logits, [1, 0, 2]), turn, batch_dims=1)
            losses, _ = cross_entropy(own, classes)
            return losses

        return self.climbed(x, loss, random_start=True)


def smooth_alignment():
    """GAL with TRS's smoothness, for MNIST."""
    return SmoothAlignment(epsilon=0.1)


def in_turn():
    """GAL among members that are trained adversarially in turn, for MNIST."""
    return InTurn(epsilon=0.1, gal=0.5)
