"""Gradient statistics against closed forms on linear members."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf.evaluation.gradients import gradient_statistics

SHAPE, CLASSES = (3, 4, 1), 3
SIZE = math.prod(SHAPE)


def dense_member(name, weights, hidden=None, activation="relu"):
    """Logits x W, or activation(x H) W."""
    images = keras.Input(SHAPE)
    x = layers.Flatten()(images)
    if hidden is not None:
        x = layers.Dense(hidden.shape[1], activation=activation, use_bias=False)(x)
    logits = layers.Dense(weights.shape[1], use_bias=False)(x)
    member = keras.Model(images, logits, name=name)
    member.set_weights([weights] if hidden is None else [hidden, weights])
    return member


def linear_members(count, seed=0):
    weights = np.random.default_rng(seed).normal(size=(count, SIZE, CLASSES)).astype("float32")
    return SimpleNamespace(members=[dense_member(f"m{n}", w) for n, w in enumerate(weights)]), weights


def images_and_labels(count, seed=1):
    rng = np.random.default_rng(seed)
    return rng.random((count, *SHAPE), dtype="float32"), rng.integers(0, CLASSES, count)


def closed_form_gradients(weights, x, y):
    """For z = x W: the gradient of the cross-entropy is (softmax(z) - onehot(y)) W^T; [N, B, D]."""
    gradients = []
    for w in weights.astype("float64"):
        logits = x.reshape(len(x), -1) @ w
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        gradients.append((powers / powers.sum(axis=1, keepdims=True) - np.eye(CLASSES)[y]) @ w.T)
    return np.stack(gradients)


def cosine(a, b):
    return a @ b / math.sqrt(a @ a * (b @ b))


@pytest.mark.parametrize("count", [2, 4])
def test_statistics_equal_the_closed_form_on_linear_members(count):
    ensemble, weights = linear_members(count)
    x, y = images_and_labels(13)
    gradients = closed_form_gradients(weights, x, y)
    found = gradient_statistics(ensemble, x, y, batch_size=5)
    cosines = np.array(
        [
            [[cosine(gradients[a, i], gradients[b, i]) for b in range(count)] for a in range(count)]
            for i in range(13)
        ]
    )
    upper = cosines[:, *np.triu_indices(count, 1)]
    assert found.coherence.shape == (13,) and found.pair_cosines.shape == (count, count)
    np.testing.assert_allclose(found.coherence, upper.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.pair_cosines, cosines.mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(np.diag(found.pair_cosines), 1)
    np.testing.assert_array_equal(found.pair_cosines, found.pair_cosines.T)
    assert found.gal == pytest.approx(np.log(np.exp(upper).sum(axis=1)).mean(), abs=1e-5)
    assert found.zero_entries == found.zero_products == 0


@pytest.mark.parametrize("batch_size", [1, 4, 7, 13, 250])
def test_statistics_do_not_depend_on_the_batch_size(batch_size):
    ensemble, _ = linear_members(3)
    x, y = images_and_labels(13)
    whole, parts = (gradient_statistics(ensemble, x, y, batch_size=size) for size in (13, batch_size))
    np.testing.assert_allclose(parts.coherence, whole.coherence, atol=1e-6)
    np.testing.assert_allclose(parts.pair_cosines, whole.pair_cosines, atol=1e-6)
    assert parts.gal == pytest.approx(whole.gal, abs=1e-6)


def test_each_image_keeps_its_own_coherence_in_order():
    ensemble, _ = linear_members(3)
    x, y = images_and_labels(9)
    forward = gradient_statistics(ensemble, x, y).coherence
    np.testing.assert_allclose(
        gradient_statistics(ensemble, x[::-1], y[::-1]).coherence, forward[::-1], atol=1e-6
    )


def test_equal_members_are_wholly_coherent():
    """Cosines 1 for all pairs of N = 3: coherence 1, GAL log 3 + 1."""
    _, weights = linear_members(1)
    ensemble = SimpleNamespace(members=[dense_member(f"m{n}", weights[0]) for n in range(3)])
    found = gradient_statistics(ensemble, *images_and_labels(6))
    np.testing.assert_allclose(found.coherence, 1, atol=1e-6)
    np.testing.assert_allclose(found.pair_cosines, 1, atol=1e-6)
    assert found.gal == pytest.approx(math.log(3) + 1, abs=1e-6)


def test_opposed_members_have_cosine_minus_one():
    """With two classes each gradient is a positive multiple of W_j - W_y, and W_2 = -W_1 turns it round."""
    weights = np.random.default_rng(0).normal(size=(SIZE, 2))
    ensemble = SimpleNamespace(members=[dense_member("a", weights), dense_member("b", -weights)])
    found = gradient_statistics(ensemble, images_and_labels(6)[0], np.arange(6) % 2)
    np.testing.assert_allclose(found.coherence, -1, atol=1e-6)
    assert found.gal == pytest.approx(-1, abs=1e-6)


def test_zero_shares_count_entries_and_products_that_are_exactly_zero():
    """Member a sees the first 9 of the 12 pixels, b the last 6: 3 + 6 of 24 entries are zero, and of the 12
    products those outside the 3 shared pixels: 9."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, SIZE, CLASSES))
    a[9:], b[:6] = 0, 0
    ensemble = SimpleNamespace(members=[dense_member("a", a), dense_member("b", b)])
    found = gradient_statistics(ensemble, *images_and_labels(5))
    assert found.zero_entries == pytest.approx(9 / 24)
    assert found.zero_products == pytest.approx(9 / 12)


