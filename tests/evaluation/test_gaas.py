"""GAAS: the matrices, the perturbations, and closed forms on linear models."""

import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from reference import hadamard_entry as entry

from divtf.evaluation.gaas import gaas, orthogonal_perturbations
from divtf.evaluation.hadamard import ORDERS, regular_hadamard

EPSILON = 1 / 32  # a power of two: sums of products with dyadic weights are exact in float32
EPSILONS = (EPSILON, 2 * EPSILON, 3 * EPSILON)


class LinearEnsemble:
    """Members z_n = x W_n + b_n, W [N, D, C]; a call gives the log of the mean member probability."""

    def __init__(self, weights, biases=0.0):
        self.weights, self.biases = tf.constant(weights, tf.float32), tf.constant(biases, tf.float32)
        self.calls = self.member_calls = 0

    def member_logits(self, x):
        self.member_calls += 1
        flat = tf.reshape(x, [tf.shape(x)[0], -1])
        return tf.einsum("bd,ndc->nbc", flat, self.weights) + self.biases

    def __call__(self, x):
        self.calls += 1
        flat = tf.reshape(x, [tf.shape(x)[0], -1])
        logits = tf.einsum("bd,ndc->nbc", flat, self.weights) + self.biases
        return tf.reduce_logsumexp(tf.nn.log_softmax(logits), axis=0) - math.log(self.weights.shape[0])


def two_class(slope, bias, scale=1.0):
    """Logits (0, scale (x . slope + bias)): class 1 iff x . slope + bias > 0."""

    def target(x):
        margin = tf.linalg.matvec(tf.reshape(x, [tf.shape(x)[0], -1]), tf.constant(slope, tf.float32)) + bias
        return tf.stack([tf.zeros_like(margin), scale * margin], axis=-1)

    return target


def dyadic(rng, shape, low=-64, high=65, unit=1 / 64):
    return rng.integers(low, high, shape) * unit


@pytest.fixture(name="linear")
def fixture_linear():
    """Two-class problem on 6x6x2 images away from the borders, balanced so that margins are small."""
    rng = np.random.default_rng(3)
    slope = dyadic(rng, 72)
    x = 0.5 + dyadic(rng, (40, 6, 6, 2), -24, 25)
    y = rng.integers(0, 2, 40)
    return slope, -0.5 * float(slope.sum()), x, y


# Matrices.


@pytest.mark.parametrize("order", ORDERS)
def test_matrix_is_a_regular_hadamard_matrix(order):
    matrix = regular_hadamard(order)
    assert matrix.shape == (order, order) and matrix.dtype == np.int8
    assert set(np.unique(matrix)) == {-1, 1}
    wide = matrix.astype(np.int64)
    np.testing.assert_array_equal(wide @ wide.T, order * np.eye(order))
    np.testing.assert_array_equal(wide.sum(axis=1), math.isqrt(order))
    np.testing.assert_array_equal(wide.sum(axis=0), math.isqrt(order))


def test_order_36_comes_from_a_strongly_regular_graph():
    """(36, 15, 6, 6), by counting neighbours in sets, not by matrix algebra."""
    matrix = regular_hadamard(36)
    neighbours = [{j for j in range(36) if matrix[i, j] == -1} for i in range(36)]
    assert all(i not in near and len(near) == 15 for i, near in enumerate(neighbours))
    assert all((i in neighbours[j]) == (j in neighbours[i]) for i, j in itertools.combinations(range(36), 2))
    common = {
        adjacent: {
            len(neighbours[i] & neighbours[j])
            for i, j in itertools.combinations(range(36), 2)
            if (j in neighbours[i]) == adjacent
        }
        for adjacent in (True, False)
    }
    assert common == {True: {6}, False: {6}}  # lambda and mu


