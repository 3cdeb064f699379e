"""Layers that are exact to second order, in the place of Keras's."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers

from divtf import (
    BatchNormalization,
    GradientAlignment,
    GroupNormalization,
    InputError,
    LayerNormalization,
    Resizing,
    UpSampling2D,
)
from divtf.networks.layers import ParameterFreeShortcut

WRONG = {
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "LayerNormalization": lambda: layers.LayerNormalization(),
    "GroupNormalization": lambda: layers.GroupNormalization(groups=2),
    "Resizing": lambda: layers.Resizing(5, 9),
    "UpSampling2D": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
}
RIGHT = {
    "BatchNormalization": lambda: BatchNormalization(),
    "synchronized BatchNormalization": lambda: BatchNormalization(synchronized=True),
    "LayerNormalization": lambda: LayerNormalization(),
    "LayerNormalization of images": lambda: LayerNormalization(axis=(1, 2)),
    "LayerNormalization without factors": lambda: LayerNormalization(center=False, scale=False),
    "GroupNormalization": lambda: GroupNormalization(groups=2),
    "GroupNormalization of each channel": lambda: GroupNormalization(groups=-1),
    "Resizing": lambda: Resizing(5, 9),
    "Resizing by the nearest": lambda: Resizing(5, 9, interpolation="nearest"),
    "UpSampling2D": lambda: UpSampling2D(2, interpolation="bilinear"),
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
def test_kerass_own_layers_are_wrong_to_second_order(name, tiny_members, tiny_batch, gradient_errors):
    """Once this fails, Keras has mended the layer, which needs no replacement any more."""
    assert worst_error(WRONG[name], tiny_members, tiny_batch, gradient_errors) > 1e-3


@pytest.mark.parametrize("name", RIGHT)
def test_layers_in_their_place_are_right_to_second_order(name, tiny_members, tiny_batch, gradient_errors):
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


@pytest.mark.parametrize(
    ("layer", "option"),
    [
        (BatchNormalization, "renorm"),
        (lambda **options: Resizing(4, 4, **options), "crop_to_aspect_ratio"),
        (lambda **options: Resizing(4, 4, **options), "pad_to_aspect_ratio"),
    ],
)
def test_layers_refuse_what_they_do_not_do(layer, option):
    with pytest.raises(InputError, match=f"Expected {option}=False.*Received: {option}=True"):
        layer(**{option: True})


KERASS = {
    "LayerNormalization": (LayerNormalization, layers.LayerNormalization),
    "GroupNormalization": (GroupNormalization, layers.GroupNormalization),
    "Resizing": (Resizing, layers.Resizing),
    "UpSampling2D": (UpSampling2D, layers.UpSampling2D),
}


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LayerNormalization", {}),
        ("LayerNormalization", {"axis": [1, 2], "epsilon": 0.1}),
        ("LayerNormalization", {"center": False}),
        ("LayerNormalization", {"scale": False}),
        ("GroupNormalization", {"groups": 3}),
        ("GroupNormalization", {"groups": 2, "axis": 1, "epsilon": 0.1}),
        ("GroupNormalization", {"groups": -1, "scale": False}),
        *(
            ("Resizing", {"height": height, "width": width, "interpolation": kind, "antialias": antialias})
            for height, width in ((3, 9), (8, 4))
            for kind in ("bilinear", "nearest", "bicubic", "lanczos3")
            for antialias in (False, True)
        ),
        ("Resizing", {"height": 7, "width": 2, "data_format": "channels_first"}),
        *(
            ("UpSampling2D", {"size": (2, 3), "interpolation": kind})
            for kind in ("nearest", "bilinear", "bicubic")
        ),
        ("UpSampling2D", {"data_format": "channels_first", "interpolation": "bilinear"}),
    ],
    ids=str,
)
def test_layers_equal_kerass_in_value(name, options, dtype, rng):
    ours, keras_own = (layer(**options, dtype=dtype) for layer in KERASS[name])
    x = tf.constant(rng.normal(1, 2, size=(5, 4, 6, 6)), ours.compute_dtype)
    found, expected = ours(x), keras_own(x)
    tolerance = 0.05 if dtype == "mixed_bfloat16" else 2e-5
    np.testing.assert_allclose(
        tf.cast(found, tf.float64), tf.cast(expected, tf.float64), atol=tolerance, rtol=tolerance
    )
    assert found.dtype == ours.compute_dtype
    assert found.shape == keras_own.compute_output_shape(x.shape)
    assert (
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours)).get_config()
        == ours.get_config()
    )


def test_resizing_of_one_image_and_of_whole_numbers():
    image = np.arange(48).reshape(4, 4, 3)
    np.testing.assert_allclose(
        Resizing(2, 2)(image), layers.Resizing(2, 2, dtype="float32")(image.astype("f"))
    )


@pytest.mark.parametrize("layer", [Resizing(4, 4), UpSampling2D(2)], ids=["Resizing", "UpSampling2D"])
def test_images_of_open_size_are_refused_by_the_resizings(layer):
    with pytest.raises(
        InputError, match=r"Expected images of known size.*Received: shape \(None, None, None, 3\)"
    ):
        layer(keras.Input((None, None, 3)))


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