def test_zero_products_are_averaged_over_the_pairs():
    """Of 12 pixels a sees all, b the first 6, c the last 6: pairs ab 6, ac 6, bc 12 zero terms."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, SIZE, CLASSES))
    b[6:], c[:6] = 0, 0
    ensemble = SimpleNamespace(members=[dense_member(n, w) for n, w in zip("abc", (a, b, c), strict=True)])
    found = gradient_statistics(ensemble, *images_and_labels(5))
    assert found.zero_entries == pytest.approx(12 / 36)
    assert found.zero_products == pytest.approx((6 + 6 + 12) / 36)
    assert found.pair_cosines[1, 2] == 0


def test_dead_relu_units_give_zero_entries_and_leaky_units_none():
    """Unit d sees pixel d alone, with weight +1 for even d and -1 for odd d: on positive images the odd half
    is dead under ReLU, and alive under a leaky one."""
    hidden = np.diag(np.where(np.arange(SIZE) % 2, -1.0, 1.0))
    rng = np.random.default_rng(0)
    x, y = images_and_labels(5)
    for activation, share in (("relu", 0.5), ("leaky_relu", 0.0)):
        members = [
            dense_member(f"{activation}_{n}", rng.normal(size=(SIZE, CLASSES)), hidden, activation)
            for n in range(2)
        ]
        found = gradient_statistics(SimpleNamespace(members=members), x + np.float32(0.01), y)
        assert found.zero_entries == pytest.approx(share)
        assert found.zero_products == pytest.approx(share)


def test_members_whose_gradient_vanishes_have_cosine_zero():
    ensemble = SimpleNamespace(members=[dense_member(f"m{n}", np.zeros((SIZE, CLASSES))) for n in range(2)])
    found = gradient_statistics(ensemble, *images_and_labels(4))
    np.testing.assert_array_equal(found.coherence, 0)
    assert found.gal == 0 and found.zero_entries == found.zero_products == 1


def test_gradients_are_taken_in_inference_mode():
    images = keras.Input(SHAPE)
    members = [
        keras.Model(
            images, layers.Dense(CLASSES)(layers.Dropout(0.5)(layers.Flatten()(images))), name=f"m{n}"
        )
        for n in range(2)
    ]
    assert gradient_statistics(SimpleNamespace(members=members), *images_and_labels(4)).zero_entries == 0


def test_bar_counts_the_batches_of_images(bars):
    ensemble = SimpleNamespace(members=[dense_member(f"m{n}", np.eye(SIZE, CLASSES)) for n in range(2)])
    gradient_statistics(ensemble, *images_and_labels(7), batch_size=3)
    assert bars == [("input gradients", 3, 3)]


@pytest.mark.parametrize("front", [tf.round, tf.stop_gradient, lambda x: x + tf.sqrt(0 * x)])
def test_members_without_a_finite_gradient_have_no_direction(front, tiny_batch):
    """As behind rounding, or a square root at 0: their cosines with others are 0."""
    x, y = tiny_batch(6)
    weights = np.random.default_rng(0).normal(size=(x[0].size, 3)).astype("float32")

    def plain(x, training=False):
        return tf.reshape(x, [-1, len(weights)]) @ weights

    found = gradient_statistics([plain, lambda x, training=False: plain(front(x))], x, y)
    assert (found.coherence == 0).all() and found.gal == pytest.approx(0, abs=1e-6)
    assert found.zero_products == 1
