"""Layers exact to second order, those that are not, and the conversion of one into the other."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers

from divtf import BatchNormalization, GradientAlignment, InputError, convert_member
from divtf.networks.layers import ParameterFreeShortcut
from divtf.networks.second_order import (
    flat_operations,
    require_exact_to_second_order,
    wrong_to_second_order,
)
from divtf.runtime.private_names import layers_of

WRONG = {
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "LayerNormalization": lambda: layers.LayerNormalization(),
    "GroupNormalization": lambda: layers.GroupNormalization(groups=2),
}

# Layers that a member of the user's own may well contain.
RIGHT = {
    "divtf BatchNormalization": lambda: BatchNormalization(),
    "AveragePooling2D": lambda: layers.AveragePooling2D(2),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(2, 3, activation="tanh"),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, activation="tanh"),
    "ELU": lambda: layers.ELU(),
    "GELU": lambda: layers.Activation("gelu"),
    "RMSNormalization": lambda: layers.RMSNormalization(),
    "SeparableConv2D": lambda: layers.SeparableConv2D(3, 3, activation="tanh"),
    "SiLU": lambda: layers.Activation("silu"),
    "Softplus": lambda: layers.Activation("softplus"),
    "UnitNormalization": lambda: layers.UnitNormalization(),
}


def worst_error(layer, tiny_members, tiny_batch, gradient_errors):
    """Largest relative error of Equation 9's parameter gradient, with the layer inside a smooth member."""

    def features(x):
        x = layers.Conv2D(4, 3, activation="tanh", bias_initializer="normal")(x)
        return layers.Dense(5, activation="tanh")(layers.Flatten()(layer()(x)))

    members = tiny_members(2, features=features, dtype="float64")
    x, y = tiny_batch(4)
    x, y = tf.constant(x, tf.float64), tf.constant(y)

    def loss():
        return tf.reduce_mean(GradientAlignment(0.5)(members, x, y, training=True).loss)

    return max(gradient_errors(loss, members[0].trainable_variables).values())


@pytest.mark.parametrize("name", WRONG)
def test_kerass_own_normalisations_are_wrong_to_second_order(name, tiny_members, tiny_batch, gradient_errors):
    """Once this fails, Keras has mended the layer: take it off the list of layers refused."""
    assert worst_error(WRONG[name], tiny_members, tiny_batch, gradient_errors) > 1e-3


@pytest.mark.parametrize("name", RIGHT)
def test_layers_that_are_accepted_are_right_to_second_order(name, tiny_members, tiny_batch, gradient_errors):
    assert worst_error(RIGHT[name], tiny_members, tiny_batch, gradient_errors) < 1e-6


