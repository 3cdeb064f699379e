"""Whether an exported ensemble predicts what the ensemble does, and how well it tells classes."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving import served

Predict = Callable[[np.ndarray], dict[str, np.ndarray]]

# Largest differences of an output, for logits up to 10 in size; beyond, what rounds them grows with them. A
# SavedModel has the ensemble's own operations. Float16 has 11 bits: weights, and with them logits, are off
# by up to 2^-11 of themselves, 10 of them by 5e-3, and a probability moves by less than its logit does.
TOLERANCES = {"saved_model": 1e-6, "float32": 1e-5, "float16": 5e-3}
_LARGE = 10.0
# Of int8: the mean over images of half the sum of |p - q|, the share of probability that is misplaced. What
# it costs depends on the members and is told, not held to; but a model off by this much is another one.
_MISPLACED = 0.25
_BATCH_SIZES = (1, 3)
_AT_ONCE = 64


class Reference:
    """What the ensemble itself gives, combined in NumPy and float64."""

    def __init__(self, ensemble: Ensemble):
        # In a graph, as it was exported: eagerly, other operations are fused, and bfloat16 is rounded later.
        logits = tf.function(ensemble.member_logits, input_signature=served.signature(ensemble))
        self._logits = logits.get_concrete_function()

    def __call__(self, images: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """`served.OUTPUTS` for float32 images [B, ...], and the largest size of a logit."""
        logits = self._logits(tf.constant(images)).numpy()
        return served.expected(logits), float(np.abs(logits).max())


def compare(reference: Reference, predict: Predict, images: np.ndarray, precision: str) -> dict[str, float]:
    """Hold a written model to the ensemble on batches of several sizes.

    Args:
        reference: of the ensemble.
        predict: the written model, from images to `served.OUTPUTS`.
        images: [n >= 4, ...] float32.
        precision: a key of `TOLERANCES`, or "int8".

    Returns:
        The largest difference of each output.

    Raises:
        RuntimeError: if they differ by more than the precision lets expect.
    """
    differences, misplaced, largest = dict.fromkeys(served.OUTPUTS, 0.0), [], 0.0
    for batch in _batches(images):
        expected, size = reference(batch)
        found = predict(batch)
        largest = max(largest, size)
        for name in served.OUTPUTS:
            off = np.abs(_same_shape(name, found[name], expected[name]) - expected[name]).max()
            differences[name] = float(np.maximum(differences[name], off))  # NaN stays.
        misplaced.append(np.abs(found["probabilities"] - expected["probabilities"]).sum(axis=-1) / 2)
    if precision == "int8":
        _require_within(float(np.concatenate(misplaced).mean()), _MISPLACED, "on average")
        _require_within(differences["disagreement"], math.inf, "in disagreement")
    else:
        scale = 1.0 if precision == "saved_model" else max(1.0, largest / _LARGE)
        for name, difference in differences.items():
            _require_within(difference, TOLERANCES[precision] * scale, f"in {name}")
    return differences


def classes(predict: Predict, images: np.ndarray) -> np.ndarray:
    """The likeliest class of each image, [n]."""
    parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    return np.concatenate([predict(part)["probabilities"].argmax(axis=-1) for part in parts])


def require_same_in_uint8(predict: Predict, images: np.ndarray, divisor: float) -> None:
    """Hold the signature for uint8 images to the one for the same images over what members take them by.

    Raises:
        RuntimeError: if they differ.
    """
    whole = (images * 256).astype("uint8")
    expected = predict(whole.astype("float32") / np.float32(divisor))["probabilities"]
    off = np.abs(predict(whole)["probabilities"] - expected).max()
    _require_within(float(off), TOLERANCES["saved_model"], "of uint8 images")


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for size in _BATCH_SIZES:
        yield images[start : start + size]
        start += size
    if start < len(images):
        yield images[start : start + _AT_ONCE]


def _same_shape(name: str, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    shapes: Sequence[tuple[int, ...]] = (found.shape, expected.shape)
    if found.shape != expected.shape:
        raise RuntimeError(
            f"Expected {name} of shape {shapes[1]} from what was exported. Received: {shapes[0]}"
        )
    return found


def _require_within(difference: float, tolerance: float, where: str) -> None:
    if not (difference <= tolerance and math.isfinite(difference)):
        raise RuntimeError(
            f"Expected what was exported to predict as the ensemble to {tolerance:.2g} {where}. "
            f"Received: {difference:g}"
        )
