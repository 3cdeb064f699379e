"""The slope of a model's gradient against differences: whether what TensorFlow differentiates twice is exact.

A network of ReLU or max-pooling has kinks, at which the input gradient jumps: a difference over a jump fits
nothing. Steps are so short that few are met, and another step and another direction is tried if one was.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.alignment import cosine_similarities
from divtf.errors import first_line

# In benchmarks/results/exactness.md right slopes are off by less than this, wrong ones by 3e-3 and more.
TOLERANCE = 1e-5
# Relative to the weights. A deep network with batch normalisation bends within 1e-6; the long steps are for
# operations that compute in float32 in any case.
_STEPS = (1e-9, 1e-7, 1e-5, 1e-3)
# Two directions have to fit: along one, a wrong slope may be nearly right by chance.
_DIRECTIONS, _FITTING = 6, 2
# Batch normalisation of two examples at one place gives 1 and -1, whatever they are.
EXAMPLES = 4
# Weights of a smaller root mean square start near 0 for a reason that training ends, as a layer's scale.
_SMALL = 1e-2
# Of the cosines' values.
_ROUNDING = 1e-15


@dataclasses.dataclass(frozen=True)
class Exactness:
    """What was measured.

    Attributes:
        error: of the slope, relative to its size: the second smallest over the directions tried; 0 where
            there is nothing to train; infinity where there is no slope.
        reason: why there is no slope, in one line; "" if there is one.
    """

    error: float
    reason: str = ""

    @property
    def exact(self) -> bool:
        """Whether the slope is right."""
        return self.error <= TOLERANCE


def compare(
    model: keras.Model, inputs: Sequence[Any], variables: Sequence[Any], *, graph: bool = False
) -> Exactness:
    """The slope of the cosines of a model's input gradients with fixed directions, against its differences.

    Args:
        model: in float64; its variables are left changed.
        inputs: tensors or variables [B, ...], one for each of its inputs; EXAMPLES or more.
        variables: along which the slope is taken: weights, or inputs that are variables.
        graph: whether to differentiate in a tf.function, as `fit` does, rather than eagerly.
    """
    if not variables:
        return Exactness(0.0)
    rng = np.random.default_rng(1)
    fixed = [tf.constant(rng.normal(size=(1, 1, each.shape.num_elements()))) for each in inputs]
    # What a training step changes besides weights, as moving statistics and the seeds of dropout.
    varied = {id(variable) for variable in variables}
    state = [variable for variable in model.variables if id(variable) not in varied]
    before = [variable.numpy() for variable in state]

    def cosines():
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)
        return _mean_cosine(model, inputs, fixed)

    def slope():
        with tf.GradientTape() as tape:
            value = cosines()
        return tape.gradient(
            value, [each.value if isinstance(each, keras.Variable) else each for each in variables]
        )

    value_of, slope_of = cosines, slope
    if graph:
        value_of, slope_of = (tf.function(each, autograph=False) for each in (cosines, slope))
    sizes = [_size(variable.numpy()) for variable in variables]
    # A network at its start is a special case: with biases of 0 units may lie on their kinks, and a head or a
    # scale of 0 hides what comes before it.
    start = [
        variable.numpy() + size * rng.normal(size=variable.shape) / 10
        for variable, size in zip(variables, sizes, strict=True)
    ]

    def value_at(shift, direction):
        for variable, middle, along in zip(variables, start, direction, strict=True):
            variable.assign(middle + shift * along)
        return float(value_of())

    try:
        if value_at(0.0, start) != value_at(0.0, start):
            return Exactness(np.inf, "random numbers of its own, which no seed of Keras repeats")
        slopes = [_as_array(each, middle) for each, middle in zip(slope_of(), start, strict=True)]
    except (
        ArithmeticError,
        LookupError,
        NotImplementedError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        return Exactness(np.inf, f"no second derivative ({first_line(error)})")
    norm = np.sqrt(sum(np.sum((slope * size) ** 2) for slope, size in zip(slopes, sizes, strict=True)))
    errors: list[float] = []
    while len(errors) < _DIRECTIONS and sum(each <= TOLERANCE for each in errors) < _FITTING:
        direction = [size * rng.normal(size=each.shape) for each, size in zip(start, sizes, strict=True)]
        expected = sum(np.vdot(slope, along) for slope, along in zip(slopes, direction, strict=True))
        found, is_sure = _error(value_at, direction, expected, norm)
        if is_sure:
            return Exactness(found)
        errors.append(found)
    return Exactness(sorted(errors)[_FITTING - 1])


def _mean_cosine(model: keras.Model, inputs: Sequence[Any], fixed: Sequence[tf.Tensor]) -> tf.Tensor:
    """Mean over inputs of the cosine of a loss's gradient with a fixed direction, [1, 1, B D].

    The examples' gradients are one vector: the cosine of one that nearly vanishes alone would be noise.
    """
    tensors = [tf.convert_to_tensor(each) for each in inputs]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        outputs = keras.tree.flatten(model(tensors if len(tensors) > 1 else tensors[0], training=True))
        floating = [output for output in outputs if output.dtype.is_floating]
        # Curved and without symmetry: what is linear in the outputs may hide a fault.
        loss = tf.add_n([tf.cast(_curved_sum(output), "float64") for output in floating])
    gradients = tape.gradient(loss, tensors)
    pairs = [(each, along) for each, along in zip(gradients, fixed, strict=True) if each is not None]
    if not pairs:
        raise ValueError("its outputs have no gradient with respect to its input")
    flat = [tf.concat([tf.reshape(each, [1, 1, -1]), along], axis=0) for each, along in pairs]
    return tf.add_n([tf.reduce_sum(cosine_similarities(each)) for each in flat]) / len(flat)


def _curved_sum(output: tf.Tensor) -> tf.Tensor:
    """A weighted sum of softplus of the outputs [B, ...]."""
    weights = np.random.default_rng(2).normal(size=output.shape[1:])
    return tf.reduce_sum(tf.nn.softplus(output) * tf.cast(weights, output.dtype))


def _error(
    value_at: Callable, direction: Sequence[np.ndarray], expected: float, norm: float
) -> tuple[float, bool]:
    """How far the slope along a direction is from the differences, and whether it is wrong for sure.

    The error is that at the step that fits best. If two steps' differences agree with each other, and not
    with the slope, no kink has come between.
    """
    errors: list[float] = []
    differences: list[float] = []
    for step in _STEPS:
        difference = (value_at(step, direction) - value_at(-step, direction)) / (2 * step)
        size = max(norm, abs(difference))
        # Below this, what differs is rounding: the cosines do not depend on the variables.
        error = float(abs(difference - expected) / size) if size > _ROUNDING / step else 0.0
        if error <= TOLERANCE:
            return error, False
        agreed = any(abs(difference - other) < error * size / 100 for other in differences)
        if agreed and error > 10 * TOLERANCE:  # Less may be rounding.
            return error, True
        errors.append(error)
        differences.append(difference)
    return min(errors), False


def _size(values: np.ndarray) -> float:
    """How much of a change is much to a variable: its root mean square, or 1 if that is small."""
    size = float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
    return size if size > _SMALL else 1.0


def _as_array(slope: Any, like: np.ndarray) -> np.ndarray:
    return np.zeros(like.shape) if slope is None else tf.convert_to_tensor(slope).numpy()
