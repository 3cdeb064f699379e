"""Gradient aligned adversarial subspace: how many orthogonal directions fool a target (paper, 4.4, Figure 5).

The rows of a regular Hadamard matrix of order k, stretched over the image and multiplied by sign(grad),
are k orthogonal perturbations of l_inf norm epsilon, all equally aligned with the gradient. How many of them
change the prediction is an estimate, from below, of the dimension of the adversarial subspace at an image.

The paper's orders are 4, 25, 36 and 64. Order 25 has no matrix: H H^T = k I asks of any three rows that k be
a multiple of 4, beyond k = 1 and 2, and constant row sums ask that k be a square. 16, the regular order below
25, takes its place.

Source: Tramer et al. (2017), "The Space of Transferable Adversarial Examples".
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.data.images import as_images, value_range
from divtf.errors import require
from divtf.evaluation.hadamard import ORDERS, stretched_rows
from divtf.networks.logits import (
    aligned_loss,
    as_target,
    class_indices,
    member_logits,
    require_logits,
    true_class_margin,
)
from divtf.runtime import progress


def orthogonal_perturbations(gradient_signs: Any, order: int, epsilon: float) -> tf.Tensor:
    """Orthogonal perturbations, all with the inner product epsilon D' / sqrt(k) with the gradient's signs.

    D' = k floor(D / k) dimensions are used, in k contiguous blocks of equal length. The last D mod k (at most
    k - 1) stay 0 and a zero sign counts as +1: otherwise the perturbations would not be orthogonal.

    Args:
        gradient_signs: signs of the loss gradient in x (or the gradient itself), floating, [B, D].
        order: k, one of `ORDERS`, at most D.
        epsilon: l_inf norm of each perturbation, in units of the image range.

    Returns:
        Perturbations r_i, [B, k, D], of the dtype of the signs; r_i . r_j = 0 for i != j.

    Raises:
        ValueError: for an order without a matrix or above D, a wrong epsilon, shape or dtype.
    """
    signs = tf.convert_to_tensor(gradient_signs)
    fits = signs.shape.rank == 2 and signs.dtype.is_floating
    require(fits, "floating signs [B, D]", shape=signs.shape, dtype=signs.dtype.name)
    require(0 < epsilon < math.inf, "a finite epsilon > 0", epsilon=epsilon)
    rows = tf.cast(float(epsilon) * stretched_rows(order, signs.shape[1]).astype(np.float64), signs.dtype)
    return _aligned(signs[:, None], rows)


def _aligned(gradients: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows times the signs of the gradients, a zero counted as +1."""
    return tf.where(gradients >= 0, tf.ones_like(gradients), -tf.ones_like(gradients)) * rows


@dataclasses.dataclass(frozen=True)
class GaasResult:
    """What the analysis found at one epsilon and order (paper, Figure 5: one curve)."""

    epsilon: float  # l_inf norm of the perturbations before clipping, in units of the image range
    order: int  # k, the number of orthogonal directions tried on each image
    images: int  # analysed, all of them correctly classified without perturbation
    left_out: int  # images left out because the target misclassifies them already
    zero_gradients: int  # analysed images whose gradient is 0 everywhere: nothing aligns their directions
    mean_successes: float  # successful directions an image, on average, in [0, k]
    probability: tuple[float, ...]  # entry m - 1: share of images with at least m successes, m = 1..k

    def to_json(self) -> dict[str, Any]:
        """All attributes as a JSON object."""
        return dataclasses.asdict(self) | {"probability": list(self.probability)}


@dataclasses.dataclass
class _Counts:
    """What is counted over the images.

    Attributes:
        successes: (epsilon, order) -> how many images have 0, 1, ..., k successful directions, [k + 1].
        images: those that the target classifies correctly.
        zero_gradients: those of them whose gradient is 0 everywhere.
    """

    successes: dict[tuple[float, int], np.ndarray]
    images: int = 0
    zero_gradients: int = 0

    def add_images(self, gradients: np.ndarray) -> None:
        """Count correctly classified images, by their gradients [B, ...]."""
        self.images += len(gradients)
        self.zero_gradients += int((gradients == 0).all(axis=tuple(range(1, gradients.ndim))).sum())

    def results(self, tried: int) -> list[GaasResult]:
        """One result for each (epsilon, order), of so many images tried."""
        return [
            GaasResult(
                epsilon=epsilon,
                order=order,
                images=self.images,
                left_out=tried - self.images,
                zero_gradients=self.zero_gradients,
                mean_successes=float(histogram @ np.arange(order + 1) / self.images),
                # Summed from the right and turned: images with at least m = 1..k successes.
                probability=tuple((np.cumsum(histogram[::-1])[-2::-1] / self.images).tolist()),
            )
            for (epsilon, order), histogram in self.successes.items()
        ]


def _check_settings(epsilons: Sequence[float], orders: Sequence[int], batch_size: int) -> None:
    positive = len(epsilons) > 0 and all(0 < epsilon < math.inf for epsilon in epsilons)
    require(positive, "one or more finite epsilons > 0", epsilons=epsilons)
    require(len(orders) * batch_size > 0, "orders, batch_size > 0", orders=orders, batch_size=batch_size)


def _check(target: Any, x: Any, y: Any, low: float, high: float) -> tuple[Any, np.ndarray]:
    x, y = as_images(x), class_indices(y)
    paired = x.ndim >= 2 and y.ndim == 1 and len(x) == len(y) and 0 not in x.shape
    require(paired, "x [B, ...] and y [B] of equal length B >= 1", x=x.shape, y=y.shape)
    least, most = value_range(x)
    inside = bool(np.float32(low) <= least and most <= np.float32(high))
    require(inside and low < high, f"x within [{low}, {high}]", min=least, max=most)
    _, classes = require_logits(target, tf.constant(np.asarray(x[:1])))
    valid = bool(y.min() >= 0 and y.max() < classes)
    require(valid, f"labels y within [0, {classes})", min=y.min(), max=y.max())
    return x, y.astype(np.int32)