@pytest.mark.parametrize("order", [-4, 0, 1, 2, 8, 9, 25, 100])
def test_other_orders_are_refused(order):
    with pytest.raises(
        ValueError, match=rf"Expected one of {{4, 16, 36, 64}}. Received: order={order}\b.*25"
    ):
        regular_hadamard(order)


# Perturbations.


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dimensions", [64, 100, 300, 784, 3072])
def test_perturbations_are_orthogonal_aligned_and_of_norm_epsilon(order, dimensions):
    """r_i . sign(g) = epsilon (D'/k) sqrt(k): the row sum is sqrt(k), and an entry has D'/k dimensions."""
    rng = np.random.default_rng(dimensions)
    signs = rng.choice([-1.0, 0.0, 1.0], (3, dimensions), p=[0.45, 0.1, 0.45])
    perturbations = orthogonal_perturbations(signs, order, 0.03).numpy()
    assert perturbations.shape == (3, order, dimensions) and perturbations.dtype == np.float64
    used = dimensions // order * order
    assert dimensions - used < order
    np.testing.assert_array_equal(np.abs(perturbations[:, :, :used]), 0.03)
    np.testing.assert_array_equal(perturbations[:, :, used:], 0.0)
    units = perturbations / 0.03  # exactly -1, 0 and 1, so that the products are integers
    gram = np.einsum("bid,bjd->bij", units, units)
    np.testing.assert_array_equal(gram, np.broadcast_to(used * np.eye(order), gram.shape))
    aligned = np.einsum("bid,bd->bi", units, np.where(signs < 0, -1.0, 1.0))
    np.testing.assert_array_equal(aligned, used / math.sqrt(order))


def test_perturbations_keep_the_dtype_and_take_gradients():
    gradients = np.array([[2.5, -1e-30, 0.0, -7.0, 1e-30]], np.float32)
    perturbations = orthogonal_perturbations(gradients, 4, np.float64(0.03)).numpy()
    assert perturbations.dtype == np.float32
    expected = np.float32(0.03) * np.array(
        [[-1, -1, 1, -1, 0], [1, 1, 1, -1, 0], [1, -1, -1, -1, 0], [1, -1, 1, 1, 0]]
    )
    np.testing.assert_array_equal(perturbations[0], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("signs", "order", "epsilon", "message"),
    [
        (np.ones((2, 8)), 4, 0.0, "Expected a finite epsilon > 0. Received: epsilon=0.0"),
        (np.ones((2, 8)), 4, math.nan, "Expected a finite epsilon > 0. Received: epsilon=nan"),
        (np.ones((2, 8)), 25, 0.1, "Expected one of {4, 16, 36, 64}. Received: order=25"),
        (np.ones((2, 8)), 16, 0.1, "Expected dimensions >= order. Received: dimensions=8, order=16"),
        (np.ones(8), 4, 0.1, "Expected floating signs [B, D]. Received: shape=(8,)"),
        (np.ones((2, 8), int), 4, 0.1, "Expected floating signs [B, D]. Received: shape=(2, 8), dtype=int64"),
    ],
)
def test_perturbations_refuse(signs, order, epsilon, message):
    with pytest.raises(ValueError) as error:
        orthogonal_perturbations(signs, order, epsilon)
    assert str(error.value).startswith(message)


# Analysis.


def linear_successes(slope, bias, x, y, epsilon, order):
    """Closed form. The loss grows with the margin m = w.x + b for class 0 and against it for class 1.

    So sign(g) = +-sign(w), and r_i moves the margin by +-reach_i, where
    reach_i = epsilon sum_j H[i, j] sum_{d in block j} |w_d|.
    Class 1 is predicted iff m > 0: success iff m - reach_i <= 0 (class 1) or m + reach_i > 0 (class 0).
    """
    length = len(slope) // order
    blocks = [sum(abs(value) for value in slope[j * length : (j + 1) * length]) for j in range(order)]
    reach = [epsilon * sum(entry(order, i, j) * blocks[j] for j in range(order)) for i in range(order)]
    counts = []
    for image, label in zip(x, y, strict=True):
        margin = float(image.ravel() @ slope + bias)
        if (margin > 0) == (label == 1):
            counts.append(sum(margin - far <= 0 if label == 1 else margin + far > 0 for far in reach))
    return np.array(counts), len(x) - len(counts)


