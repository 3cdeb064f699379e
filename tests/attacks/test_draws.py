"""Whole numbers drawn for images are the same ones where XLA compiles, and those of earlier versions."""

import numpy as np
import pytest
import tensorflow as tf

from divtf.attacks.context import streams
from divtf.ensembles.objectives.dverge import layer_numbers
from divtf.ensembles.objectives.perturbed import image_streams


def images():
    return tf.reshape(tf.range(48.0), [4, 2, 2, 3]) / 50


DRAWS = {
    "streams": lambda: streams(tf.constant(3), tf.range(4)),
    "streams of images": lambda: image_streams(images()),
    "layers": lambda: layer_numbers(images(), 100),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_same_where_xla_compiles(name):
    plain, compiled = (tf.function(DRAWS[name], jit_compile=jit)().numpy() for jit in (False, True))
    assert len(np.unique(plain)) > 2
    np.testing.assert_array_equal(compiled, plain)


def test_layers_are_those_of_earlier_versions():
    """Which left the algorithm to TensorFlow."""
    found = layer_numbers(images(), 100)
    for number, seed in zip(found, image_streams(images()), strict=True):
        assert number == tf.random.stateless_uniform([], seed, 0, 100, tf.int32)