@pytest.mark.parametrize("shape", [(8, 5), (8, 4, 3, 5)])
def test_batch_normalisation_equals_the_float64_twin(shape, rng):
    x, gamma, beta = rng.normal(2, 3, size=shape), rng.normal(size=5), rng.normal(size=5)
    layer = BatchNormalization(dtype="float64", epsilon=1e-2, momentum=0.9)
    layer.build(shape)
    layer.set_weights([gamma, beta, np.zeros(5), np.ones(5)])
    np.testing.assert_allclose(
        layer(x, training=True), reference.batch_normalised(x, gamma, beta, 1e-2), rtol=1e-11, atol=1e-12
    )
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(layer.moving_mean, 0.1 * x.mean(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * x.var(axis=axes), rtol=1e-12)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(
    "options",
    [{}, {"center": False}, {"scale": False}, {"axis": 1}, {"momentum": 0.5, "epsilon": 0.1}],
    ids=str,
)
def test_batch_normalisation_equals_kerass_in_value_and_moving_statistics(options, graph, rng):
    ours, keras_own = BatchNormalization(**options), layers.BatchNormalization(**options)
    calls = [tf.function(layer) if graph else layer for layer in (ours, keras_own)]
    for training in (True, True, False):
        x = tf.constant(rng.normal(1, 2, size=(16, 4, 4, 3)), tf.float32)
        found, expected = (call(x, training=training) for call in calls)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for found, expected in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_frozen_batch_normalisation_uses_and_keeps_the_moving_statistics(rng):
    layer = BatchNormalization()
    layer(tf.constant(rng.normal(size=(8, 3)), tf.float32), training=True)
    layer.trainable = False
    kept = layer.get_weights()
    x = tf.constant(rng.normal(5, 1, size=(8, 3)), tf.float32)
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    np.testing.assert_array_equal(layer.get_weights(), kept)


def test_batch_normalisation_keeps_statistics_in_float32_under_mixed_precision(rng):
    layer = BatchNormalization(dtype="mixed_bfloat16")
    y = layer(tf.constant(rng.normal(100, 1, size=(64, 3)), tf.bfloat16), training=True)
    assert y.dtype == tf.bfloat16 and {w.dtype for w in layer.weights} == {"float32"}


@pytest.mark.parametrize("option", ["synchronized", "renorm"])
def test_batch_normalisation_refuses_what_it_does_not_do(option):
    with pytest.raises(InputError, match=f"Expected {option}=False.*Received: {option}=True"):
        BatchNormalization(**{option: True})


def test_batch_normalisation_refuses_a_mask():
    masked = layers.Masking()(np.ones((2, 3, 4), "float32"))
    with pytest.raises(InputError, match="Expected no mask"):
        BatchNormalization()(masked)


@pytest.mark.parametrize(
    "layer",
    [BatchNormalization(momentum=0.7, epsilon=1e-4, name="bn"), ParameterFreeShortcut(2, 8, name="shortcut")],
    ids=["BatchNormalization", "ParameterFreeShortcut"],
)
def test_layers_are_rebuilt_from_their_config(layer):
    saved = keras.saving.serialize_keras_object(layer)
    restored = keras.saving.deserialize_keras_object(saved)
    assert type(restored) is type(layer) and restored.get_config() == layer.get_config()


def test_a_member_with_both_layers_survives_a_keras_file(tmp_path, tiny_members, tiny_batch):
    def features(x):
        return layers.Flatten()(ParameterFreeShortcut(2, 3)(BatchNormalization()(x)))

    (member,) = tiny_members(1, features=features)
    x, _ = tiny_batch()
    member(x, training=True)
    member.save(tmp_path / "member.keras")
    restored = keras.models.load_model(tmp_path / "member.keras")
    np.testing.assert_array_equal(restored(x), member(x))


@pytest.mark.parametrize("shape", [(2, 6, 6, 3), (1, 7, 4, 2), (3, 1, 1, 1)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_shortcut_subsamples_and_pads_with_zeros(shape, stride, rng):
    x = rng.normal(size=shape).astype("float32")
    layer = ParameterFreeShortcut(stride, 5)
    found = layer(x)
    np.testing.assert_array_equal(found, reference.padded_subsample(x, stride, 5))
    assert layer.compute_output_shape(shape) == tuple(found.shape) and not layer.weights


def test_the_shortcut_takes_images_of_unknown_size():
    assert ParameterFreeShortcut(2, 8).compute_output_shape((None, None, None, 3)) == (None, None, None, 8)


def normalised_features(x):
    """Batch normalisation twice, once inside a nested model."""
    inner = keras.Input(x.shape[1:])
    nested = keras.Model(inner, layers.BatchNormalization(name="deep")(layers.Conv2D(4, 3)(inner)), name="in")
    return layers.Flatten()(nested(layers.BatchNormalization(name="first", momentum=0.8)(x)))


def layer_names(member):
    return [layer.name for layer in layers_of(member) if not isinstance(layer, layers.InputLayer)]


def test_conversion_keeps_outputs_weights_names_and_the_original(tiny_members, tiny_batch):
    (member,) = tiny_members(1, features=normalised_features)
    x, _ = tiny_batch()
    for _ in range(3):
        member(x, training=True)  # moves the statistics
    converted = convert_member(member)
    np.testing.assert_allclose(converted(x), member(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(converted(x, training=True), member(x, training=True), rtol=1e-4, atol=1e-5)
    assert converted.name == member.name
    assert layer_names(converted) == layer_names(member)
    assert [w.shape for w in converted.weights] == [w.shape for w in member.weights]
    assert len(wrong_to_second_order(member)) == 2 and not wrong_to_second_order(converted)
    replaced = {layer.name: layer for layer in layers_of(converted)}
    assert type(replaced["first"]) is BatchNormalization and replaced["first"].momentum == 0.8
    assert type(replaced["deep"]) is BatchNormalization


def test_conversion_shares_no_weights_with_the_original(tiny_members, tiny_batch):
    (member,) = tiny_members(1, features=normalised_features)
    x, _ = tiny_batch()
    before = member(x)
    converted = convert_member(member)
    converted.set_weights([w + 1 for w in converted.get_weights()])
    np.testing.assert_array_equal(member(x), before)


def test_a_converted_member_is_right_to_second_order(tiny_members, tiny_batch, gradient_errors):
    def features(x):
        x = layers.Conv2D(4, 3, activation="tanh")(x)
        return layers.Dense(5, activation="tanh")(layers.Flatten()(layers.BatchNormalization()(x)))

    members = [convert_member(member) for member in tiny_members(2, features=features, dtype="float64")]
    x, y = tiny_batch(4)
    x, y = tf.constant(x, tf.float64), tf.constant(y)

    def loss():
        return tf.reduce_mean(GradientAlignment(0.5)(members, x, y, training=True).loss)

    assert max(gradient_errors(loss, members[0].trainable_variables).values()) < 1e-6


def test_conversion_of_a_sequential_model(tiny_batch):
    x, _ = tiny_batch()
    member = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)], name="mine"
    )
    converted = convert_member(member)
    np.testing.assert_allclose(converted(x), member(x), rtol=1e-5, atol=1e-6)
    assert converted.name == "mine" and not wrong_to_second_order(converted)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: layers.LayerNormalization(name="mine"), "LayerNormalization 'mine'"),
        (lambda: layers.GroupNormalization(groups=1, name="mine"), "GroupNormalization 'mine'"),
        (lambda: layers.BatchNormalization(synchronized=True, name="mine"), "BatchNormalization 'mine'"),
        (lambda: layers.BatchNormalization(renorm=True, name="mine"), "BatchNormalization 'mine'"),
    ],
)
def test_what_cannot_be_converted_is_refused(make, named, tiny_members):
    (member,) = tiny_members(1, features=lambda x: layers.Flatten()(make()(x)))
    with pytest.raises(InputError, match=f"not synchronized and has no renorm. Received: {named}"):
        convert_member(member)


