"""Batch normalisation's written-out derivatives, against automatic differentiation of its definition."""

import numpy as np
import pytest
import tensorflow as tf

from divtf.networks.normalization import batch_normalize

EPSILON = 1e-2
TYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-10), ("float32", 3e-5)], ids=["float64", "float32"]
)


def by_definition(x, gamma, beta):
    """Moments as plain means, which automatic differentiation takes rightly to any order."""
    mean = tf.reduce_mean(x, (0, 1, 2))
    variance = tf.reduce_mean((x - mean) ** 2, (0, 1, 2))
    return (x - mean) / tf.sqrt(variance + EPSILON) * gamma + beta


def ours(x, gamma, beta):
    return batch_normalize(x, gamma, beta, EPSILON)[0]


def draw(rng, dtype, shape=(6, 4, 3, 5)):
    """x, gamma, beta, the weights of y in the loss, and those of its first derivatives."""
    shapes = {"x": shape, "gamma": shape[-1:], "beta": shape[-1:], "d": shape, "v": shape}
    values = {name: rng.normal(0.5, 1, size) for name, size in shapes.items()} | {
        "p": rng.normal(size=shape[-1]),
        "q": rng.normal(size=shape[-1]),
    }
    return {name: tf.constant(value, dtype) for name, value in values.items()}


def derivatives(normalize, given, *, only_x):
    """y, the first derivatives of sum(d y^2), and the derivatives of their weighted sum."""
    x, gamma, beta, d = (given[name] for name in ("x", "gamma", "beta", "d"))
    with tf.GradientTape() as outer:
        outer.watch([x, gamma, beta])
        with tf.GradientTape() as inner:
            inner.watch([x, gamma, beta])
            y = normalize(x, gamma, beta)
            loss = tf.reduce_sum(d * y**2)
        first = inner.gradient(loss, [x] if only_x else [x, gamma, beta])
        weights = [given["v"]] if only_x else [given["v"], given["p"], given["q"]]
        total = tf.add_n([tf.reduce_sum(w * g) for w, g in zip(weights, first, strict=True)])
    return [y, *first, *outer.gradient(total, [x, gamma, beta])]


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=tolerance * scale, rtol=tolerance)


@TYPES
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("only_x", [True, False], ids=["gradient to x", "all gradients"])
def test_both_derivatives_are_those_of_the_definition(dtype, tolerance, graph, only_x, rng):
    """Float32 takes TensorFlow's kernels, float64 plain sums: each is held to the float64 definition."""
    given = draw(rng, dtype)

    def compute():
        return derivatives(ours, given, only_x=only_x)

    found = (tf.function(compute) if graph else compute)()
    exact = {name: tf.cast(value, tf.float64) for name, value in given.items()}
    assert_close(found, derivatives(by_definition, exact, only_x=only_x), tolerance)


@TYPES
def test_moments_are_the_batchs_and_constant(dtype, tolerance, rng):
    given = draw(rng, dtype)
    x, gamma, beta = given["x"], given["gamma"], given["beta"]
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, mean, variance = batch_normalize(x, gamma, beta, EPSILON)
    np.testing.assert_allclose(mean, x.numpy().mean(axis=(0, 1, 2)), rtol=1e-4, atol=tolerance)
    np.testing.assert_allclose(variance, x.numpy().var(axis=(0, 1, 2)), rtol=1e-4)
    assert tape.gradient([mean, variance], x) is None


@TYPES
def test_a_constant_channel_and_a_single_value_stay_finite(dtype, tolerance, rng):
    for shape in ((1, 1, 1, 5), (6, 4, 3, 5)):
        given = draw(rng, dtype, shape) | {"x": tf.ones(shape, dtype)}
        for value in derivatives(ours, given, only_x=False):
            assert np.isfinite(value).all()
        np.testing.assert_array_equal(batch_normalize(given["x"], given["gamma"], given["beta"], 1e-3)[2], 0)


def test_the_kernels_keep_their_digits_where_the_mean_is_far_from_zero(rng):
    """Mean 100, deviation 1: a variance as E[x^2] - E[x]^2 would keep 3 digits of 7."""
    given = draw(rng, "float64")
    given["x"] += 100
    single = {name: tf.cast(value, tf.float32) for name, value in given.items()}
    exact = {name: tf.cast(value, tf.float64) for name, value in single.items()}
    found = derivatives(ours, single, only_x=True)
    assert_close(found, derivatives(by_definition, exact, only_x=True), 1e-3)
