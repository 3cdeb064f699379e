"""Copies of members: with layers that are exact to second order, and in float64."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.errors import InputError, require
from divtf.networks import layers as exact
from divtf.networks import resizing
from divtf.runtime.logs import get_logger
from divtf.runtime.private_names import layers_of

_LOG = get_logger(__name__)
# The largest scale by which a layer is taken to bring bytes to the size of 1, and the largest mean of images
# that are of that size.
_OF_BYTES = 0.01
_OF_UNIT_IMAGES = 2.0
# What Keras differentiates wrongly to second order, or not at all, and what to use in its place.
REPLACEMENTS: dict[type, Any] = {
    keras.layers.BatchNormalization: exact.BatchNormalization,
    keras.layers.GroupNormalization: exact.GroupNormalization,
    keras.layers.LayerNormalization: exact.LayerNormalization,
    keras.layers.Resizing: resizing.Resizing,
    keras.layers.UpSampling2D: resizing.UpSampling2D,
}


def convert_member(member: keras.Model) -> keras.Model:
    """A copy of a Functional or Sequential member that an Ensemble can train with GAL.

    Normalisations and resizings of Keras are replaced by divtf's, those of nested models too, and a softmax
    at the end is taken off, which is logged. Weights, names and dtype policies are kept; the member itself is
    left alone. Other layers are copied as they are: the Ensemble measures what they do.

    Raises:
        InputError: if the member cannot be copied layer by layer, or a layer of its own makes layers that
            would have to be replaced.
    """
    require(is_graph(member), "a Functional or Sequential model", f"{_shown(member)}")
    heads = softmax_heads(member)

    def make(layer):
        if layer in heads:
            _LOG.info(f"takes the softmax off member {member.name!r}: it gives logits now")
            return _without_softmax(layer)
        return _made_again(layer, REPLACEMENTS[type(layer)] if is_replaced(layer) else type(layer))

    copy = _clone(member, make)
    if within := [layer for layer in layers_of(copy) if is_replaced(layer)]:
        replacements = {f"divtf.{REPLACEMENTS[type(layer)].__name__}" for layer in within}
        raise InputError(
            f"Expected layers that can be replaced from outside. Received: {', '.join(map(_shown, within))} "
            f"of member {member.name!r}, made by the code of a layer or model; use "
            f"{', '.join(sorted(replacements))} there"
        )
    give_weights(copy, member.get_weights())
    images = random_images(member.inputs[0].shape)
    outputs = copy(images, training=False)
    require_same(tf.nn.softmax(outputs) if heads else outputs, member, member(images, training=False))
    return copy


def is_replaced(layer: Any) -> bool:
    """Whether `convert_member` puts another layer in a layer's place."""
    # To repeat rows and columns is exact.
    repeats = type(layer) is keras.layers.UpSampling2D and layer.interpolation == "nearest"
    return type(layer) in REPLACEMENTS and not repeats


def give_weights(copy: keras.Model, weights: Sequence[np.ndarray]) -> None:
    """Set a copy's weights, and what its layers keep that follows from them."""
    copy.set_weights(weights)
    for layer in layers_of(copy):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def takes_bytes(model: keras.Model) -> bool:
    """Whether a model brings images of 0..255 to its own range by itself, before any layer of weights.

    As by Rescaling(1 / 255), or by a Normalization whose mean is that of bytes.
    """
    for layer in _in_order(model):
        if isinstance(layer, keras.layers.Rescaling):
            return float(np.abs(layer.scale).max()) <= _OF_BYTES
        if isinstance(layer, keras.layers.Normalization):
            return layer.mean is not None and float(np.abs(layer.mean).max()) > _OF_UNIT_IMAGES
        if layer.weights:
            return False
    return False


