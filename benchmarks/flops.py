"""Multiply-adds of the ideal steps, counted from the layers: the floor under a step's time.

Only convolutions and dense layers count; each layer's forward pass is one unit of F floating-point
operations (2 for a multiply-add). Its other passes, each again one convolution or product of that size:

  cross-entropy step   forward, gradient to the weights, gradient to the input       3 F
  GAL step             forward, gradient to the input (the inner tape), and for each
                       of these two its gradients to both of its operands            6 F
  attack step          forward, gradient to the input                                2 F

In the first layer of a member nothing is needed behind the image: the cross-entropy step saves the
gradient to the input, and so does the outer gradient of the GAL step's forward pass.
"""

import keras

PASSES = {"cross_entropy": (3, 2), "gal": (6, 5), "attack": (2, 2)}


def layer_flops(layer: keras.layers.Layer) -> int:
    """Floating-point operations of a layer's forward pass for one example."""
    if isinstance(layer, keras.layers.Conv2D):
        _, height, width, filters = layer.output.shape
        return (
            2
            * height
            * width
            * filters
            * layer.kernel.shape[0]
            * layer.kernel.shape[1]
            * layer.kernel.shape[2]
        )
    if isinstance(layer, keras.layers.Dense):
        return 2 * layer.kernel.shape[0] * layer.kernel.shape[1]
    return 0


def step_flops(member: keras.Model, step: str) -> int:
    """Floating-point operations of one example's ideal step of a kind in `PASSES`."""
    counts = [flops for flops in map(layer_flops, member.layers) if flops]
    rest, first = PASSES[step]
    return first * counts[0] + rest * sum(counts[1:])
