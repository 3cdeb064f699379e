"""Which members GAL can be minimised on: those whose second-order gradients are exact."""

from typing import Any

import keras

from divtf.errors import InputError
from divtf.networks.layers import BatchNormalization
from divtf.runtime.private_names import layers_of

# Found with finite differences in float64; a test holds each of the layers to being wrong.
_WRONG_TO_SECOND_ORDER = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)
# The same in keras.ops, whose operations have no public classes.
_WRONG_OPERATIONS = ("LayerNorm", "Moments")


def flat_operations(member: keras.Model) -> list[Any]:
    """All layers of a model and all its operations of keras.ops, those of nested models included."""
    nodes: list[Any] = layers_of(member)
    for model in [member, *(layer for layer in nodes if isinstance(layer, keras.Model))]:
        nodes += [node for node in getattr(model, "operations", ()) if node not in nodes]
    return nodes


def wrong_to_second_order(member: keras.Model) -> list[Any]:
    """Layers and operations of the member whose second-order gradients are known to be wrong.

    These are the normalisations that take a variance about a mean held constant.
    """
    return [
        node
        for node in flat_operations(member)
        if (isinstance(node, _WRONG_TO_SECOND_ORDER) and not isinstance(node, BatchNormalization))
        or type(node).__name__ in _WRONG_OPERATIONS
    ]


def convert_member(member: keras.Model) -> keras.Model:
    """A copy of a functional member in which Keras's BatchNormalization is replaced by divtf's.

    Weights and names are kept; the member itself is left alone.

    Raises:
        InputError: if the member contains a layer that is wrong to second order and has no
            replacement here.
    """

    def replace(layer):
        config = layer.get_config()
        if type(layer) is keras.layers.BatchNormalization and not (layer.synchronized or layer.renorm):
            return BatchNormalization.from_config(config)
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(member, clone_function=replace, recursive=True)
    copy.set_weights(member.get_weights())
    if remaining := wrong_to_second_order(copy):
        raise InputError(
            f"Expected layers that divtf can replace: BatchNormalization that is not synchronized and has "
            f"no renorm. Received: {_names(remaining)}"
        )
    return copy


def require_exact_to_second_order(member: keras.Model) -> None:
    """Refuse a member on which GAL would be minimised along a wrong gradient.

    Raises:
        InputError: names the layers and what to do.
    """
    if wrong := wrong_to_second_order(member):
        raise InputError(
            f"Expected members whose layers are exact to second order, as GAL's gradient needs. "
            f"Received: member {member.name!r} with {_names(wrong)}; use divtf.BatchNormalization, or "
            f"divtf.convert_member(member)"
        )


def _names(layers):
    return ", ".join(f"{type(layer).__name__} {layer.name!r}" for layer in layers)
