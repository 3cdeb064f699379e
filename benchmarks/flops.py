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

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Passes:
    """How often a step passes a layer: forward, to its input, to its weights; the first one to its input."""

    forward: int
    to_input: int
    to_weights: int
    first_to_input: int


PASSES = {
    "cross_entropy": Passes(1, 1, 1, first_to_input=0),
    "gal": Passes(2, 2, 2, first_to_input=1),
    "attack": Passes(1, 1, 0, first_to_input=1),
}


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
    first, *rest = [flops for flops in map(layer_flops, member.layers) if flops]
    passes = PASSES[step]
    others = passes.forward + passes.to_weights
    return (others + passes.first_to_input) * first + (others + passes.to_input) * sum(rest)
