"""Adversarial training of an ensemble; Madry et al. (2018)."""

import dataclasses

import keras
import tensorflow as tf

from divtf.attacks import losses
from divtf.ensembles.labels import likeliest_class
from divtf.ensembles.objectives.gal import GradientAlignment
from divtf.ensembles.objectives.objective import Members, weight
from divtf.ensembles.objectives.perturbed import Perturbed
from divtf.ensembles.objectives.terms import Terms


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class AdversarialTraining(Perturbed):
    """Mean cross-entropy of the members on images that attack the ensemble: PGD on its mean probability.

    In evaluation clean images are measured.

    Attributes:
        gal: weight of GAL on these images, lambda of Equation 9; 0 leaves it out.

    Source: Madry et al. (2018), Equation 2.1; budget, steps and their size by default as usual for CIFAR-10.
    """

    gal: float = weight(0.0, "gal, the weight of GAL,")

    @property
    def least_members(self) -> int:
        """The fewest members: GAL compares two."""
        return 2 if self.gal else 1

    @property
    def second_order(self) -> bool:
        """Whether GAL has a part in it."""
        return self.gal > 0

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """The terms; see `Objective`. In training they are those of the adversarial images."""
        images = self.attacked(members, x, likeliest_class(y)) if training else x
        if self.gal:
            aligned = GradientAlignment(weight=self.gal, label_smoothing=self.label_smoothing)
            return aligned(members, images, y, training=training)
        return self.observed(members, images, y, training=training).terms()

    def attacked(self, members: Members, x: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """The images that are trained on, [B, ...], of images x and their classes [B]."""

        def loss(images):
            logits = self.clean(members, images, classes, training=False).logits
            return losses.MeanProbability()(logits, classes)

        return self.climbed(x, loss, random_start=True)
