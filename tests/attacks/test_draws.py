"""What is drawn for images is the same where XLA compiles, and that of earlier versions."""

import numpy as np
import pytest
import tensorflow as tf

from divtf.attacks.context import Context, streams
from divtf.attacks.threat import ThreatModel
from divtf.ensembles.objectives.perturbed import image_numbers, image_streams


def images():
    return tf.reshape(tf.range(48.0), [4, 2, 2, 3]) / 50


def context():
    """Of streams below zero, too."""
    own = tf.constant([[3, 1], [-1_197_927_508, 1], [3, -7], [-5, -6]])
    return Context(ThreatModel(0.1), tf.zeros([4], tf.int32), own, 0.1, images(), tf.zeros([4], tf.int32))


DRAWS = {
    "streams": lambda: streams(tf.constant(3), tf.range(4)),
    "folded streams": lambda: context().fold(2).streams,
    "streams of images": lambda: image_streams(images()),
    "layers": lambda: image_numbers(images(), 100),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_same_where_xla_compiles(name):
    plain, compiled = (tf.function(DRAWS[name], jit_compile=jit)().numpy() for jit in (False, True))
    assert len(np.unique(plain)) > 2
    np.testing.assert_array_equal(compiled, plain)


def test_starts_are_the_same_where_xla_compiles():
    """To the last digit, in which it may take a product and a sum at once."""

    def starts():
        return context().fold(2).uniform([5, 3], -0.1, 0.1)

    plain, compiled = (tf.function(starts, jit_compile=jit)().numpy() for jit in (False, True))
    assert np.ptp(plain) > 0.15
    np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-8)


def test_draws_are_made_on_the_cpu():
    """Where the attack runs on a GPU, which each image's small draw would hold up."""

    @tf.function
    def on_gpu():
        with tf.device("GPU:0"):
            return context().fold(2).uniform([5])

    graph = on_gpu.get_concrete_function().graph
    loops = [operation for operation in graph.get_operations() if operation.type.endswith("While")]
    assert len(loops) == 2
    assert all("CPU" in loop.device for loop in loops)


@pytest.mark.parametrize("seed", [0, 7, -3, 2**31 - 1])
def test_streams_are_those_of_earlier_versions(seed):
    """Which folded in each image's number by itself."""
    numbers = [0, 1, 5, 59_999]
    for drawn, number in zip(streams(tf.constant(seed), tf.constant(numbers)), numbers, strict=True):
        folded = tf.random.experimental.stateless_fold_in([seed, 0], number, alg="philox")
        np.testing.assert_array_equal(drawn, folded)


def test_layers_are_those_of_earlier_versions():
    """Which left the algorithm to TensorFlow."""
    found = image_numbers(images(), 100)
    for number, seed in zip(found, image_streams(images()), strict=True):
        assert number == tf.random.stateless_uniform([], seed, 0, 100, tf.int32)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.1, 0.1), (0.63, 1.37)])
def test_uniform_numbers_are_those_of_earlier_versions(low, high):
    """Which took TensorFlow's own; so images that were made before are not made anew."""
    found = context()
    for drawn, stream in zip(found.uniform([7, 3], low, high), found.streams, strict=True):
        np.testing.assert_array_equal(drawn, tf.random.stateless_uniform([7, 3], stream, low, high))
