"""Outputs of layers inside members, for objectives that look into them."""

import weakref
from typing import Any

import keras
import tensorflow as tf

from divtf.errors import require
from divtf.networks.conversion import is_graph

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_WITH_OUTPUTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def weighted_layers(member: Any) -> list[keras.layers.Layer]:
    """Layers of a functional or sequential member with a kernel: convolutions and dense ones, in order.

    Those within a nested model are none of its own.

    Raises:
        InputError: if the member is no graph of layers, or has none of these.
    """
    graph = isinstance(member, keras.Sequential) or is_graph(member)
    require(graph, "functional or sequential members, whose layers can be looked into", f"{member!r:.80}")
    layers = [layer for layer in member.layers if getattr(layer, "kernel", None) is not None]
    require(len(layers) > 0, "members with convolutions or dense layers of their own", f"{member.name}")
    return layers


def first_layers(member: Any, count: int) -> list[keras.layers.Layer]:
    """The first of a member's convolutions; of one without any, of its dense layers, the last one left out.

    Raises:
        InputError: if the member is no graph of layers, or has none of these.
    """
    layers = weighted_layers(member)
    convolutions = [layer for layer in layers if isinstance(layer, _CONVOLUTIONS)]
    # The last one gives the logits, in which members should agree; where there is no other, it has to do.
    return (convolutions or layers[:-1] or layers)[:count]


def with_outputs(member: keras.Model) -> keras.Model:
    """A model with the member's variables, from images to the outputs of its `weighted_layers` and its own.

    Made once for a member. A layer that it calls several times gives its first output.
    """
    if member not in _WITH_OUTPUTS:
        outputs: dict[Any, Any] = {}

        def called(layer, *args, **kwargs):
            output = layer(*args, **kwargs)
            outputs.setdefault(layer, output)
            return output

        # Called anew: a layer's own `output` is that of its first call, which may be of another model, or of
        # the same one while it was put together. Keras would clone how a member was compiled, too.
        graph = keras.Model(member.inputs, member.outputs)
        again = keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=called)
        looked_at = [outputs[layer] for layer in weighted_layers(member)]
        _WITH_OUTPUTS[member] = keras.Model(again.inputs[0], [*looked_at, again.outputs[0]])
    return _WITH_OUTPUTS[member]


def as_rows(output: tf.Tensor) -> tf.Tensor:
    """A layer's output of a batch, [B, ...], as [B, values]."""
    return tf.reshape(output, [tf.shape(output)[0], -1])
