"""Each private name of Keras and TensorFlow that divtf uses does what divtf takes it to do."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import divtf
from divtf.runtime import private_names


def test_layers_of_finds_those_of_nested_models_and_of_layers_made_of_layers():
    inner_input = keras.Input((4, 3))
    cell = layers.LSTM(2, name="lstm", return_sequences=True)
    inner = keras.Model(inner_input, layers.Bidirectional(cell, name="both")(inner_input), name="inner")
    images = keras.Input((4, 3), name="images")
    model = keras.Model(images, layers.Flatten(name="flat")(inner(images)), name="outer")
    found = private_names.layers_of(model)
    names = {layer.name for layer in found}
    assert {"inner", "both", "forward_lstm", "backward_lstm", "flat"} <= names and "outer" not in names
    assert len(set(map(id, found))) == len(found)
    assert {layer.name for layer in model.layers} == {"images", "inner", "flat"}


def test_layers_of_a_layer_used_twice_has_it_once():
    images = keras.Input((3,))
    dense = layers.Dense(3, name="twice")
    names = [layer.name for layer in private_names.layers_of(keras.Model(images, dense(dense(images))))]
    assert names.count("twice") == 1


class Scale(private_names.BuildsItself, keras.Model):
    """A model that counts how often it is asked to build itself."""

    def __init__(self):
        super().__init__()
        self.factor = self.add_weight(name="factor", shape=(), initializer="ones")
        self.asked = 0

    def call(self, x):
        return self.factor * x

    def build_for_training(self):
        self.asked += 1
        self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        assert self.optimizer.built
        return super().train_step(data)


def test_keras_asks_a_model_that_builds_itself_before_each_way_of_training_and_testing():
    """The tests of several replicas, with their unequal shares, fail where Keras's own way is left."""
    x = np.ones((4, 1), "float32")
    model = Scale()
    model.compile("sgd", "mse")
    calls = [model.fit, model.evaluate]
    for number, call in enumerate(calls, 1):
        call(x, x, verbose=0)
        assert model.asked == number
    model.train_on_batch(x, x)
    model.test_on_batch(x, x)
    assert model.asked == 4


def moments(optimizer, variable):
    return [moment.numpy() for moment in private_names.adam_moments(optimizer, variable)]


def test_adam_moments_are_the_running_means_of_the_gradient_and_its_square():
    first, second = keras.Variable([1.0, 2.0]), keras.Variable([3.0])
    optimizer = keras.optimizers.Adam(beta_1=0.9, beta_2=0.99)
    optimizer.build([first, second])
    optimizer.apply([tf.constant([1.0, -2.0]), tf.constant([4.0])], [first, second])
    np.testing.assert_allclose(moments(optimizer, first), [[0.1, -0.2], [0.01, 0.04]], rtol=1e-5)
    np.testing.assert_allclose(moments(optimizer, second), [[0.4], [0.16]], rtol=1e-5)


def test_variables_of_an_optimizer_are_the_weights_that_it_was_built_on():
    weights = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)
    assert [id(weight) for weight in private_names.variables_of(optimizer)] == list(map(id, weights))


@pytest.mark.parametrize(("setting", "expected"), [("0", "False"), ("1", "True")])
def test_onednn_is_enabled_as_its_environment_variable_says(setting, expected):
    """In a process of its own: TensorFlow reads the variable once."""
    script = "from divtf.runtime.private_names import onednn_enabled; print(onednn_enabled())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": setting, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [expected]


# What a class of divtf calls its own must not be Keras's.


def classes_of_keras():
    """Each class of divtf that extends one of Keras, with something of the latter."""
    plain = (
        keras.Model(),
        layers.Layer(),
        keras.optimizers.Adam(),
        keras.metrics.Mean(),
        keras.callbacks.Callback(),
    )
    for found in pkgutil.walk_packages(divtf.__path__, "divtf."):
        if found.name.split(".")[1] in ("networks", "ensembles", "evaluation", "runtime", "training"):
            for _, cls in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
                if cls.__module__ == found.name:
                    yield from ((cls, thing) for thing in plain if type(thing) in cls.__mro__)


def private_names_of(cls):
    """Private names that the class defines, or its methods set."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return {name for name in {*vars(cls), *stored} if name.startswith("_") and not name.startswith("__")}


def test_no_private_name_of_a_class_takes_the_place_of_one_of_keras():
    pairs = list(classes_of_keras())
    assert {"Ensemble", "Adam", "ReplicatedMean", "BatchNormalization"} <= {cls.__name__ for cls, _ in pairs}
    clashes = {
        (cls.__name__, name) for cls, thing in pairs for name in private_names_of(cls) if hasattr(thing, name)
    }
    assert not clashes