def test_linear_two_class_model_agrees_with_the_closed_form(linear):
    slope, bias, x, y = linear
    results = gaas(two_class(slope, bias), x, y, epsilons=EPSILONS, orders=ORDERS, batch_size=16)
    assert [(result.epsilon, result.order) for result in results] == list(itertools.product(EPSILONS, ORDERS))
    varied = 0
    for result in results:
        counts, left_out = linear_successes(slope, bias, x, y, result.epsilon, result.order)
        assert (result.images, result.left_out) == (len(counts), left_out) and left_out > 0
        assert result.probability == tuple((counts >= m).mean() for m in range(1, result.order + 1))
        assert result.mean_successes == counts.mean()
        assert result.zero_gradients == 0
        assert list(result.probability) == sorted(result.probability, reverse=True)  # non-increasing in m
        varied += 0 < counts.mean() < result.order
    assert varied == len(results)
    for order in ORDERS:  # a linear margin is lost for good: a larger epsilon has never fewer successes
        curves = np.array([result.probability for result in results if result.order == order])
        assert (np.diff(curves, axis=0) >= 0).all() and (np.diff(curves, axis=0) > 0).any()


def test_saturation_does_not_cost_successes(linear):
    """Scaled logits decide alike, so the curves are equal, though the loss is 0 in float32."""
    slope, bias, x, y = linear
    options = {"epsilons": (EPSILON,), "orders": (4, 36)}
    scale = 2.0**13
    target = two_class(slope, bias, scale)
    with tf.GradientTape() as tape:
        images = tf.Variable(x, dtype=tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, target(images))
    assert np.mean(tape.gradient(losses, images).numpy() == 0) > 0.4  # what a plain gradient would see
    assert gaas(target, x, y, **options) == gaas(two_class(slope, bias), x, y, **options)


def test_batches_change_nothing_and_each_graph_is_traced_once(linear):
    slope, bias, x, y = linear
    weights = np.stack([np.zeros_like(slope), slope], axis=-1)[None]
    expected = gaas(two_class(slope, bias), x, y, epsilons=EPSILONS)
    for batch_size in (1, 7, 40, 1000):
        target = LinearEnsemble(weights, [0.0, bias])
        assert gaas(target, tf.constant(x), y.tolist(), epsilons=EPSILONS, batch_size=batch_size) == expected
        assert target.calls == 2  # one trace in each of the two graphs
        assert target.member_calls == 2  # the input check, then one trace


def reference_signs(weights, biases, x, y, of_mean_probability=False):
    """Signs of the input gradient: mean of member cross-entropies, or -log of the mean probability."""
    logits = np.einsum("bd,ndc->nbc", x.reshape(len(x), -1), weights) + biases
    probability = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probability /= probability.sum(axis=-1, keepdims=True)
    share = np.ones(probability.shape[:2])
    if of_mean_probability:
        true = probability[:, np.arange(len(y)), y]
        share = true / true.sum(axis=0)
    return np.sign(np.einsum("nb,nbc,ndc->bd", share, probability - np.eye(weights.shape[2])[y], weights))