def _in_order(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of those nested in it, the first ones first."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _in_order(layer)
        else:
            yield layer


def random_images(input_shape: Sequence[int | None], count: int = 4) -> tf.Tensor:
    """Images of a shape [batch, ...], uniform in [0, 1), the same ones each time; open sizes are 32."""
    shape = [32 if size is None else size for size in input_shape[1:]]
    return tf.constant(np.random.default_rng(0).random((count, *shape)), tf.float32)


def require_same(outputs: Any, member: keras.Model, expected: Any) -> None:
    """Refuse a copy that computes something else than its member: its code may not be in its layers.

    Args:
        outputs: what the copy gives some images.
        member: what was copied.
        expected: what the member gives them.

    Raises:
        InputError: if they differ by more than rounding.
    """
    found, expected = (tf.cast(each, tf.float64).numpy() for each in (outputs, expected))
    narrow = any(layer.compute_dtype == "bfloat16" for layer in layers_of(member))
    off = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
    require(
        bool(off <= (0.1 if narrow else 1e-3) * np.abs(expected).max()),
        "a member that its layers and their configurations tell all of, or check=False",
        f"{_shown(member)}, whose layers put together anew give other outputs, off by {off:.1g}",
    )


def float64_copy(member: keras.Model) -> keras.Model:
    """A copy of a built member that computes in float64, with weights of its own.

    Raises:
        Exception: of any kind, if its layers cannot be made again from their configurations.
    """

    def make(layer):
        return _made_again(layer, type(layer), precise=True)

    before = keras.config.dtype_policy()
    # For layers that others make in their own code.
    keras.config.set_dtype_policy("float64")
    try:
        if is_graph(member):
            return _clone(member, make, dtype="float64")
        copy = _subclass_again(member)
        copy(keras.Input(batch_shape=member.get_build_config()["input_shape"]))
        return copy
    finally:
        keras.config.set_dtype_policy(before)


def _subclass_again(model: keras.Model) -> keras.Model:
    """A new model of a subclass; one that says nothing of its arguments may have none."""
    try:
        return type(model).from_config(_in_float64(model.get_config()))
    except (NotImplementedError, TypeError):
        return type(model)()


def is_graph(model: Any) -> bool:
    """Whether a model is Functional or Sequential, and built: its layers and their wiring are known."""
    if isinstance(model, keras.Sequential):
        return model.built
    return isinstance(model, keras.Model) and hasattr(model, "operations")


def parts_of(model: keras.Model) -> list[Any]:
    """All layers of a model and all its operations of keras.ops, those of nested models included."""
    parts: list[Any] = layers_of(model)
    for graph in [model, *parts]:
        parts += [part for part in getattr(graph, "operations", ()) if part not in parts]
    return parts


def _clone(
    model: keras.Model,
    make: Callable[[Any], Any],
    dtype: str | None = None,
    copies: dict[int, Any] | None = None,
) -> keras.Model:
    """A copy of a model without its weights: all layers, of nested models too, are made anew by `make`.

    Args:
        model: Functional or Sequential.
        make: from a layer to its copy.
        dtype: of the inputs; None is that of the model's.
        copies: of layers that were made before, by identity: a layer may be in several of the models.
    """
    copies = {} if copies is None else copies

    def copy(layer):
        if id(layer) not in copies:
            copies[id(layer)] = copy_anew(layer)
        return copies[id(layer)]

    def copy_anew(layer):
        if is_graph(layer):
            return _clone(layer, make, dtype, copies)
        if isinstance(layer, keras.layers.Wrapper):
            config = _config_of(layer, precise=dtype is not None)
            return type(layer)(copy(layer.layer), **{key: config[key] for key in config if key != "layer"})
        if type(layer) is keras.layers.Lambda:  # Keras makes none from a configuration: it may bring code.
            dtype_policy = dtype or layer.dtype_policy
            return keras.layers.Lambda(
                layer.function, arguments=layer.arguments, name=layer.name, dtype=dtype_policy
            )
        return make(layer)

    entries = [part for part in parts_of(model) if isinstance(part, keras.layers.InputLayer)]
    names = {id(entry.output): entry.name for entry in entries}
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape, dtype=dtype or tensor.dtype, name=names.get(id(tensor))
        ),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )
    if isinstance(model, keras.Sequential):
        return keras.Sequential(
            [inputs, *map(copy, model.layers)], name=model.name, trainable=model.trainable
        )
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=copy)


def softmax_heads(model: keras.Model) -> list[Any]:
    """The layer or operation that gives a model's outputs, if that is a softmax."""
    # Operations come in the order of their computation.
    last = (model.layers if isinstance(model, keras.Sequential) else model.operations)[-1]
    if is_graph(last):
        return softmax_heads(last)
    softmax = getattr(last, "activation", None) in (keras.activations.softmax, tf.nn.softmax)
    return [last] if softmax or type(last).__name__ == "Softmax" else []


def _without_softmax(head: Any) -> Any:
    if hasattr(head, "activation"):
        return _made_again(head, type(head), activation="linear")
    return exact.Logits(name=head.name, dtype=getattr(head, "dtype_policy", None))


def _made_again(layer: Any, kind: Any, *, precise: bool = False, **changes: Any) -> Any:
    """A layer of the same configuration, of a kind that takes it, with some arguments changed.

    Args:
        layer: made again.
        kind: its class, or another one.
        precise: whether to compute in float64.
        **changes: arguments that are others.

    Raises:
        InputError: if its configuration cannot be had, or is none of that kind.
    """
    try:
        return kind.from_config(_config_of(layer, precise=precise) | changes)
    except Exception as error:  # Whatever the layer says; Keras puts that into its own error's last line.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(
            f"Expected layers that can be made again from their get_config(). "
            f"Received: {_shown(layer)}: {reason:.200}"
        ) from error


def _config_of(layer: Any, *, precise: bool) -> dict[str, Any]:
    """A layer's configuration, with its own functions in it: Keras may not find them again."""
    with warnings.catch_warnings(category=UserWarning, action="ignore"):
        config = layer.get_config()  # It warns of saving a lambda: nothing is saved.
    functions = {key: value for key in config if callable(value := getattr(layer, key, None))}
    functions = {key: value for key, value in functions.items() if not isinstance(value, keras.layers.Layer)}
    return (_in_float64(config) if precise else config) | functions


def _in_float64(config: Any) -> Any:
    """A layer's configuration with float64 in place of every floating type, those of layers within too."""
    if isinstance(config, dict):
        return {
            key: _precise(value) if key == "dtype" else _in_float64(value) for key, value in config.items()
        }
    return [_in_float64(value) for value in config] if isinstance(config, list) else config


def _precise(dtype: Any) -> Any:
    whole = isinstance(dtype, str) and ("int" in dtype or dtype in ("bool", "string"))
    return dtype if whole else "float64"


def _shown(layer: Any) -> str:
    return f"{type(layer).__name__} {getattr(layer, 'name', '')!r}"
