"""Equations 6, 7 and 8 against float64 twins, at their bounds, and at the ends of the number range."""

import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from divtf import InputError, coherence, cosine_similarities, gradient_alignment_loss, input_gradients


def linear_members(weights, biases=0.0, dtype=tf.float64):
    """Callables z = x W_n + b_n on flattened images, with W_n as tf.Variable; also their twins."""
    biases = np.broadcast_to(biases, (len(weights), weights[0].shape[-1]))
    twins = [reference.Linear(w.astype("float64"), b) for w, b in zip(weights, biases, strict=True)]
    variables = [tf.Variable(w, dtype=dtype) for w in weights]

    def member(variable, bias):
        def call(x, training=False):
            return tf.reshape(x, [tf.shape(x)[0], -1]) @ variable + tf.cast(bias, dtype)

        return call

    return [member(v, b) for v, b in zip(variables, biases, strict=True)], variables, twins


def regular_simplex(n):
    """n unit vectors in n dimensions whose pairwise cosines are all -1/(n-1)."""
    corners = np.eye(n) - 1 / n
    return corners / np.linalg.norm(corners, axis=-1, keepdims=True)


def test_cosines_coherence_and_gal_equal_the_float64_twin(rng):
    gradients = rng.normal(size=(5, 7, 11))
    np.testing.assert_allclose(
        cosine_similarities(gradients), reference.cosine_similarities(gradients), rtol=1e-13, atol=1e-14
    )
    np.testing.assert_allclose(coherence(gradients), reference.coherence(gradients), rtol=1e-13)
    np.testing.assert_allclose(gradient_alignment_loss(gradients), reference.gal(gradients), rtol=1e-13)


def test_float32_agrees_with_the_float64_twin_to_float32_rounding(rng):
    gradients = rng.normal(size=(5, 7, 784)).astype("float32")
    found = gradient_alignment_loss(gradients)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, reference.gal(gradients), rtol=1e-6)


def test_pairs_come_in_row_order():
    # Angles 0, 60, 90 and 180 degrees: every pair's cosine tells which pair it is.
    angles = np.radians([0, 60, 90, 180])
    gradients = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:, None, :]
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = [math.cos(angles[b] - angles[a]) for a, b in pairs]
    np.testing.assert_allclose(cosine_similarities(gradients), [expected], atol=1e-15)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_gal_of_identical_orthogonal_and_simplex_gradients_is_the_analytic_bound(n, rng):
    pairs = n * (n - 1) / 2
    identical = np.repeat(rng.normal(size=(1, 1, 8)), n, axis=0)
    orthogonal = np.eye(n, 8)[:, None, :] * rng.uniform(0.1, 10, size=(n, 1, 1))
    simplex = regular_simplex(n)[:, None, :]
    for gradients, cosine in ((identical, 1.0), (orthogonal, 0.0), (simplex, -1 / (n - 1))):
        np.testing.assert_allclose(coherence(gradients), [cosine], atol=1e-14)
        np.testing.assert_allclose(gradient_alignment_loss(gradients), [math.log(pairs) + cosine], atol=1e-14)


def test_range_of_gal_for_the_papers_five_members():
    found = [
        float(gradient_alignment_loss(gradients[:, None, :])[0])
        for gradients in (np.ones((5, 5)), np.eye(5), regular_simplex(5))
    ]
    np.testing.assert_allclose(found, [3.303, 2.303, 2.053], atol=5e-4)


def test_no_gradients_have_a_gal_below_the_regular_simplex(rng):
    # sum_{a<b} cos = (|sum of units|^2 - N) / 2 >= -N/2, and exp is convex (Jensen).
    gradients = rng.normal(size=(5, 1000, 4))
    assert tf.reduce_min(gradient_alignment_loss(gradients)) >= math.log(10) - 1 / 4