def test_gradient_is_that_of_the_mean_member_loss():
    """Successes equal those of float64 signs of the mean loss; those of -log mean probability differ."""
    rng = np.random.default_rng(0)
    weights, biases = rng.normal(size=(3, 40, 4)), rng.normal(size=(3, 1, 4))
    x = rng.uniform(0.1, 0.9, (60, 5, 8))
    target = LinearEnsemble(weights, biases)
    y = tf.argmax(target(tf.constant(x, tf.float32)), axis=-1).numpy()
    counts = {}
    for of_mean_probability in (False, True):
        signs = reference_signs(weights, biases, x, y, of_mean_probability)
        r = orthogonal_perturbations(signs, 16, 0.1).numpy().reshape(60, 16, 5, 8)
        predictions = [
            tf.argmax(target(tf.constant(x + r[:, i], tf.float32)), axis=-1).numpy() for i in range(16)
        ]
        counts[of_mean_probability] = (np.stack(predictions, axis=1) != y[:, None]).sum(axis=1)
    (result,) = gaas(target, x, y, epsilons=[0.1], orders=[16])
    curves = {key: tuple((value >= m).mean() for m in range(1, 17)) for key, value in counts.items()}
    assert result.probability == curves[False] != curves[True]
    assert result.left_out == 0


