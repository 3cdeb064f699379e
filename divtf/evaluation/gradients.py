"""What the input gradients of an ensemble look like over a set of images: Figures 3 and 4."""

import dataclasses

import numpy as np
import tensorflow as tf

from divtf.ensembles import alignment
from divtf.runtime import devices


@dataclasses.dataclass(frozen=True)
class GradientStatistics:
    """Alignment and sparsity of the members' input gradients on n images.

    Attributes:
        coherence: Equation 7, [n].
        pair_cosines: mean of Equation 6 over the images, [N, N], ones on the diagonal.
        gal: mean of Equation 8.
        zero_entries: share of the gradients' entries that are exactly zero (section 3.4).
        zero_products: share of the terms of the pairs' inner products that are exactly zero.
    """

    coherence: np.ndarray
    pair_cosines: np.ndarray
    gal: float
    zero_entries: float
    zero_products: float


def gradient_statistics(
    ensemble, x: np.ndarray, y: np.ndarray, *, batch_size: int = 250
) -> GradientStatistics:
    """Measure the members' cross-entropy gradients in inference mode.

    Args:
        ensemble: has `members`, at least 2.
        x: images, float32 [n, H, W, C].
        y: labels, integer [n].
        batch_size: images at a time; it does not change the result.
    """
    count = len(ensemble.members)

    @tf.function(reduce_retracing=True)
    def measure(images, labels):
        _, _, gradients = alignment.input_gradients(ensemble.members, images, labels)
        zero = tf.cast(gradients == 0, tf.float32)
        pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
        # A product term is zero where either factor is.
        products = tf.add_n([tf.reduce_mean(tf.maximum(zero[a], zero[b]), -1) for a, b in pairs]) / len(pairs)
        return (
            alignment.cosine_similarities(gradients),
            alignment.gradient_alignment_loss(gradients),
            tf.reduce_mean(zero, axis=[0, 2]),
            products,
        )

    starts = range(0, len(x), batch_size)
    parts = [(tf.constant(x[i : i + batch_size]), tf.constant(y[i : i + batch_size])) for i in starts]
    results = devices.map_batches(measure, parts, devices.devices_of(ensemble))
    batches = [[part.numpy() for part in result] for result in results]
    cosines, gal, zero_entries, zero_products = (
        np.concatenate(parts) for parts in zip(*batches, strict=True)
    )
    pair_cosines = np.eye(count)
    upper = np.triu_indices(count, 1)
    pair_cosines[upper] = pair_cosines.T[upper] = cosines.mean(axis=0)
    return GradientStatistics(
        coherence=cosines.max(axis=1),
        pair_cosines=pair_cosines,
        gal=float(gal.mean()),
        zero_entries=float(zero_entries.mean()),
        zero_products=float(zero_products.mean()),
    )