def test_cosines_do_not_depend_on_the_scale_of_the_gradients(rng):
    gradients = rng.normal(size=(4, 3, 9))
    scales = 10.0 ** rng.uniform(-20, 20, size=(4, 3, 1))
    np.testing.assert_allclose(
        cosine_similarities(gradients * scales), reference.cosine_similarities(gradients), atol=1e-14
    )


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-40, 1.2e-38, 1e-30, 1e-12, 1e12, 1e30, 3e38])
@pytest.mark.parametrize("which", ["every", "one"])
def test_gradients_of_any_float32_scale_give_finite_values_and_derivatives(scale, which, rng):
    """1e-44 and 1e-40 are denormal numbers; 3e38 is next to the largest."""
    directions = rng.uniform(-1, 1, size=(3, 4, 6))
    scales = np.full((3, 1, 1), scale) if which == "every" else np.array([scale, 1.0, 1.0])[:, None, None]
    gradients = tf.Variable(directions * scales, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = gradient_alignment_loss(gradients)
    derivative = tape.gradient(value, gradients)
    assert np.isfinite(value).all() and np.isfinite(derivative).all()
    assert (np.abs(cosine_similarities(gradients)) <= 1 + 1e-6).all()
    if 1e-30 <= scale <= 1e30:
        np.testing.assert_allclose(value, reference.gal(directions), rtol=1e-6)


def test_the_cosine_with_a_zero_gradient_is_zero(rng):
    gradients = rng.normal(size=(3, 2, 5))
    gradients[1] = 0
    cosines = cosine_similarities(gradients).numpy()
    np.testing.assert_array_equal(cosines[:, [0, 2]], 0)
    np.testing.assert_allclose(cosines[:, 1], reference.cosine_similarities(gradients[[0, 2]])[:, 0])


@pytest.mark.parametrize("function", [cosine_similarities, coherence, gradient_alignment_loss])
def test_fewer_than_two_members_have_no_alignment(function):
    with pytest.raises(InputError, match=r"N >= 2.*\(1, 4, 3\)"):
        function(tf.ones([1, 4, 3]))


def test_derivative_of_gal_equals_finite_differences(rng):
    point = rng.normal(size=(4, 2, 5))
    gradients = tf.Variable(point)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(gradient_alignment_loss(gradients))
    expected = reference.numeric_gradient(lambda: reference.gal(point).sum(), point)
    np.testing.assert_allclose(tape.gradient(total, gradients), expected, atol=1e-10)


def test_input_gradients_of_linear_members_are_the_closed_form(rng):
    weights = [rng.normal(size=(12, 4)) for _ in range(3)]
    members, _, twins = linear_members(weights, rng.normal(size=(3, 4)))
    x, y = rng.random((6, 2, 3, 2)), rng.integers(4, size=6)
    logits, losses, gradients = input_gradients(members, tf.constant(x), tf.constant(y))
    assert (logits.shape, losses.shape, gradients.shape) == ((3, 6, 4), (3, 6), (3, 6, 12))
    for n, twin in enumerate(twins):
        np.testing.assert_allclose(logits[n], twin.logits(x), rtol=1e-12)
        np.testing.assert_allclose(losses[n], reference.cross_entropy(twin.logits(x), y), rtol=1e-12)
        np.testing.assert_allclose(gradients[n], twin.input_gradient(x, y), rtol=1e-11, atol=1e-13)


def test_input_gradients_of_a_hidden_layer_are_the_closed_form(rng):
    twin = reference.Mlp(
        rng.normal(size=(9, 5)), rng.normal(size=5), rng.normal(size=(5, 3)), rng.normal(size=3)
    )

    def member(x, training=False):
        hidden = tf.tanh(tf.reshape(x, [-1, 9]) @ twin.weight1 + twin.bias1)
        return hidden @ twin.weight2 + twin.bias2

    x, y = rng.random((4, 3, 3, 1)), rng.integers(3, size=4)
    _, _, gradients = input_gradients([member], tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(gradients[0], twin.input_gradient(x, y), rtol=1e-11, atol=1e-13)


def test_input_gradients_of_convolutional_members_equal_central_differences(tiny_members, tiny_batch):
    members = tiny_members(2, dtype="float64")
    x, y = tiny_batch(3)
    x = x.astype("float64")
    _, _, gradients = input_gradients(members, tf.constant(x), tf.constant(y))
    for member, gradient in zip(members, gradients, strict=True):
        # A short step, so that no LeakyReLU and no maximum changes sides.
        expected = reference.numeric_gradient(
            lambda member=member: reference.cross_entropy(member(x).numpy(), y).sum(), x, step=1e-6
        )
        np.testing.assert_allclose(gradient, expected.reshape(3, -1), atol=1e-8)


def test_losses_equal_sparse_cross_entropy_in_float64_however_confident(rng):
    logits = rng.normal(size=(2, 50, 10)) * 10.0 ** rng.uniform(-3, 2, size=(2, 50, 1))
    y = rng.integers(10, size=50)
    members = [lambda x, training, own=own: tf.constant(own) + 0 * x[:, :1] for own in logits]
    _, losses, _ = input_gradients(members, tf.zeros([50, 10], tf.float64), tf.constant(y))
    # The twin's log-softmax loses what is below 1e-16 of the largest logit; softplus does not.
    np.testing.assert_allclose(losses, reference.cross_entropy(logits, y), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("graph", [False, True])
def test_an_example_does_not_depend_on_the_rest_of_its_batch(tiny_members, tiny_batch, graph):
    members = tiny_members(3, dtype="float64")
    x, y = tiny_batch(6)
    others, other_labels = tiny_batch(6)
    others[:2], other_labels[:2] = x[:2], y[:2]
    call = tf.function(input_gradients) if graph else input_gradients

    def measured(x, y):
        _, losses, gradients = call(members, tf.constant(x, tf.float64), tf.constant(y), training=True)
        per_example = (np.transpose(losses), np.transpose(gradients, [1, 0, 2]))
        return [part[:2] for part in (*per_example, gradient_alignment_loss(gradients), coherence(gradients))]

    for whole, changed, alone in zip(
        measured(x, y), measured(others, other_labels), measured(x[:2], y[:2]), strict=True
    ):
        np.testing.assert_allclose(changed, whole, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(alone, whole, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_saturated_members_of_one_direction_have_cosine_one_in_float32(num_classes, rng):
    """At logit scale 300 every margin is below -150: float32's exp gives 0 and softmax - onehot is 0.

    With all other classes' weights equal, the gradient points along w_other - w_true at any scale.
    """
    weight = np.repeat(rng.normal(size=(784, 1)), num_classes, axis=1)
    weight[:, 0] = rng.normal(size=784)
    apart = weight[:, 0] - weight[:, 1]
    x = (apart / (apart @ apart) * rng.uniform(1, 3, size=(6, 1)) * 3).astype("float32")
    members, variables, twins = linear_members([weight, 300 * weight], dtype=tf.float32)
    y = np.zeros(6, int)
    margins = twins[1].logits(x)[:, 1] - twins[1].logits(x)[:, 0]
    assert margins.max() < -150 and (reference.softmax(twins[1].logits(x))[:, 0] == 1).all()

    with tf.GradientTape() as tape:
        _, _, gradients = input_gradients(members, tf.constant(x), tf.constant(y))
        gal = gradient_alignment_loss(gradients)
    np.testing.assert_allclose(cosine_similarities(gradients), 1, atol=1e-5)
    assert all(np.isfinite(slope).all() for slope in tape.gradient(gal, variables))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-18, 1.0, 1e3, 1e18])
@pytest.mark.parametrize("graph", [False, True])
def test_parameter_gradients_of_gal_are_finite_at_any_scale_of_the_weights(scale, graph, rng):
    """Zero gradients, tiny ones, and examples saturated on the right and on the wrong side."""
    weights = [rng.normal(size=(5, 3)) * scale, rng.normal(size=(5, 3)), rng.normal(size=(5, 3))]
    members, variables, _ = linear_members(weights, dtype=tf.float32)
    x, y = tf.constant(rng.normal(size=(8, 5)), tf.float32), tf.constant(rng.integers(3, size=8))

    def step():
        with tf.GradientTape() as tape:
            _, losses, gradients = input_gradients(members, x, y)
            total = tf.reduce_mean(losses) + tf.reduce_mean(gradient_alignment_loss(gradients))
        return total, tape.gradient(total, variables)

    total, slopes = (tf.function(step) if graph else step)()
    assert np.isfinite(total) and all(np.isfinite(slope).all() for slope in slopes)


def test_half_precision_members_are_measured_in_float32(rng):
    weight = tf.constant(rng.normal(size=(6, 3)), tf.bfloat16)
    results = input_gradients(
        [lambda x, training: tf.cast(x, tf.bfloat16) @ weight], tf.ones([2, 6]), tf.constant([0, 1])
    )
    assert {result.dtype for result in results} == {tf.float32}


def test_members_run_in_the_asked_mode(tiny_members, tiny_batch):
    def features(x):
        return keras.layers.Flatten()(keras.layers.Dropout(0.5)(x))

    (member,) = tiny_members(1, features=features)
    x, y = tiny_batch()
    plain, _, _ = input_gradients([member], tf.constant(x), tf.constant(y))
    np.testing.assert_array_equal(plain[0], member(x, training=False))
    dropped, _, _ = input_gradients([member], tf.constant(x), tf.constant(y), training=True)
    assert not np.allclose(dropped, plain)


def test_a_single_member_has_no_pairs():
    with pytest.raises(ValueError, match=r"gradients \[N >= 2, B, D\]. Received: shape \(1, 3, 4\)"):
        gradient_alignment_loss(np.zeros((1, 3, 4), "float32"))


def test_narrow_gradients_are_widened():
    gradients = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    narrow = tf.cast(gradients, tf.bfloat16)
    cosines = cosine_similarities(narrow)
    assert cosines.dtype == tf.float32
    np.testing.assert_array_equal(cosines, cosine_similarities(tf.cast(narrow, tf.float32)))
