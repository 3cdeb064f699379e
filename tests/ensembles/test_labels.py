"""Labels and weights as Keras takes them: each weighs an example's whole loss of Equation 9."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from divtf import (
    CrossEntropy,
    Ensemble,
    GradientAlignment,
    InputError,
    gradient_alignment_loss,
    input_gradients,
)
from divtf.networks.logits import cross_entropy

CLASSES = 3
OBJECTIVES = {
    "CrossEntropy": CrossEntropy,
    "GAL": lambda **options: GradientAlignment(0.5, **options),
}


@pytest.fixture
def trained(tiny_members):
    """Weights and logs after fitting one batch of three steps, from equal weights each time."""

    def train(x, y, objective="GAL", options=None, **fit):
        ensemble = Ensemble(tiny_members(2), OBJECTIVES[objective](**options or {}))
        ensemble.compile(keras.optimizers.SGD(0.1))
        fit = {"batch_size": len(x), "epochs": 3, "shuffle": False, "verbose": 0} | fit
        return ensemble, ensemble.fit(x, y, **fit).history

    return train


def moved(ensemble, tiny_members):
    """By how much each weight moved."""
    start = Ensemble(tiny_members(2), CrossEntropy()).get_weights()
    return [found - before for found, before in zip(ensemble.get_weights(), start, strict=True)]


FORMS = {
    "int32": lambda y: y.astype("int32"),
    "uint8": lambda y: y.astype("uint8"),
    "whole numbers in float32": lambda y: y.astype("float32"),
    "[B, 1]": lambda y: y[:, None],
    "one-hot": lambda y: np.eye(CLASSES, dtype="float32")[y],
    "one-hot of integers": lambda y: np.eye(CLASSES, dtype="int64")[y],
    "one-hot of float64": lambda y: np.eye(CLASSES)[y],
    "one-hot of booleans": lambda y: np.eye(CLASSES, dtype=bool)[y],
}


@pytest.mark.parametrize("objective", ["GAL", pytest.param("CrossEntropy", marks=pytest.mark.slow)])
def test_labels_of_any_form_train_and_measure_alike(objective, trained, tiny_batch):
    x, y = tiny_batch()
    expected, history = trained(x, y, objective)
    measures = expected.evaluate(x, y, verbose=0)
    for form, labels in FORMS.items():
        found, other = trained(x, labels(y), objective)
        for a, b in zip(expected.get_weights(), found.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=form)
        assert history.keys() == other.keys()
        for name in history:
            np.testing.assert_allclose(history[name], other[name], rtol=1e-5, err_msg=f"{form}: {name}")
        np.testing.assert_allclose(measures, found.evaluate(x, labels(y), verbose=0), 1e-5, err_msg=form)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_example_of_weight_two_counts_as_one_taken_twice(objective, trained, tiny_members, tiny_batch):
    """Keras's mean is over the examples: B of them with weights, B + 1 with one taken twice."""
    x, y = tiny_batch()
    twice = np.append(np.arange(len(x)), 2)
    weighted, _ = trained(x, y, objective, epochs=1, sample_weight=np.where(np.arange(len(x)) == 2, 2.0, 1.0))
    repeated, _ = trained(x[twice], y[twice], objective, epochs=1)
    for a, b in zip(moved(weighted, tiny_members), moved(repeated, tiny_members), strict=True):
        np.testing.assert_allclose(a * len(x), b * len(twice), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_class_weights_are_the_weights_of_their_examples(objective, trained, tiny_batch):
    x, y = tiny_batch()
    weights = {0: 0.5, 1: 1.0, 2: 3.0}
    for labels in (y, np.eye(CLASSES)[y]):
        by_class, history = trained(x, labels, objective, class_weight=weights)
        by_example, other = trained(
            x, labels, objective, sample_weight=np.array([weights[int(i)] for i in y])
        )
        for a, b in zip(by_class.get_weights(), by_example.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert history == other


def test_weights_of_zero_leave_examples_out_of_the_loss(trained, tiny_members, tiny_batch):
    x, y = tiny_batch()
    weights = (np.arange(len(x)) < 4).astype("float32")
    weighted, history = trained(x, y, epochs=1, sample_weight=weights[:, None])
    alone, other = trained(x[:4], y[:4], epochs=1)
    for a, b in zip(moved(weighted, tiny_members), moved(alone, tiny_members), strict=True):
        np.testing.assert_allclose(2 * a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(2 * np.array(history["loss"]), other["loss"], rtol=1e-6)


def test_weights_of_the_cross_entropy_leave_gal(trained, tiny_members, tiny_batch):
    """Examples of weight 0 add GAL alone: Equation 9 by hand, without their first term."""
    x, y = tiny_batch()
    inside = (np.arange(len(x)) % 3 > 0).astype("float32")
    found, history = trained(x, y, epochs=1, sample_weight={"cross_entropy": inside})
    start = Ensemble(tiny_members(2), GradientAlignment(0.5))
    with tf.GradientTape() as tape:
        _, losses, gradients = input_gradients(start.members, tf.constant(x), tf.constant(y), training=True)
        first = tf.reduce_mean(losses, axis=0)
        loss = tf.reduce_mean(inside * first + 0.5 * gradient_alignment_loss(gradients))
    slopes = tape.gradient(loss, start.trainable_variables)
    for slope, change in zip(slopes, moved(found, tiny_members), strict=True):
        np.testing.assert_allclose(-0.1 * slope, change, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(history["loss"], [loss], rtol=1e-5)
    np.testing.assert_allclose(history["cross_entropy"], [np.average(first, weights=inside)], rtol=1e-5)
    hits = start.predict(x, verbose=0).argmax(-1) == y
    np.testing.assert_allclose(history["accuracy"], [np.average(hits, weights=inside)], rtol=1e-6)
    np.testing.assert_allclose(
        history["gal"], [np.mean(gradient_alignment_loss(gradients))], rtol=1e-5, err_msg="over all"
    )


def test_weights_of_the_cross_entropy_alone_teach_plain_members_nothing(trained, tiny_members, tiny_batch):
    x, y = tiny_batch()
    found, _ = trained(x, y, "CrossEntropy", sample_weight={"cross_entropy": np.zeros(len(x))})
    for change in moved(found, tiny_members):
        np.testing.assert_array_equal(change, 0)


def test_evaluation_weighs_the_loss_as_keras_does(tiny_members, tiny_batch):
    x, y = tiny_batch()
    weights = np.linspace(0, 2, len(x)).astype("float32")
    ensemble = Ensemble(tiny_members(2), CrossEntropy())
    kind = keras.metrics.SparseCategoricalAccuracy
    ensemble.compile(weighted_metrics=[kind("weighted")], metrics=[kind("plain")])
    found = ensemble.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    losses = [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, member(x), sample_weight=weights)
        for member in ensemble.members
    ]
    np.testing.assert_allclose(found["loss"], np.mean(losses), rtol=1e-5)
    hits = ensemble.predict(x, verbose=0).argmax(-1) == y
    np.testing.assert_allclose(found["plain"], hits.mean(), rtol=1e-6)
    assert found["accuracy"] == pytest.approx(hits.mean())
    assert found["weighted"] == pytest.approx(np.average(hits, weights=weights))


def test_metrics_of_compile_take_one_hot_labels(tiny_members, tiny_batch):
    x, y = tiny_batch()
    ensemble = Ensemble(tiny_members(2), CrossEntropy())
    ensemble.compile(
        metrics=["categorical_accuracy", keras.metrics.CategoricalCrossentropy(from_logits=True)]
    )
    history = ensemble.fit(x, np.eye(CLASSES)[y], verbose=0).history
    assert history["categorical_accuracy"] == history["accuracy"]


def smoothed(y, smoothing):
    return np.eye(CLASSES)[y] * (1 - smoothing) + smoothing / CLASSES


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_label_smoothing_is_training_on_smoothed_labels(objective, trained, tiny_batch):
    x, y = tiny_batch()
    found, history = trained(x, y, objective, {"label_smoothing": 0.3})
    expected, other = trained(x, smoothed(y, 0.3), objective)
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history["loss"], other["loss"], rtol=1e-5)
    restored = type(found.objective).from_config(found.objective.get_config())
    assert restored.label_smoothing == 0.3


def test_soft_labels_have_kerass_cross_entropy_and_its_gradient(rng):
    logits = tf.constant(rng.normal(scale=4, size=(2, 6, CLASSES)))
    y = tf.constant(rng.dirichlet(np.ones(CLASSES), size=6))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        found, _ = cross_entropy(logits, y)
        expected = keras.losses.categorical_crossentropy(
            tf.broadcast_to(y, logits.shape), logits, from_logits=True
        )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(found, logits), tape.gradient(expected, logits), atol=1e-12)


def test_one_hot_labels_keep_the_direction_of_a_sure_members_gradient():
    """At logits of 300 the loss's gradient is 0 in float32; its direction is the margin's."""
    weight = np.random.default_rng(0).normal(size=(4, CLASSES)).astype("float32")
    x = 300 * weight[:, :1].T
    labels = np.array([0])
    for y in (tf.constant(labels), tf.one_hot(labels, CLASSES)):
        _, losses, gradients = input_gradients([lambda x, training: x @ weight], tf.constant(x), y)
        assert float(losses[0, 0]) == 0.0
        margin = (x @ weight)[0, 1:]
        direction = weight[:, 1 + margin.argmax()] - weight[:, 0]
        cosine = np.vdot(gradients, direction) / np.linalg.norm(gradients) / np.linalg.norm(direction)
        assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0.5, 1]), "whole numbers in [0, 3). Received: labels from 0.5 to 1"),
        (np.array([0, np.nan]), "whole numbers in [0, 3)"),
        (np.array([[0.5, 0.5, 0.5], [1, 0, 0]]), "sum to 1. Received: labels of at least 0"),
        (np.array([[1.5, -0.5, 0], [1, 0, 0]]), "sum to 1. Received: labels of at least -0.5"),
        (np.array([[np.nan, 0.5, 0.5], [1, 0, 0]]), "sum to 1"),
        (np.zeros((2, 4)), "[batch, 3]. Received: float32 of shape"),
        (np.zeros((2, 3, 1)), "[batch, 3]. Received"),
    ],
    ids=str,
)
def test_labels_that_are_none_are_one_line(y, message, graph, tiny_members, tiny_batch):
    x, _ = tiny_batch(2)
    ensemble = Ensemble(tiny_members(2), CrossEntropy())
    ensemble.compile(run_eagerly=not graph)
    with pytest.raises(InputError) as raised:
        ensemble.fit(x, y, verbose=0)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [(8, 2), (8, 1, 1)])
