"""Alignment of the members' input gradients: Equations 6, 7 and 8 of the paper.

Pure functions on tensors. N members, B examples, C classes, D input values an example.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from divtf.errors import require
from divtf.networks.logits import DIRECTION_FLOOR, at_least_float32, cross_entropy


def input_gradients(
    members: Sequence[Callable[..., tf.Tensor]],
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    training: bool = False,
    label_smoothing: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Logits, cross-entropies and their gradients with respect to the input, member by member.

    One forward pass a member and one inner tape; under an outer tape the gradients are differentiable
    once more. With batch normalisation in training mode an example's gradient is that of the summed
    loss of its batch, since the batch's statistics tie the examples together.

    Args:
        members: N callables `member(x, training=...)` that give logits [B, C].
        x: images, [B, ...], floating point.
        y: class indices, integer [B], or the classes' probabilities, floating [B, C].
        training: whether the members run in training mode.
        label_smoothing: of the cross-entropy, in [0, 1).

    Returns:
        logits [N, B, C], losses [N, B] and gradients [N, B, D], all of one type, float32 or wider.

    Source: section 3.2.2, the gradients J_i of Equation 6.
    """
    # A tensor of its own for each member lets one tape give every member's gradient separately.
    inputs = [tf.identity(x) for _ in members]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        logits = tf.stack(
            [
                at_least_float32(member(images, training=training))
                for member, images in zip(members, inputs, strict=True)
            ]
        )
        losses, margins = cross_entropy(logits, y, label_smoothing)
        total = tf.reduce_sum(losses + DIRECTION_FLOOR * margins)
    gradients = tape.gradient(total, inputs, unconnected_gradients="zero")  # As rounded images leave it.
    flat = [tf.reshape(tf.cast(gradient, losses.dtype), [tf.shape(x)[0], -1]) for gradient in gradients]
    return logits, losses, tf.stack(flat)


def finite(gradients: tf.Tensor) -> tf.Tensor:
    """The gradients, [N, B, D], 0 for a member at an image where any entry is not finite: no direction."""
    are_finite = tf.reduce_all(tf.math.is_finite(gradients), axis=-1, keepdims=True)
    return tf.where(are_finite, gradients, tf.zeros_like(gradients))


def cosine_similarities(gradients: tf.Tensor) -> tf.Tensor:
    """Cosine similarity of every pair of members, [N, B, D] -> [B, N(N-1)/2]; Equation 6.

    Pairs (a, b), a < b, come in row order. The cosine with a zero gradient is 0. Gradients of any
    finite scale give finite cosines with finite derivatives: each is first divided by its largest
    entry, which leaves the cosine as it is.

    Raises:
        InputError: if there are fewer than two members.
    """
    gradients = at_least_float32(tf.convert_to_tensor(gradients))
    count = gradients.shape[0]
    require(count is not None and count >= 2, "gradients [N >= 2, B, D]", f"shape {gradients.shape}")
    units = _unit_vectors(tf.transpose(gradients, [1, 0, 2]))
    gram = tf.matmul(units, units, transpose_b=True)
    pairs = [a * count + b for a in range(count) for b in range(a + 1, count)]
    return tf.gather(tf.reshape(gram, [-1, count * count]), pairs, axis=1)


def coherence(gradients: tf.Tensor) -> tf.Tensor:
    """Largest cosine similarity over the pairs of members, [N, B, D] -> [B]; Equation 7."""
    return tf.reduce_max(cosine_similarities(gradients), axis=-1)


def gradient_alignment_loss(gradients: tf.Tensor, sharpness: float = 1.0) -> tf.Tensor:
    """Log-sum-exp of the cosine similarities over the pairs of members, [N, B, D] -> [B]; Equation 8.

    For N members: log(N(N-1)/2) + 1 where all gradients agree, log(N(N-1)/2) where they are orthogonal.
    With a sharpness t it is log-sum-exp(t x cosines) / t, which goes to the largest cosine as t grows.
    """
    cosines = cosine_similarities(gradients)
    if sharpness == 1:
        return tf.reduce_logsumexp(cosines, axis=-1)
    return tf.reduce_logsumexp(sharpness * cosines, axis=-1) / sharpness


def norms(gradients: tf.Tensor) -> tf.Tensor:
    """l2 norms along the last axis, [..., D] -> [...]; of zeros 0, with a derivative of 0."""
    # The norm is the same whatever it is divided by and multiplied with: a constant to the derivative.
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(gradients), axis=-1, keepdims=True))
    scaled = tf.math.divide_no_nan(gradients, largest)
    squares = tf.maximum(tf.reduce_sum(scaled * scaled, axis=-1), 1)
    return tf.squeeze(largest, -1) * tf.sqrt(squares)


def _unit_vectors(vectors: tf.Tensor) -> tf.Tensor:
    """Vectors of length 1 along the last axis; zero vectors stay zero, with finite derivatives."""
    # The cosine does not depend on the scale, so the scale is a constant to the derivative.
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(vectors), axis=-1, keepdims=True))
    scaled = vectors / tf.where(largest > 0, largest, tf.ones_like(largest))
    # A scaled vector's squares sum to at least 1, unless all are zero: there the bound holds instead.
    return scaled * tf.math.rsqrt(tf.maximum(tf.reduce_sum(scaled * scaled, axis=-1, keepdims=True), 1))
