"""Outputs of layers inside members, for objectives that look into them."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.errors import InputError, require


def weighted_layers(member: Any) -> list[keras.layers.Layer]:
    """Layers of a functional or sequential member with a kernel: convolutions and dense ones, in order.

    Those within a nested model are none of its own.

    Raises:
        InputError: if the member is no graph of layers, or has none of these.
    """
    graph = isinstance(member, keras.Sequential) or (
        isinstance(member, keras.Model) and type(member) is not keras.Model and hasattr(member, "operations")
    )
    require(graph, "functional or sequential members, whose layers can be looked into", f"{member!r:.80}")
    layers = [layer for layer in member.layers if getattr(layer, "kernel", None) is not None]
    require(len(layers) > 0, "members with convolutions or dense layers of their own", f"{member.name}")
    return layers


def with_outputs(member: keras.Model, layers: Sequence[keras.layers.Layer]) -> Callable[..., list[tf.Tensor]]:
    """A function from images to the layers' outputs and then the member's, with the member's variables.

    Raises:
        InputError: if the layers were called in another model first: Keras gives their outputs there.
    """
    outputs = [*(layer.output for layer in layers), member.outputs[0]]
    try:
        return keras.Model(member.inputs[0], outputs)
    except ValueError as error:
        raise InputError(
            "Expected members whose layers were made for them; divtf.convert_member(member) makes layers of "
            f"its own. Received: {member.name}, with layers of another model"
        ) from error


def as_rows(output: tf.Tensor) -> tf.Tensor:
    """A layer's output of a batch, [B, ...], as [B, values]."""
    return tf.reshape(output, [tf.shape(output)[0], -1])