def test_weights_are_one_an_example(shape, tiny_members, tiny_batch):
    x, y = tiny_batch(8)
    ensemble = Ensemble(tiny_members(2), CrossEntropy())
    ensemble.compile()
    with pytest.raises(InputError, match=r"sample weights \[batch\]"):
        ensemble.fit(x, y, sample_weight=np.ones(shape), verbose=0)
    with pytest.raises(InputError, match=r"sample weights \[batch\]"):
        ensemble.fit(x, y, sample_weight={"cross_entropy": np.ones(shape)}, verbose=0)


def test_weights_have_the_name_of_the_cross_entropy(tiny_members, tiny_batch):
    x, y = tiny_batch(8)
    ensemble = Ensemble(tiny_members(2), CrossEntropy())
    ensemble.compile()
    with pytest.raises(InputError, match=r"\{'cross_entropy': them\}. Received: \['gal'\]"):
        ensemble.fit(x, y, sample_weight={"gal": np.ones(8)}, verbose=0)


def test_images_of_whole_numbers_are_those_of_floats(tiny_batch, rng):
    images = rng.integers(256, size=(8, 6, 6, 1)).astype("uint8")
    _, y = tiny_batch(8)

    def member(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6, 6, 1))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name=f"m{seed}")

    found = []
    for x in (images, images.astype("float32"), images.astype("float64"), images.astype("int64")):
        ensemble = Ensemble([member(0), member(1)])
        ensemble.compile(keras.optimizers.SGD(0.1))
        ensemble.fit(x, y, verbose=0)
        found.append(ensemble.get_weights())
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
