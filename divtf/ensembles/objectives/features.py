"""Outputs of layers inside members, for objectives that look into them."""

import weakref
from typing import Any

import keras
import tensorflow as tf

from divtf.errors import require
from divtf.networks.conversion import is_graph, random_images, require_same
from divtf.runtime.private_names import layers_of

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_WITH_OUTPUTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def weighted_layers(member: Any) -> list[keras.layers.Layer]:
    """Layers of a functional or sequential member with a kernel: convolutions and dense ones, in order.

    Those of models nested in it are among them; what a layer keeps within itself is not.

    Raises:
        InputError: if the member, or a nested model with such layers, is no graph of layers from one input to
            one output, or there are none.
    """
    layers = _weighted_layers(member)
    require(len(layers) > 0, "members with convolutions or dense layers of their own", f"{member.name}")
    return layers


def _weighted_layers(model: Any) -> list[keras.layers.Layer]:
    graph = is_graph(model) and len(model.inputs) == len(model.outputs) == 1
    require(
        graph or isinstance(model, keras.Sequential),
        "functional or sequential members, and models nested in them, of one input and output, whose layers "
        "can be looked into",
        f"{model!r:.80}",
    )
    found: dict[Any, None] = {}  # Of each once, in order.
    for layer in model.layers:
        if _looked_into(layer):
            found |= dict.fromkeys(_weighted_layers(layer))
        elif _has_kernel(layer):
            found[layer] = None
    return list(found)


def _looked_into(layer: Any) -> bool:
    """Whether a layer is a model with layers that have kernels."""
    return isinstance(layer, keras.Model) and any(map(_has_kernel, layers_of(layer)))


def _has_kernel(layer: Any) -> bool:
    return any(getattr(layer, name, None) is not None for name in ("kernel", "pointwise_kernel"))


def require_looked_into(member: keras.Model) -> None:
    """Refuse a member that one cannot look into, or that computes something else than its layers do.

    Raises:
        InputError: says why.
    """
    weighted_layers(member)
    images = random_images(member.inputs[0].shape)
    *_, outputs = with_outputs(member)(images, training=False)
    require_same(outputs, member, member(images, training=False))


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

    Made once for a member, and for each model nested in it. A layer that is called several times gives its
    first output.
    """
    if member not in _WITH_OUTPUTS:
        outputs: dict[Any, Any] = {}

        def called(layer, *args, **kwargs):
            if _looked_into(layer):
                *found, output = with_outputs(layer)(*args, **kwargs)
                of_layers = list(zip(weighted_layers(layer), found, strict=True))
            else:
                output = layer(*args, **kwargs)
                of_layers = [(layer, output)]
            for part, given in of_layers:
                outputs.setdefault(part, given)
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
