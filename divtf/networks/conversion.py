"""Copies of members: with layers that are exact to second order, and in float64."""

from collections.abc import Callable
from typing import Any

import keras

from divtf.errors import InputError, require
from divtf.networks import layers as exact
from divtf.networks import resizing
from divtf.runtime.logs import get_logger
from divtf.runtime.private_names import layers_of

_LOG = get_logger(__name__)
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
    heads = _softmax_heads(member)

    def make(layer):
        if layer in heads:
            _LOG.info(f"takes the softmax off member {member.name!r}: it gives logits now")
            return _without_softmax(layer)
        if isinstance(layer, keras.layers.Wrapper):
            return _made_again(layer, layer=keras.saving.serialize_keras_object(make(layer.layer)))
        return _made_again(layer, REPLACEMENTS.get(type(layer)))

    copy = _clone(member, make)
    if within := [layer for layer in layers_of(copy) if type(layer) in REPLACEMENTS]:
        replacements = {f"divtf.{REPLACEMENTS[type(layer)].__name__}" for layer in within}
        raise InputError(
            f"Expected layers that can be replaced from outside. Received: {', '.join(map(_shown, within))} "
            f"of member {member.name!r}, made by the code of a layer or model; use "
            f"{', '.join(sorted(replacements))} there"
        )
    copy.set_weights(member.get_weights())
    return copy


def float64_copy(member: keras.Model) -> keras.Model:
    """A copy of a built member that computes in float64, with weights of its own.

    Raises:
        Exception: of any kind, if its layers cannot be made again from their configurations.
    """

    def make(layer):
        return type(layer).from_config(_in_float64(layer.get_config()))

    if is_graph(member):
        copy = _clone(member, make, dtype="float64")
    else:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float64")
        try:
            copy = _subclass_again(member)
            copy(keras.Input(batch_shape=member.get_build_config()["input_shape"]))
        finally:
            keras.config.set_dtype_policy(before)
    return copy


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


def _softmax_heads(model: keras.Model) -> list[Any]:
    """The layer or operation that gives a model's outputs, if that is a softmax."""
    # Operations come in the order of their computation.
    last = (model.layers if isinstance(model, keras.Sequential) else model.operations)[-1]
    if is_graph(last):
        return _softmax_heads(last)
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    return [last] if softmax or type(last).__name__ == "Softmax" else []


def _without_softmax(head: Any) -> Any:
    if hasattr(head, "activation"):
        return _made_again(head, activation="linear")
    return exact.Logits(name=head.name, dtype=getattr(head, "dtype_policy", None))


def _made_again(original: Any, kind: Any = None, **changes: Any) -> Any:
    """A layer of the same configuration, of another kind if one is given, with some arguments changed.

    Raises:
        InputError: if its configuration cannot be had, or is none of that kind.
    """
    try:
        return (kind or type(original)).from_config(original.get_config() | changes)
    except Exception as error:  # Whatever the layer says; Keras puts that into its own error's last line.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(
            f"Expected layers that can be made again from their get_config(). "
            f"Received: {_shown(original)}: {reason}"
        ) from error


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
