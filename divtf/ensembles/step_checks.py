"""Checks inside a step's graph, which stop it before it can spoil the weights, and what they say to the user.

TensorFlow tells Python of a failed check by an InvalidArgumentError, of whose text an operation sets a part
only. So each check puts its own name there, between two marks, and the words are made here.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from divtf.errors import InputError

_BEGIN, _END = "<divtf checks ", ">"
_LABELS, _SOFT_LABELS, _IMAGES = "labels", "soft labels", "images"
# Of float16's or rounded labels of a thousand classes.
_SUM_TOLERANCE = 1e-2


def class_indices(y: tf.Tensor, num_classes: int) -> tf.Tensor:
    """The labels [B] as int64, which are there only if all of them are whole numbers in [0, num_classes)."""
    indices = tf.cast(y, tf.int64)
    inside = (indices >= 0) & (indices < num_classes) & (tf.cast(indices, y.dtype) == y)
    numbers = [tf.reduce_min(y), tf.reduce_max(y), num_classes]
    return _if(tf.reduce_all(inside), _LABELS, numbers, indices)


def probabilities(y: tf.Tensor) -> tf.Tensor:
    """The labels [B, C], which are there only if every row is a distribution: >= 0, and 1 in sum."""
    sums = tf.reduce_sum(y, axis=-1)
    holds = tf.reduce_all(y >= 0) & tf.reduce_all(tf.abs(sums - 1) < _SUM_TOLERANCE)
    return _if(holds, _SOFT_LABELS, [tf.reduce_min(y), tf.reduce_min(sums), tf.reduce_max(sums)], y)


def images_within(x: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """The images, which are there only if all their values are in [low, high], to rounding."""
    least, most, slack = tf.reduce_min(x), tf.reduce_max(x), 1e-6 * (high - low)
    # An empty batch has none: its least is infinite.
    holds = (least >= low - slack) & (most <= high + slack) | tf.equal(tf.size(x), 0)
    return _if(holds, _IMAGES, [least, most, low, high], x)


def _if(holds: tf.Tensor, name: str, numbers: Sequence, value: tf.Tensor) -> tf.Tensor:
    """The value, which is there only if the condition holds; the numbers are for what is said otherwise."""
    check = tf.debugging.Assert(holds, [_marked(name), *numbers])
    with tf.control_dependencies([] if check is None else [check]):  # Eagerly there is none to wait for.
        return tf.identity(value)


def are_finite(quantities: Mapping[str, tf.Tensor]) -> Sequence[tf.Tensor]:
    """Checks of scalars, by name, made in that order; what must not run on NaN or infinity waits for them."""
    checks: list[tf.Tensor] = []
    for name, quantity in quantities.items():
        with tf.control_dependencies(checks[-1:]):
            checks.append(tf.debugging.check_numerics(quantity, _marked(name)))
    return checks


@contextlib.contextmanager
def clear_errors(optimizer: keras.optimizers.Optimizer | None) -> Iterator[None]:
    """Make a failed check, or an InputError of who reads the images, the InputError that it is.

    Other errors pass.

    Args:
        optimizer: counts the steps that were taken; None, as in evaluation alone, counts as none.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # TensorFlow tells of what Python code inside a graph has raised by its text only.
        if raised := re.search(r"InputError: (Expected .*)", str(error)):
            raise InputError(raised[1]) from None
        _, begin, rest = str(error).partition(_BEGIN)
        if not begin:
            raise
        name, _, details = rest.partition(_END)
        if name in _WRONG:
            raise InputError(_WRONG[name](*_numbers(details))) from None
        raise InputError(_not_finite(name, _steps_of(optimizer))) from None


def _marked(name: str) -> str:
    return f"{_BEGIN}{name}{_END}"


def _numbers(details: str) -> list[str]:
    """The numbers after a mark: one a line eagerly, each in brackets in a graph."""
    return re.findall(r"-?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf)", details)


_WRONG = {
    _IMAGES: (
        "Expected images in [{2}, {3}], the objective's clip_min and clip_max. Received: values from {0} to "
        "{1}"
    ).format,
    _LABELS: "Expected labels as whole numbers in [0, {2}). Received: labels from {0} to {1}".format,
    _SOFT_LABELS: (
        "Expected one-hot or soft labels that are >= 0 and sum to 1. Received: labels of at least {0} and "
        "sums from {1} to {2}"
    ).format,
}


def _steps_of(optimizer: keras.optimizers.Optimizer | None) -> int:
    # By NumPy: Keras makes no integer of a variable that replicas share.
    return 0 if optimizer is None else int(optimizer.iterations.numpy())


def _not_finite(quantity: str, step: int) -> str:
    return (
        f"Expected a finite {quantity} in training. Received: NaN or infinity at step {step + 1}; the "
        f"trainable weights are those after step {step}. A smaller learning rate or GAL weight may help"
    )
