"""The value of an objective and its parts."""

import dataclasses

import tensorflow as tf

from divtf.ensembles.weights import Weights
from divtf.errors import require


@dataclasses.dataclass(frozen=True)
class Terms:
    """An objective's value and its parts on one batch, one value an example.

    Attributes:
        logits: [N, B, C], on the images that the members were trained on.
        loss: what is minimised, [B].
        cross_entropy: mean over the members, [B]; the first term of Equation 9.
        gal: Equation 8, [B]; None where it was not computed.
        coherence: Equation 7, [B]; None where it was not computed.
        diversity: what an objective other than GAL adds to the cross-entropy, with its weight, [B]; None
            where it adds nothing.

    Raises:
        InputError: if they are of other shapes: weights of examples would go astray.
    """

    logits: tf.Tensor
    loss: tf.Tensor
    cross_entropy: tf.Tensor
    gal: tf.Tensor | None = None
    coherence: tf.Tensor | None = None
    diversity: tf.Tensor | None = None

    def __post_init__(self):
        rank = tf.TensorShape(getattr(self.logits, "shape", ())).rank
        received = f"logits of shape {getattr(self.logits, 'shape', type(self.logits).__name__)}"
        require(rank in (None, 3), "Terms with logits [members, batch, classes]", received)
        for name, part in self.means().items():
            shape = tf.TensorShape(getattr(part, "shape", ()))
            expected = f"Terms with {name} [batch], a value for each example"
            require(shape.rank in (None, 1), expected, f"{name} of shape {shape}")

    def means(self) -> dict[str, tf.Tensor]:
        """Every computed per-example part by name."""
        names = ("loss", "cross_entropy", "gal", "coherence", "diversity")
        parts = {name: getattr(self, name) for name in names}
        return {name: part for name, part in parts.items() if part is not None}

    def first(self, count: tf.Tensor) -> "Terms":
        """The terms of the first `count` examples."""
        cut = {name: part[:count] for name, part in self.means().items()}
        return dataclasses.replace(self, logits=self.logits[:, :count], **cut)

    def weighted(self, weights: Weights) -> "Terms":
        """The terms with a loss in which each example weighs as much as these say."""
        return dataclasses.replace(self, loss=weights.loss(self))
