"""What the input gradients of an ensemble look like over a set of images: Figures 3 and 4."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.data.images import as_images, blocks
from divtf.ensembles import alignment
from divtf.errors import require
from divtf.networks.logits import (
    MemberList,
    as_target,
    class_indices,
    require_labels,
    require_logits,
    require_one_label_each,
)
from divtf.runtime import devices, progress


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


def gradient_statistics(ensemble, x: Any, y: np.ndarray, *, batch_size: int = 250) -> GradientStatistics:
    """Measure the members' cross-entropy gradients in inference mode.

    Args:
        ensemble: has `members`, at least 2; or a list of these.
        x: images, float32 [n, ...], an array or `LazyImages`.
        y: labels: indices [n] or [n, 1], or one-hot [n, C].
        batch_size: images at a time; it does not change the result.
    """
    ensemble = as_target(ensemble)
    several = len(getattr(ensemble, "members", ())) >= 2
    require(several, "an Ensemble or a list of at least 2 members", f"{ensemble!r:.80}")
    x, y = as_images(x), class_indices(y)
    require_one_label_each(x, y)
    first = tf.constant(np.asarray(x[:1]))
    _, classes = require_logits(MemberList(ensemble.members), first, differentiable=False)
    require_labels(y, classes)
    measure = _measure_of(ensemble.members)
    pairs = zip(blocks(x, batch_size), blocks(y, batch_size), strict=True)
    batches = ((tf.constant(images), tf.constant(labels)) for images, labels in pairs)
    measured = []
    with progress.bar("input gradients", total=-(-len(x) // batch_size)) as bar:
        for results in devices.map_batches(measure, batches, devices.devices_of(ensemble)):
            measured.append([result.numpy() for result in results])
            bar.update(1)
    cosines, gal, zero_entries, zero_products = map(np.concatenate, zip(*measured, strict=True))
    return GradientStatistics(
        coherence=cosines.max(axis=1),
        pair_cosines=_symmetric(cosines.mean(axis=0), len(ensemble.members)),
        gal=float(gal.mean()),
        zero_entries=float(zero_entries.mean()),
        zero_products=float(zero_products.mean()),
    )


def _measure_of(members: Sequence[Callable[..., tf.Tensor]]) -> Callable[..., tuple[tf.Tensor, ...]]:
    """A graph from images and labels to Equation 6 [B, pairs], Equation 8 [B] and the shares of zeros [B]."""
    pairs = list(itertools.combinations(range(len(members)), 2))

    @tf.function(reduce_retracing=True, autograph=False)
    def measure(images, labels):
        _, _, gradients = alignment.input_gradients(members, images, labels)
        gradients = alignment.finite(gradients)
        zero = tf.cast(gradients == 0, tf.float32)
        # A product term is zero where either factor is.
        products = tf.add_n([tf.reduce_mean(tf.maximum(zero[a], zero[b]), -1) for a, b in pairs]) / len(pairs)
        return (
            alignment.cosine_similarities(gradients),
            alignment.gradient_alignment_loss(gradients),
            tf.reduce_mean(zero, axis=[0, 2]),
            products,
        )

    return measure


def _symmetric(pair_cosines: np.ndarray, count: int) -> np.ndarray:
    """Cosines of the pairs in row order, [N(N-1)/2], as a matrix [N, N] with ones on the diagonal."""
    matrix = np.eye(count)
    upper = np.triu_indices(count, 1)
    matrix[upper] = matrix.T[upper] = pair_cosines
    return matrix