def test_perturbed_images_are_clipped_before_they_count(linear):
    """Images over the whole of a narrower range, so that clipping matters; every direction by hand."""
    slope, bias, x, y = linear
    x = np.clip(x, 0.375, 0.625)
    signs = np.where(y[:, None] == 1, -1.0, 1.0) * np.where(slope < 0, -1.0, 1.0)  # ascent of the loss
    stretched = np.array([[entry(36, i, d // 2) for d in range(72)] for i in range(36)])
    kept = (x.reshape(40, -1) @ slope + bias > 0) == (y == 1)
    counts = []
    for low, high in ((0.375, 0.625), (-9.0, 9.0)):
        r = 2 * EPSILON * signs[:, None] * stretched
        margins = np.clip(x.reshape(40, 1, -1) + r, low, high) @ slope + bias
        counts.append(((margins > 0) != (y == 1)[:, None]).sum(axis=1)[kept].mean())
    options = {"epsilons": [2 * EPSILON], "orders": [36]}
    (clipped,) = gaas(two_class(slope, bias), x, y, clip_min=0.375, clip_max=0.625, **options)
    (free,) = gaas(two_class(slope, bias), x, y, clip_min=np.float64(-9), clip_max=9, **options)
    assert [clipped.mean_successes, free.mean_successes] == counts
    assert clipped.mean_successes != free.mean_successes


def test_zero_gradients_are_recorded():
    def target(x):
        margin = tf.reduce_sum(tf.nn.relu(x - 0.5), axis=-1)
        return tf.stack([margin, tf.fill(tf.shape(margin), -1.0)], axis=-1)

    x = np.full((5, 4), 0.2, np.float32)
    x[3:] = 0.8
    (result,) = gaas(target, x, [0, 0, 0, 0, 1], epsilons=[0.01], orders=[4])
    assert (result.images, result.left_out, result.zero_gradients) == (4, 1, 3)


def test_result_is_frozen_and_goes_to_json(linear):
    slope, bias, x, y = linear
    (result,) = gaas(two_class(slope, bias), x, y, epsilons=np.array([EPSILON]), orders=np.array([4]))
    record = json.loads(json.dumps(result.to_json()))
    assert record["probability"] == list(result.probability) and len(record["probability"]) == 4
    assert type(result)(**record | {"probability": tuple(record["probability"])}) == result
    with pytest.raises(AttributeError):
        result.order = 16


def test_keras_model_as_target():
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers, keras.layers.Dense(3)])
    before = [variable.numpy() for variable in model.variables]
    x = np.random.default_rng(0).uniform(size=(9, 6, 6, 1))
    y = np.argmax(model(x), axis=-1)
    result = gaas(model, x, y, epsilons=[0.3], orders=[4, 36], batch_size=4)[-1]
    assert result.images == 9 and result.probability[0] > 0
    for old, variable in zip(before, model.variables, strict=True):  # inference only: no statistics move
        np.testing.assert_array_equal(old, variable.numpy())


def flat_target(x):
    return x[:, :3]


GOOD = {
    "target": flat_target,
    "x": np.tile([0.9, 0.2, 0.3, 0.4], (2, 1)),
    "y": [0, 0],
    "epsilons": [0.1],
    "orders": [4],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilons": []}, "Expected one or more finite epsilons > 0. Received: epsilons=[]"),
        (
            {"epsilons": [0.1, -0.1]},
            "Expected one or more finite epsilons > 0. Received: epsilons=[0.1, -0.1]",
        ),
        ({"epsilons": [math.inf]}, "Expected one or more finite epsilons > 0. Received: epsilons=[inf]"),
        ({"epsilons": [math.nan]}, "Expected one or more finite epsilons > 0. Received: epsilons=[nan]"),
        ({"orders": []}, "Expected orders, batch_size > 0. Received: orders=[]"),
        ({"batch_size": 0}, "Expected orders, batch_size > 0. Received: orders=[4], batch_size=0"),
        ({"orders": [25]}, "Expected one of {4, 16, 36, 64}. Received: order=25"),
        ({"orders": [16]}, "Expected dimensions >= order. Received: dimensions=4, order=16"),
        (
            {"x": np.zeros((0, 4)), "y": []},
            "Expected x [B, ...] and y [B] of equal length B >= 1. Received: x=(0, 4)",
        ),
        ({"y": [0]}, "Expected x [B, ...] and y [B] of equal length B >= 1. Received: x=(2, 4), y=(1,)"),
        (
            {"y": [[1, 1, 0]] * 2},
            "Expected integer labels [n], or one-hot ones [n, C]. Received: int64 of shape (2, 3)",
        ),
        ({"x": np.full((2, 4), 255.0)}, "Expected x within [0.0, 1.0]. Received: min=255.0, max=255.0"),
        ({"x": np.full((2, 4), np.nan)}, "Expected x within [0.0, 1.0]. Received: min=nan"),
        ({"clip_min": 0.5}, "Expected x within [0.5, 1.0]. Received: min=0.2"),
        ({"clip_max": 0.5}, "Expected x within [0.0, 0.5]. Received: min=0.2"),
        (
            {"y": [0.5, 0.0]},
            "Expected integer labels [n], or one-hot ones [n, C]. Received: float64 of shape (2,)",
        ),
        ({"y": [0, 3]}, "Expected labels y within [0, 3). Received: min=0, max=3"),
        ({"y": [-1, 0]}, "Expected labels y within [0, 3). Received: min=-1, max=0"),
        (
            {"y": [1, 2]},
            "Expected an image that the target classifies correctly. Received: correct=0, images=2",
        ),
        (
            {"target": lambda x: x[:, 0]},
            "Expected a target that gives logits [B, C] of two classes or more. Received: outputs of shape",
        ),
        (
            {"target": lambda x: x[:, :1]},
            "Expected a target that gives logits [B, C] of two classes or more. Received: outputs of shape",
        ),
        (
            {"target": lambda x: tf.stop_gradient(x)},
            "Expected a target that TensorFlow can differentiate. Received: one",
        ),
        (
            {"target": lambda x: x / 0 - x / 0},
            "Expected finite outputs and gradients. Received: first_image_of_batch=0",
        ),
        (
            {"target": lambda x: tf.sqrt(x - 0.2) * x},
            "Expected finite outputs and gradients. Received: first_image",
        ),
        ({"target": lambda x: tf.sqrt(x - 0.15) + x}, "Expected outputs without NaN. Received: epsilon=0.1"),
    ],
)
def test_bad_inputs_are_refused(change, message):
    with pytest.raises(ValueError) as error:
        gaas(**GOOD | change)
    assert str(error.value).startswith(message)


def test_bar_counts_the_batches_of_images(bars, linear):
    slope, bias, x, y = linear
    gaas(two_class(slope, bias), x, y, epsilons=[EPSILON], orders=[4], batch_size=16)
    assert bars == [("gaas", 3, 3)]
