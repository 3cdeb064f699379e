"""DVERGE: each member learns what fools the others; Yang et al. (2020)."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from divtf.attacks.updates import Momentum
from divtf.ensembles.objectives.features import as_rows, require_looked_into, weighted_layers, with_outputs
from divtf.ensembles.objectives.objective import Members, MemberValues, count
from divtf.ensembles.objectives.perturbed import Perturbed, epsilon, image_numbers, step
from divtf.ensembles.objectives.terms import Terms
from divtf.errors import require
from divtf.networks.logits import at_least_float32, cross_entropy
from divtf.runtime.private_names import layers_of


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class VulnerabilityDiversity(Perturbed):
    """Cross-entropy of each member on the images that were distilled from every other one: DVERGE.

    An image distilled from a member looks as an image of the batch, within epsilon, and has the features of
    another image, the one beside it in the batch, at a layer that is drawn from the image's own pixels: anew
    where training changes them, as noise and augmentation do, and else the same in each epoch. The authors
    draw one for an epoch, and pair the images of two loaders. The loss is the mean over members and the
    others' images, theirs the sum. They begin with members that were trained before. Features are what a
    Keras layer gives: before batch normalisation and shortcuts, and after an activation only where it is the
    layer's own argument; the authors take those after both, before ReLU.

    In training, terms are those of the distilled images, and a member's logits those on the first other's; in
    evaluation clean images are measured.

    Source: Yang et al. (2020), Equations 1 and 3, algorithm 1; their values for CIFAR-10.
    """

    epsilon: float = epsilon(0.07)
    steps: int = count(10, "steps")
    step: float = step(0.1)

    least_members = 2

    def require_members(self, members: Sequence[keras.Model], num_classes: int) -> None:
        """Refuse members into whose layers one cannot look, or whose penalties are of one pass alone."""
        for member in members:
            require_looked_into(member)
            by_pass = [each.name for each in layers_of(member) if getattr(each, "activity_regularizer", None)]
            expected = "members without activity_regularizer, of which dverge would count the last pass alone"
            require(not by_pass, expected, f"member {member.name!r} with one on {', '.join(by_pass[:3])}")

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """The terms; see `Objective`."""
        if not training:
            return self.observed(members, x, y, training=False).terms()
        distilled = [self._distilled(member, x) for member in members]
        logits = tf.stack([_on_others(members, distilled, place) for place in range(len(members))])
        losses, _ = cross_entropy(logits, y, self.label_smoothing)
        return MemberValues(logits[:, 0], tf.reduce_mean(losses, axis=1)).terms()

    def _distilled(self, member: keras.Model, x: tf.Tensor) -> tf.Tensor:
        """Images that look as x and have, in a member, the features of others of the batch, [B, ...]."""
        layers = len(weighted_layers(member))
        features = with_outputs(member)
        chosen = tf.one_hot(image_numbers(x, layers), layers, dtype=x.dtype)
        others = tf.gather(x, neighbours(tf.shape(x)[0]))
        wanted = [as_rows(output) for output in features(others, training=False)[:-1]]

        def nearness(images):
            found = [as_rows(output) for output in features(images, training=False)[:-1]]
            return -chosen * tf.cast(feature_distances(found, wanted), x.dtype)

        return self.climbed(x, nearness, update=Momentum(), random_start=False)


def _on_others(members: Members, distilled: Sequence[tf.Tensor], place: int) -> tf.Tensor:
    """Logits of one member in training on the images of the others, [N - 1, B, C]."""
    others = [images for other, images in enumerate(distilled) if other != place]
    return tf.stack([at_least_float32(members[place](images, training=True)) for images in others])


def neighbours(count: tf.Tensor) -> tf.Tensor:
    """For each of so many images another one's number, int32 [count]: 1, 0, 3, 2, ...; a last one's, 0.

    Within pairs, so that replicas, which have an even number of a batch's images each, pair them alike.
    """
    numbers = tf.range(count)
    beside = tf.bitwise.bitwise_xor(numbers, 1)
    return tf.where(beside < count, beside, 0)


def feature_distances(found: Sequence[tf.Tensor], wanted: Sequence[tf.Tensor]) -> tf.Tensor:
    """Mean squared differences of features [B, values] of each of L layers, [B, L]."""
    return tf.stack(
        [tf.reduce_mean((a - b) ** 2, axis=1) for a, b in zip(found, wanted, strict=True)], axis=1
    )
