"""TRS: members whose input gradients are orthogonal and small; Yang et al. (2021)."""

import dataclasses

import keras
import tensorflow as tf

from divtf.ensembles import alignment
from divtf.ensembles.objectives.objective import Members, count, kept_state, restore, weight
from divtf.ensembles.objectives.perturbed import Perturbed, epsilon, step
from divtf.ensembles.objectives.terms import Terms


def similarity(gradients: tf.Tensor) -> tf.Tensor:
    """Mean absolute cosine over the pairs of members, [N, B, D] -> [B]; Yang et al. (2021), L_sim."""
    return tf.reduce_mean(tf.abs(alignment.cosine_similarities(gradients)), axis=-1)


def steepness(gradients: tf.Tensor) -> tf.Tensor:
    """Mean over the pairs of members of the sum of both gradients' l2 norms, [N, B, D] -> [B]; L_smooth."""
    return 2 * tf.reduce_mean(alignment.norms(gradients), axis=0)


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class TransferabilityReducedSmoothness(Perturbed):
    """Cross-entropy with similarity and steepness of the members' input gradients: TRS.

    (sum of the members' cross-entropies + similarity x L_sim + smoothness x L_smooth) / N. L_smooth is taken
    where the gradients are longest in a ball, found from a random start in so many steps; as in the authors'
    code for half of a batch, here every other image, and for the rest at the images themselves. They let
    epsilon grow over the epochs, and take the square of the gradient of a batch's mean, whose weight depends
    on the batch size: their value for `smoothness` means nothing here.

    Attributes:
        similarity: weight of L_sim, lambda_a.
        smoothness: weight of L_smooth, lambda_b.

    Source: Yang et al. (2021), section 4.
    """

    similarity: float = weight(10.0, "similarity, the weight of the cosines,")
    smoothness: float = weight(1.0, "smoothness, the weight of the gradients' norms,")
    epsilon: float = epsilon(0.03)
    steps: int = count(6, "steps")
    step: float = step(1 / 3)

    least_members = 2
    second_order = True

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """The terms; see `Objective`. In evaluation L_smooth is taken at the images themselves."""
        if training:
            steep = self._steep(members, x[::2], y[::2])
        values = self.aligned(members, x, y, training=training)
        steepnesses = steepness(values.gradients)
        if training:
            moved = tf.range(0, tf.shape(x)[0], 2)
            steepnesses = tf.tensor_scatter_nd_update(steepnesses, moved[:, None], steep)
        added = self.similarity * similarity(values.gradients) + self.smoothness * steepnesses
        return values.terms(added / len(members))

    def _steep(self, members: Members, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Steepness where it is greatest, [B]; statistics and random numbers are as before."""
        before = kept_state(members)
        values = self.aligned(members, self._steepest(members, x, y), y, training=True)
        restore(members, before)
        return steepness(values.gradients)

    def _steepest(self, members: Members, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        def steepness_at(images):
            return steepness(self.aligned(members, images, y, training=False).gradients)

        return self.climbed(x, steepness_at, random_start=True)
