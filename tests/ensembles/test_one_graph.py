"""Members of one architecture share a graph: the plain step's numbers, and nothing that grows with them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf import BatchNormalization, CrossEntropy, Ensemble, GradientAlignment, build_member, build_members
from divtf.ensembles import one_graph, step_gradients
from divtf.ensembles.weights import checked_weights
from divtf.networks import models


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A family of small models with statistics, beside the paper's."""

    def made(make, x, num_classes):
        x = make.activate(BatchNormalization()(make.conv(x, 3)))
        return make.dense(layers.Flatten()(x), num_classes)

    monkeypatch.setitem(models.MODELS, "small", made)


def small_members(count, dtype="float64"):
    return build_members("small", count, (5, 5, 1), 4, seed=3, dtype=dtype)


def batch(dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.random((6, 5, 5, 1)).astype(dtype), np.arange(6) % 4


def trained(memory, members, objective, eager=False):
    ensemble = Ensemble(members, objective, memory=memory)
    ensemble.compile(keras.optimizers.SGD(0.1), run_eagerly=eager)
    x, y = batch(members[0].variable_dtype)
    weights = np.linspace(0, 2, 6)
    history = ensemble.fit(x, y, sample_weight=weights, batch_size=3, shuffle=False, verbose=0).history
    return [weight.numpy() for member in members for weight in member.weights], history["loss"]


@pytest.mark.parametrize(
    ("objective", "eager", "frozen"),
    [
        (GradientAlignment(0.7), False, None),
        (GradientAlignment(0.7), True, None),
        (CrossEntropy(), False, None),
        (GradientAlignment(0.7), False, "batch"),
        (GradientAlignment(0.7), False, "conv"),
    ],
    ids=["gal", "eager", "cross_entropy", "frozen statistics", "frozen convolution"],
)
def test_weights_and_statistics_are_those_of_the_plain_step(objective, eager, frozen):
    """To rounding, in float64: gradients, and statistics that move once a step."""
    found = []
    for memory in (None, "low"):
        members = small_members(3)
        for member in members:
            for layer in member.layers:
                layer.trainable = frozen is None or not layer.name.startswith(frozen)
        assert one_graph.alike(members)
        found.append(trained(memory, members, objective, eager))
    for plain, low in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(low, plain, rtol=1e-9, atol=1e-12)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-9)


def convolutions(count):
    """In the whole graph of a step's gradient for so many members."""
    members = small_members(count)
    x, y = (tf.constant(part) for part in batch())

    def gradient():
        weights = checked_weights(None)
        return step_gradients.one_by_one(GradientAlignment(), members, tf.identity, x, y, weights)[-1]

    graph = tf.function(gradient).get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sum(node.op.startswith("Conv2D") for node in nodes)


def test_the_graph_does_not_grow_with_the_members():
    assert convolutions(5) == convolutions(2) > 5


def test_members_share_a_graph_after_a_file_as_before(tmp_path):
    ensemble = Ensemble(small_members(2), memory="low")
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    assert one_graph.alike(loaded.members) and one_graph.alike([loaded.members[0], ensemble.members[0]])


def altered():
    """A member made as the others are, of which a slope was set to another value then."""
    (member,) = small_members(1)
    slopes = [layer for layer in member.layers if isinstance(layer, keras.layers.LeakyReLU)]
    slopes[0].negative_slope = 0.9
    return member


def test_only_members_made_alike_share_a_graph():
    one, other = small_members(2)
    assert one_graph.alike([one, other])
    others = {
        "slope": build_member("small", (5, 5, 1), 4, negative_slope=0.2, dtype="float64"),
        "activation": build_member("small", (5, 5, 1), 4, activation="relu", dtype="float64"),
        "type": small_members(1, "float32")[0],
        "copy, which may have been changed": keras.models.clone_model(one),
        "changed since": altered(),
    }
    for what, member in others.items():
        assert not one_graph.alike([one, member]), what
        assert not one_graph.alike([member, one]), what
    other.layers[1].trainable = False
    assert not one_graph.alike([one, other])
    other.layers[1].trainable = True
    assert one_graph.alike([one, other])
    kernel = other.layers[1].kernel
    kernel.trainable = False
    assert not one_graph.alike([one, other])
    kernel.trainable, kernel.regularizer = True, keras.regularizers.L2(0.1)
    assert not one_graph.alike([one, other])
    kernel.regularizer = None
    one.trainable = other.trainable = False
    assert not one_graph.alike([one, other])
