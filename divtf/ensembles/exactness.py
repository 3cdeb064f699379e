"""Whether a member's gradients are exact to second order, as the gradient of GAL needs them: by measuring.

What TensorFlow and Keras differentiate wrongly is in no list, and layers of a user's own are in none either.
So GAL of the member and a fixed direction is differentiated with respect to the member's weights as in
training, and compared with differences of its values, both in float64, where differences are sharp.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.slopes import EXAMPLES, Exactness, compare
from divtf.errors import InputError, first_line
from divtf.networks.conversion import (
    float64_copy,
    give_weights,
    is_graph,
    is_replaced,
    parts_of,
    random_images,
    require_same,
)

# So many layers are named in an error.
_NAMED = 3
# Images for a layer that may change few of them, and values of these images in all, at most.
_MANY, _VALUES = 100, 5_000_000
# Layers of members that were measured and found to be exact.
_EXACT: set[str] = set()


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
    images = random_images(input_shape, _examples(member))
    outputs = member(images, training=False)
    return _apart(_measure_copy, member, member.get_weights(), images, outputs, graph)


def _examples(model: keras.Model) -> int:
    """To how many images a model is given: more where chance may leave each as it is (RandomPerspective)."""
    return 3 * EXAMPLES if _draws(model) else EXAMPLES


def _draws(layer: Any) -> bool:
    return any("seed_generator" in v.path for v in getattr(layer, "non_trainable_variables", ()))


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, run in a thread of its own.

    The caller may be in a strategy's scope, under a tape or in a graph, where a copy's variables would be
    others, and tapes record more or nothing.
    """
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def _measure_copy(
    member: keras.Model, weights: Sequence[np.ndarray], images: tf.Tensor, outputs: tf.Tensor, graph: bool
) -> Exactness:
    images = tf.cast(images, tf.float64)
    try:
        copy = float64_copy(member)
        give_weights(copy, weights)
        found = copy(images, training=False)
    except Exception as error:  # Whatever the user's layers say.
        raise InputError(
            f"Expected a member that can be copied in float64, to be measured, or check=False. "
            f"Received: member {member.name!r}: {first_line(error):.200}"
        ) from error
    require_same(found, member, outputs)
    return compare(copy, [images], copy.trainable_variables, graph=graph)


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
    sources = [type(member), *map(type, parts), *itertools.chain(*map(_functions_of, parts))]
    known = all(source.__module__.startswith(("keras.", "divtf.")) for source in sources)
    if not is_graph(member) or not known or keras.layers.Lambda in sources:
        return ""
    return str([(type(part), _without_names(part.get_config())) for part in parts])


def _functions_of(part: Any) -> list[Any]:
    """The activations of a layer, which may be anybody's; those that are objects by their classes."""
    values = [getattr(part, name, None) for name in ("activation", "recurrent_activation")]
    return [value if hasattr(value, "__module__") else type(value) for value in values if value is not None]


def _without_names(config: Any) -> Any:
    """A configuration without the names of layers and the seeds of what is drawn."""
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key not in ("name", "seed")}
    return list(map(_without_names, config)) if isinstance(config, list | tuple) else config


def _require_exact(member: keras.Model, input_shape: Sequence[int | None]) -> None:
    found = measure(member, input_shape)
    # What changes few images may have changed none of these.
    seldom = found.exact and _draws(member)
    layers = []
    if seldom or not found.exact:
        layers = _apart(lambda: list(itertools.islice(inexact_layers(member, drawing=seldom), _NAMED + 1)))
    if found.exact and not layers:
        return
    slope = "is off now and then" if found.exact else f"is off by {found.error:.1g} of its size"
    what = found.reason or f"a slope of GAL that {slope}"
    names = [f"{type(layer).__name__} {layer.name!r}" for layer in layers[:_NAMED]]
    where = f" in {', '.join(names)}{' and others' if len(layers) > _NAMED else ''}" if layers else ""
    advice = "; divtf.convert_member(member) replaces it" if any(map(_is_converted, layers)) else ""
    raise InputError(
        f"Expected members whose gradients are exact to second order, as GAL's gradient needs. "
        f"Received: member {member.name!r} with {what}{where}{advice}"
    )


def inexact_layers(member: keras.Model, *, drawing: bool = False) -> Iterator[Any]:
    """The layers and operations of a Functional or Sequential member that are not exact by themselves.

    Args:
        member: stays as it is.
        drawing: whether to look at layers that draw random numbers alone, and those at many images.
    """
    if not is_graph(member):
        return
    copy = float64_copy(member)
    names = {layer.name: layer for layer in _nodes(member)}
    for node in _nodes(copy):
        if is_graph(node):
            yield from inexact_layers(names[node.name], drawing=drawing)
        elif isinstance(node, keras.layers.InputLayer) or (drawing and not _draws(node)):
            continue
        elif not _measure_node(node, many=drawing).exact:
            yield names.get(node.name, node)


def _nodes(model: keras.Model) -> list[Any]:
    """The layers and operations of a model, those of nested models left out."""
    return list(model.layers if isinstance(model, keras.Sequential) else model.operations)


def _is_converted(layer: Any) -> bool:
    return is_replaced(layer.layer if isinstance(layer, keras.layers.Wrapper) else layer)


def _measure_node(node: Any, *, many: bool) -> Exactness:
    """One layer or operation by itself, with respect to its inputs and weights."""
    try:
        model = keras.Model(node.input, node.output)
        values = sum(math.prod(size or 1 for size in tensor.shape) for tensor in model.inputs)
        count = max(_examples(model), min(_MANY, _VALUES // values) if many else 0)
        images = [random_images(tensor.shape, count) for tensor in model.inputs]
        inputs = [tf.Variable(tf.cast(each, tf.float64)) for each in images]
        return compare(model, inputs, [*inputs, *model.trainable_variables])
    except Exception:  # What cannot be told apart is not named.
        return Exactness(0.0)
