"""PARL: members whose first layers give other outputs by other gradients; Shukla et al. (2025)."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from divtf.ensembles import alignment
from divtf.ensembles.objectives.features import (
    as_rows,
    first_layers,
    require_looked_into,
    weighted_layers,
    with_outputs,
)
from divtf.ensembles.objectives.objective import Members, MemberValues, Objective, count, weight
from divtf.ensembles.objectives.terms import Terms
from divtf.errors import require
from divtf.networks.logits import at_least_float32, cross_entropy


def output_correlation(outputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Sum over the pairs of members of the mean correlation of their units, N x [B, units] -> [].

    A unit's correlation is Pearson's, over the batch, with the same unit of the other member; that with a
    constant is 0.
    """
    # Less the first example's value before, which no correlation depends on: a mean is rounded, and of what
    # that leaves of a constant, as units at an image's blank border are, a correlation would be made.
    shifted = [output - tf.stop_gradient(output[:1]) for output in outputs]
    centred = [output - tf.reduce_mean(output, axis=0) for output in shifted]
    units = tf.stack([tf.transpose(each) for each in centred])  # [N, units, B]
    correlations = alignment.cosine_similarities(units)  # [units, pairs]
    return tf.reduce_sum(tf.reduce_mean(correlations, axis=0))


def gradient_similarity(gradients: tf.Tensor) -> tf.Tensor:
    """Sum over the pairs of members of the cosines of their gradients, [N, weights] -> []."""
    return tf.reduce_sum(alignment.cosine_similarities(gradients[:, None]))


@keras.saving.register_keras_serializable(package="divtf")
@dataclasses.dataclass(frozen=True)
class PairwiseRobustness(Objective):
    """Mean cross-entropy + weight x gradient similarity x output correlation / layers: PARL.

    Both are sums over the first layers and the pairs of members. These layers are convolutions, as in the
    authors' code; where a member has none, hidden dense ones. Their outputs are what the Keras layer gives,
    an activation that is its own argument included; the authors' are before it. The gradient of a layer is
    that of the sum of its outputs over the batch with respect to its kernel and those before it. The product
    belongs to a batch: each of its examples has it, and of several replicas each has its own.

    Attributes:
        weight: gamma.
        layers: how many layers are looked at.

    Source: Shukla et al. (2025), section 3, with their code's values for CIFAR-10. There the lengths in the
    gradients' cosines are constants to the derivative; here the cosines are differentiated whole.
    """

    weight: float = weight(0.25, "weight (gamma)")
    layers: int = count(5, "layers")

    least_members = 2
    second_order = True

    def require_members(self, members: Sequence[keras.Model], num_classes: int) -> None:
        """Refuse members whose layers cannot be compared."""
        for member in members:
            require_looked_into(member)
        shapes = [[tuple(_kernel(layer).shape) for layer in self._layers(member)] for member in members]
        same = all(shape == shapes[0] for shape in shapes)
        require(
            same, f"members whose first {self.layers} layers have kernels of the same shapes", f"{shapes}"
        )

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """The terms; see `Objective`."""
        logits, outputs, gradients = zip(
            *(self._looked_into(member, x, training=training) for member in members), strict=True
        )
        logits = tf.stack(logits)
        losses, _ = cross_entropy(logits, y, self.label_smoothing)
        similar = [gradient_similarity(tf.stack(layer)) for layer in zip(*gradients, strict=True)]
        correlated = [output_correlation(layer) for layer in zip(*outputs, strict=True)]
        product = tf.add_n(similar) * tf.add_n(correlated) / len(similar)
        values = MemberValues(logits, losses)
        if not training:
            values = self.aligned(members, x, y, training=False)
        return values.terms(tf.fill(tf.shape(losses)[1:], self.weight * product))

    def _layers(self, member: keras.Model) -> list[keras.layers.Layer]:
        return first_layers(member, self.layers)

    def _looked_into(self, member: keras.Model, x: tf.Tensor, *, training: bool):
        """A member's logits [B, C], and each layer's outputs, [B, units], and gradient, [weights]."""
        layers = self._layers(member)
        kernels = [_kernel(layer).value for layer in layers]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(kernels)  # Those of frozen layers, too: others are to differ from them.
            *found, logits = with_outputs(member)(x, training=training)
            of_layer = dict(zip(weighted_layers(member), found, strict=True))
            outputs = [of_layer[layer] for layer in layers]
            totals = [tf.reduce_sum(output) for output in outputs]
        gradients = []
        for number, total in enumerate(totals, 1):
            # A layer of another branch has none.
            parts = tape.gradient(total, kernels[:number], unconnected_gradients="zero")
            gradients.append(tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0))
        return at_least_float32(logits), [as_rows(output) for output in outputs], gradients


def _kernel(layer: keras.layers.Layer) -> keras.Variable:
    """The variable by which a layer's gradients are taken.

    With LoRA the kernel is that variable and what LoRA adds to it: the gradients with respect to both are the
    same. Of a separable convolution's two it is the pointwise one.

    Raises:
        InputError: if there is none, or it holds whole numbers.
    """
    kernel = layer.kernel if hasattr(layer, "kernel") else layer.pointwise_kernel
    if not isinstance(kernel, keras.Variable):
        kernel = next((weight for weight in layer.weights if weight.name == "kernel"), None)
    require(
        kernel is not None and tf.as_dtype(kernel.dtype).is_floating,
        "layers with a kernel of floating-point numbers among their weights, for PARL takes gradients by it",
        f"{layer!r:.80}",
    )
    return kernel