def _predict(target: Callable[[Any], Any], x: tf.Tensor) -> tf.Tensor:
    """Predicted classes, int32 [B]; -1 where the output holds a NaN."""
    logits = target(x)
    nan = tf.reduce_any(tf.math.is_nan(logits), axis=-1)
    return tf.where(nan, -1, tf.argmax(logits, axis=-1, output_type=tf.int32))


def _graphs(target: Any, shape: tuple[int, ...], low: float, high: float) -> tuple[Callable, Callable]:
    """Two graphs, traced once for any batch and order; one direction at a time, so memory is free of k."""
    images, classes = tf.TensorSpec([None, *shape]), tf.TensorSpec([None], tf.int32)

    @tf.function(input_signature=[images, classes], autograph=False)
    def differentiate(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            margins = true_class_margin(tf.cast(member_logits(target, x), tf.float64), y)  # [N, B]
            objective = tf.reduce_sum(aligned_loss(margins, axis=0))
        gradients = tape.gradient(objective, x)
        require(gradients is not None, "a target differentiable in x", gradient=gradients)
        return _predict(target, x), gradients

    @tf.function(input_signature=[images, images, images, tf.TensorSpec([])], autograph=False)
    def predict_perturbed(x: tf.Tensor, gradients: tf.Tensor, rows: tf.Tensor, epsilon: tf.Tensor):
        def predict(row: tf.Tensor) -> tf.Tensor:
            return _predict(target, tf.clip_by_value(x + epsilon * _aligned(gradients, row), low, high))

        return tf.map_fn(predict, rows, parallel_iterations=1, fn_output_signature=classes)

    return differentiate, predict_perturbed


def _correct(
    differentiate: Callable, x: np.ndarray, y: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images that are classified correctly, of a batch that begins at `start`; labels and gradients."""
    predictions, gradients = (value.numpy() for value in differentiate(x, y))
    correct = predictions == y
    known = predictions.min() >= 0 and np.isfinite(gradients[correct]).all()
    require(known, "finite outputs and gradients", first_image_of_batch=start)
    return x[correct], y[correct], gradients[correct]


def _successes(classes: np.ndarray, y: np.ndarray, **place: Any) -> np.ndarray:
    """How many images have 0, 1, ..., k successful directions, from the classes predicted there, [k, B]."""
    require(classes.min() >= 0, "outputs without NaN", **place)
    return np.bincount((classes != y).sum(axis=0), minlength=len(classes) + 1)


def gaas(
    target: Any,
    x: Any,
    y: Any,
    *,
    epsilons: Sequence[float] = (0.03, 0.06, 0.09),
    orders: Sequence[int] = ORDERS,
    clip_min: float = 0.0,
    clip_max: float = 1.0,
    batch_size: int = 128,
) -> list[GaasResult]:
    """Counts the orthogonal gradient-aligned perturbations that change the target's prediction (white box).

    The gradient is that of the members' mean cross-entropy at the true labels. A direction r_i succeeds if
    the prediction on clip(x + r_i) is not y; where pixels are clipped, directions are only nearly orthogonal.

    Args:
        target: an `Ensemble` (callable x -> log-probabilities [B, C], with `member_logits(x)` -> [N, B, C]),
            a list of members, or any callable, differentiable in x, that gives logits [B, C]; x arrives as
            float32.
        x: images [B, ...] within [clip_min, clip_max], an array or `LazyImages`.
        y: true labels: indices [B] or [B, 1], or one-hot [B, C].
        epsilons: l_inf norms of the perturbations, in units of the image range.
        orders: numbers of orthogonal directions, each one of `ORDERS` and at most the input dimension.
        clip_min: lower end of the image range, to which perturbed images are clipped.
        clip_max: upper end of it.
        batch_size: images in one forward pass; bounds the memory, does not change the result.

    Returns:
        One result for each (epsilon, order), epsilon outermost.

    Raises:
        ValueError: for inputs outside the above, NaN outputs or gradients, or no image correctly classified.
    """
    _check_settings(epsilons, orders, batch_size)
    target = as_target(target)
    x, y = _check(target, x, y, clip_min, clip_max)
    size = math.prod(x.shape[1:])
    rows = {int(order): stretched_rows(order, size).reshape(order, *x.shape[1:]) for order in orders}
    differentiate, predict_perturbed = _graphs(target, x.shape[1:], float(clip_min), float(clip_max))
    counts = _Counts(
        {(float(epsilon), order): np.zeros(order + 1, int) for epsilon in epsilons for order in rows}
    )
    starts = range(0, len(x), batch_size)
    with progress.bar("gaas", total=len(starts)) as bar:
        for start in starts:
            batch = slice(start, start + batch_size)
            images, labels, gradients = _correct(differentiate, np.asarray(x[batch]), y[batch], start)
            counts.add_images(gradients)
            if len(images):
                for (epsilon, order), histogram in counts.successes.items():
                    classes = predict_perturbed(images, gradients, rows[order], epsilon).numpy()
                    histogram += _successes(classes, labels, epsilon=epsilon, first_image_of_batch=start)
            bar.update(1)
    require(counts.images > 0, "an image that the target classifies correctly", correct=0, images=len(x))
    return counts.results(len(x))