@pytest.mark.parametrize("name", WRONG)
def test_members_with_wrong_layers_are_refused_with_what_to_do(name, tiny_members):
    (member,) = tiny_members(1, features=lambda x: layers.Flatten()(WRONG[name]()(layers.Conv2D(4, 3)(x))))
    with pytest.raises(InputError, match=f"member 'member_0' with {name}.*divtf.convert_member"):
        require_exact_to_second_order(member)


def test_a_wrong_layer_deep_in_nested_models_is_found(tiny_members):
    (member,) = tiny_members(1, features=normalised_features)
    with pytest.raises(InputError, match=r"'first'.*'deep'"):
        require_exact_to_second_order(member)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("LayerNorm", keras.ops.layer_normalization),
        ("Moments", lambda x: x - keras.ops.moments(x, axes=[1, 2], keepdims=True)[0]),
    ],
)
def test_operations_outside_layers_are_refused_too(name, operation, nested):
    images = keras.Input((4, 4, 2))
    normalised = keras.Model(images, operation(images))(images) if nested else operation(images)
    member = keras.Model(images, layers.Dense(3)(layers.Flatten()(normalised)))
    with pytest.raises(InputError, match=rf"exact to second order.*{name}"):
        require_exact_to_second_order(member)
    assert any("MaxPool" in type(node).__name__ for node in flat_operations(_pooled()))


def _pooled():
    images = keras.Input((4, 4, 2))
    return keras.Model(images, keras.ops.max_pool(images, 2))
