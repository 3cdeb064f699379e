"""Whether a member's gradients are exact to second order, as the gradient of GAL needs them: by measuring.

What TensorFlow and Keras differentiate wrongly is in no list, and layers of a user's own are in none either.
So GAL of the member and a fixed direction is differentiated with respect to the member's weights as in
training, and compared with differences of its values, both in float64, where differences are sharp.

A network of ReLU or max-pooling has kinks, at which the input gradient jumps: a difference over a jump fits
nothing. Steps are so short that few are met, and another step and another direction is tried if one was.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.alignment import cosine_similarities
from divtf.errors import InputError
from divtf.networks.conversion import REPLACEMENTS, float64_copy, is_graph, parts_of
from divtf.runtime.private_names import layers_of

# A right slope is off its differences by 1e-7 and less, a wrong one by some tenths of a per mille and more.
TOLERANCE = 1e-5
# Relative to the weights. A deep network with batch normalisation bends within 1e-6; the long steps are for
# operations that compute in float32 in any case.
_STEPS = (1e-9, 1e-7, 1e-5, 1e-3)
# Two directions have to fit: along one, a wrong slope may be nearly right by chance.
_DIRECTIONS, _FITTING = 6, 2
# Batch normalisation of two examples at one place gives 1 and -1, whatever they are.
_EXAMPLES = 4
# In place of sizes that the member leaves open.
_OPEN_SIZE = 32
# Weights of a smaller root mean square start near 0 for a reason that training ends, as a layer's scale.
_SMALL = 1e-2
# So many layers are named in an error.
_NAMED = 3
# Layers of members that were measured and found to be exact.
_EXACT: set[str] = set()
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


def measure(member: keras.Model, input_shape: Sequence[int | None], *, graph: bool = False) -> Exactness:
    """Whether the gradient of GAL with respect to a built member's weights is exact.

    The member is left as it is: a copy in float64 is measured.

    Args:
        member: gives logits [B, C].
        input_shape: of its images, [batch, ...]; None for a size that is open.
        graph: whether to differentiate in a tf.function, as `fit` does, rather than eagerly.

    Raises:
        InputError: if no copy of the member can be made.
    """
    return _apart(_measure_copy, member, member.get_weights(), input_shape, graph)


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, run in a thread of its own.

    The caller may be in a strategy's scope, under a tape or in a graph, where a copy's variables would be
    others, and tapes record more or nothing.
    """
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def _measure_copy(
    member: keras.Model, weights: Sequence[np.ndarray], input_shape: Sequence[int | None], graph: bool
) -> Exactness:
    try:
        copy = float64_copy(member)
        copy.set_weights(weights)
    except Exception as error:  # Whatever the user's layers say.
        raise InputError(
            f"Expected a member that can be made again from its get_config(), to measure it in float64, or "
            f"check=False. Received: member {member.name!r}: {_first_line(error)}"
        ) from error
    images = np.random.default_rng(0).random((_EXAMPLES, *_closed(input_shape)))
    return _measure(copy, [tf.constant(images)], copy.trainable_variables, graph=graph)


def require_exact(members: Iterable[keras.Model], input_shape: Sequence[int | None]) -> None:
    """Refuse members on which GAL would be minimised along a wrong gradient, or cannot be minimised at all.

    Of members made of the same layers of Keras and divtf the first one is measured, once in a process.

    Raises:
        InputError: names the layers that are not exact, where they can be told, and what to do.
    """
    for member in members:
        layers = _layers_told(member)
        if layers not in _EXACT:
            _require_exact(member, input_shape)
        if layers:
            _EXACT.add(layers)


def _layers_told(member: keras.Model) -> str:
    """What a member is made of, if that is layers whose configurations tell what they compute; or else ""."""
    parts = parts_of(member)
    known = all(type(part).__module__.startswith(("keras.", "divtf.")) for part in parts)
    if not is_graph(member) or not known or any(type(part) is keras.layers.Lambda for part in parts):
        return ""
    return str([(type(part), _without_names(part.get_config())) for part in parts])


