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
_LABELS = "labels"


def in_range(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """The labels, integer [B], which are there only if all of them are in [0, num_classes)."""
    inside = tf.reduce_all((labels >= 0) & (labels < num_classes))
    numbers = [tf.reduce_min(labels), tf.reduce_max(labels), num_classes]
    check = tf.debugging.Assert(inside, [_marked(_LABELS), *numbers])
    with tf.control_dependencies([] if check is None else [check]):  # Eagerly there is none to wait for.
        return tf.identity(labels)


def are_finite(quantities: Mapping[str, tf.Tensor]) -> Sequence[tf.Tensor]:
    """Checks of scalars, by name, made in that order; what must not run on NaN or infinity waits for them."""
    checks: list[tf.Tensor] = []
    for name, quantity in quantities.items():
        with tf.control_dependencies(checks[-1:]):
            checks.append(tf.debugging.check_numerics(quantity, _marked(name)))
    return checks


@contextlib.contextmanager
def clear_errors(optimizer: keras.optimizers.Optimizer | None) -> Iterator[None]:
    """Make a failed check an InputError that says what was expected; other errors pass.

    Args:
        optimizer: counts the steps that were taken; None, as in evaluation alone, counts as none.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        _, begin, rest = str(error).partition(_BEGIN)
        if not begin:
            raise
        name, _, details = rest.partition(_END)
        if name == _LABELS:
            raise InputError(_wrong_labels(details)) from None
        raise InputError(_not_finite(name, _steps_of(optimizer))) from None


def _marked(name: str) -> str:
    return f"{_BEGIN}{name}{_END}"


def _wrong_labels(details: str) -> str:
    """What to say, from the numbers after the mark: one a line eagerly, each in brackets in a graph."""
    low, high, classes = re.findall(r"-?\d+", details)[:3]
    return f"Expected labels in [0, {classes}). Received: labels from {low} to {high}"


def _steps_of(optimizer: keras.optimizers.Optimizer | None) -> int:
    # By NumPy: Keras makes no integer of a variable that replicas share.
    return 0 if optimizer is None else int(optimizer.iterations.numpy())


def _not_finite(quantity: str, step: int) -> str:
    return (
        f"Expected a finite {quantity} in training. Received: NaN or infinity at step {step + 1}; the "
        f"trainable weights are those after step {step}. A smaller learning rate or GAL weight may help"
    )
