"""The convolutions and products of a step, each alone: what TensorFlow's kernels leave to be saved.

The floor takes every operation at the machine's best rate. Kernels of small channel counts do not reach it,
and no way of writing the step changes that; these times tell how much of a step they are.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from benchmarks.flops import PASSES, layer_flops
from benchmarks.timing import medians


def kernels(layer: keras.layers.Layer, batch: int) -> dict[str, Callable[[], object]]:
    """The three kernels of a convolution or dense layer, on random tensors, by the pass that takes them."""
    x = tf.random.normal([batch, *layer.input.shape[1:]])
    y = tf.random.normal([batch, *layer.output.shape[1:]])
    weights = tf.convert_to_tensor(layer.kernel)
    if isinstance(layer, keras.layers.Dense):
        calls = {
            "forward": lambda: tf.matmul(x, weights),
            "to_input": lambda: tf.matmul(y, weights, transpose_b=True),
            "to_weights": lambda: tf.matmul(x, y, transpose_a=True),
        }
    else:
        options = {"strides": [1, *layer.strides, 1], "padding": layer.padding.upper()}
        raw = tf.raw_ops
        calls = {
            "forward": lambda: raw.Conv2D(input=x, filter=weights, **options),
            "to_input": lambda: raw.Conv2DBackpropInput(
                input_sizes=x.shape, filter=weights, out_backprop=y, **options
            ),
            "to_weights": lambda: raw.Conv2DBackpropFilter(
                input=x, filter_sizes=weights.shape, out_backprop=y, **options
            ),
        }
    return {kind: tf.function(call) for kind, call in calls.items()}


def kernel_seconds(member: keras.Model, step: str, batch: int, repeats: int) -> float:
    """Seconds of all kernels of one member's step of a kind in `PASSES`."""
    passes, total = PASSES[step], 0.0
    counted = [layer for layer in member.layers if layer_flops(layer)]
    for number, layer in enumerate(counted):
        seconds = medians(kernels(layer, batch), repeats)
        to_input = passes.to_input if number else passes.first_to_input
        total += passes.forward * seconds["forward"] + to_input * seconds["to_input"]
        total += passes.to_weights * seconds["to_weights"]
    return total