def _without_names(config: Any) -> Any:
    """A configuration without the names of layers and the seeds of what is drawn."""
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key not in ("name", "seed")}
    return list(map(_without_names, config)) if isinstance(config, list | tuple) else config


def _require_exact(member: keras.Model, input_shape: Sequence[int | None]) -> None:
    found = measure(member, input_shape)
    if found.exact:
        return
    what = found.reason or f"a slope of GAL that is off by {found.error:.1g} of its size"
    layers = _apart(lambda: list(itertools.islice(inexact_layers(member), _NAMED + 1)))
    names = [f"{type(layer).__name__} {layer.name!r}" for layer in layers[:_NAMED]]
    where = f" in {', '.join(names)}{' and others' if len(layers) > _NAMED else ''}" if layers else ""
    replaceable = any(type(layer) in REPLACEMENTS for layer in _with_parts(layers or [member]))
    advice = "; divtf.convert_member(member) replaces it" if replaceable else ""
    raise InputError(
        f"Expected members whose gradients are exact to second order, as GAL's gradient needs. "
        f"Received: member {member.name!r} with {what}{where}{advice}"
    )


def inexact_layers(member: keras.Model) -> Iterator[Any]:
    """The layers and operations of a Functional or Sequential member that are not exact by themselves."""
    if not is_graph(member):
        return
    copy = float64_copy(member)
    names = {layer.name: layer for layer in _nodes(member)}
    for node in _nodes(copy):
        if is_graph(node):
            yield from inexact_layers(names[node.name])
        elif not isinstance(node, keras.layers.InputLayer) and not _measure_node(node).exact:
            yield names.get(node.name, node)


def _nodes(model: keras.Model) -> list[Any]:
    """The layers and operations of a model, those of nested models left out."""
    return list(model.layers if isinstance(model, keras.Sequential) else model.operations)


def _with_parts(layers: Sequence[Any]) -> list[Any]:
    return [
        *layers,
        *(part for layer in layers if isinstance(layer, keras.layers.Layer) for part in layers_of(layer)),
    ]


def _measure_node(node: Any) -> Exactness:
    """One layer or operation by itself, with respect to its inputs and weights."""
    try:
        model = keras.Model(node.input, node.output)
        rng = np.random.default_rng(0)
        shapes = [_closed(tensor.shape) for tensor in model.inputs]
        inputs = [tf.Variable(rng.random((_EXAMPLES, *shape)), dtype="float64") for shape in shapes]
        return _measure(model, inputs, [*inputs, *model.trainable_variables])
    except Exception:  # What cannot be told apart is not named.
        return Exactness(0.0)


def _measure(
    model: keras.Model, inputs: Sequence[Any], variables: Sequence[Any], *, graph: bool = False
) -> Exactness:
    """The slope of the model's cosines with respect to variables, some of which may be its inputs."""
    if not variables:
        return Exactness(0.0)
    rng = np.random.default_rng(1)
    fixed = [tf.constant(rng.normal(size=(1, _EXAMPLES, each.shape[1:].num_elements()))) for each in inputs]
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
        value_at(0.0, start)
        slopes = [_as_array(each, middle) for each, middle in zip(slope_of(), start, strict=True)]
    except (
        ArithmeticError,
        LookupError,
        NotImplementedError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        return Exactness(np.inf, f"no second derivative ({_first_line(error)})")
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
    """Mean over inputs and examples of the cosine of a loss's gradient with a fixed direction [1, B, D]."""
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
    flat = [tf.concat([tf.reshape(each, [1, _EXAMPLES, -1]), along], axis=0) for each, along in pairs]
    return tf.add_n([tf.reduce_mean(cosine_similarities(each)) for each in flat]) / len(flat)


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
        if any(abs(difference - other) < error * size / 100 for other in differences):
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


def _closed(shape: Sequence[int | None]) -> list[int]:
    """Sizes of one example, with numbers for those that are left open."""
    return [_OPEN_SIZE if size is None else size for size in shape[1:]]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
