"""What is exact to second order, by measuring: every layer, many operations, and the user's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from benchmarks import exactness as table
from divtf import CrossEntropy, Ensemble, GradientAlignment, InputError, build_member
from divtf.ensembles import exactness, slopes
from divtf.ensembles.exactness import measure
from divtf.ensembles.slopes import TOLERANCE
from divtf.networks.conversion import convert_member
from divtf.networks.models import MODELS, is_built_here

# Everywhere the tolerance of the check itself: at its shortest step float64's rounding is 1e-6 of a slope and
# more, and what is wrong is off by 1e-3 and more.
CASES = [(shape, name) for shape, makes in table.LAYERS.items() for name in makes]
# What `convert_member` puts right.
CONVERTED = {
    *("BatchNormalization", "BatchNormalization, axis 1", "a nested model with BatchNormalization"),
    *("LayerNormalization", "LayerNormalization, axes 1, 2", "TimeDistributed(LayerNormalization)"),
    *("GroupNormalization", "GroupNormalization of each channel"),
    *("UpSampling2D, bilinear", "UpSampling2D, bicubic", "Resizing, bilinear", "Resizing, nearest"),
    *("Resizing, bicubic", "Resizing, lanczos3", "Resizing, antialias"),
}
# What has no second derivative at all.
NONE = {
    *("UpSampling2D, bicubic", "Resizing, nearest", "Resizing, bicubic", "Resizing, lanczos3"),
    *("Resizing, antialias", "Lambda, local response normalisation", "Activation(softsign)"),
}
# What TensorFlow or Keras gets wrong. Spectral normalisation holds its vectors constant, as stop_gradient:
# their slopes are not those of their values, and that is meant.
WRONG = (CONVERTED - NONE) | {
    *("ops.moments", "ops.layer_normalization", "a layer with keras.ops.moments"),
    *("a layer with tf.nn.moments", "RandomTranslation", "RandomRotation", "SpectralNormalization"),
    "ops.stop_gradient",
}


@pytest.mark.parametrize(
    "graph", [pytest.param(False, id="eager"), pytest.param(True, id="graph", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("shape", "name"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_layer_is_found_to_be_what_it_is(shape, name, graph):
    member = table.in_member(table.LAYERS[shape][name], shape)
    found = measure(member, member.input_shape, graph=graph)
    if name in NONE:
        assert found.reason.startswith("no second derivative")
    elif name in WRONG:
        assert 1e-4 < found.error < np.inf
    else:
        assert found.error < TOLERANCE


@pytest.mark.parametrize("name", sorted(CONVERTED))
def test_what_is_converted_is_exact(name):
    for shape, makes in table.LAYERS.items():
        if name in makes:
            member = table.in_member(makes[name], shape)
            assert measure(convert_member(member), member.input_shape).error < TOLERANCE


@pytest.mark.parametrize("name", sorted((WRONG | NONE) - CONVERTED))
def test_what_is_not_exact_is_refused_with_its_layer(name):
    for shape, makes in table.LAYERS.items():
        if name in makes:
            member = table.in_member(makes[name], shape)
            with pytest.raises(
                InputError, match=r"exact to second order.*member 'member' with .* in \w+ '"
            ) as raised:
                Ensemble([member, table.in_member(lambda: layers.ReLU(), shape)])
            assert "\n" not in str(raised.value) and "convert_member" not in str(raised.value)


FAMILIES = ("ConvNeXtTiny", "EfficientNetV2B0", "MobileNetV3Small", "ResNet50V2")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_keras_applications_are_converted_and_train(name):
    members = [convert_member(table.FAMILIES[name]()) for _ in range(2)]
    assert measure(members[0], members[0].input_shape).error < TOLERANCE
    ensemble = Ensemble(members, GradientAlignment(0.5), check=False)
    ensemble.compile("adam")
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 32, 32, 3), dtype="float32"), rng.integers(5, size=8)
    history = ensemble.fit(x, y, batch_size=4, verbose=0).history
    assert np.isfinite(history["gal"]).all()


def vision_transformer(norm):
    """A small one: patches, two blocks of attention, a token for the class left out."""
    images = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, strides=2)(images))
    for _ in range(2):
        normalised = norm()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(normalised, normalised)])
        x = layers.Add()([x, layers.Dense(8)(layers.Dense(16, "gelu")(norm()(x)))])
    return keras.Model(images, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)), name="vit")


def test_a_vision_transformer_is_converted_and_trains(rng):
    member = vision_transformer(layers.LayerNormalization)
    assert not measure(member, member.input_shape).exact
    members = [convert_member(vision_transformer(layers.LayerNormalization)) for _ in range(2)]
    assert measure(members[0], members[0].input_shape).error < TOLERANCE
    ensemble = Ensemble(members)
    ensemble.compile("adam")
    x, y = rng.random((8, 8, 8, 3), dtype="float32"), rng.integers(5, size=8)
    assert np.isfinite(ensemble.fit(x, y, verbose=0).history["gal"]).all()


@pytest.mark.parametrize("name", MODELS)
def test_members_of_this_package_are_exact_and_are_not_measured(name, monkeypatch):
    """The reason for which the Ensemble takes them without measuring."""
    member = build_member(name, (8, 8, 3), 4)
    assert is_built_here(member)
    assert measure(member, member.input_shape).error < TOLERANCE
    monkeypatch.setattr(exactness, "measure", None)
    Ensemble([member, build_member(name, (8, 8, 3), 4)])


def test_resizing_that_hides_gal_is_refused_and_works_once_converted(rng):
    """Bilinear resizing right before the weights: whatever GAL's weight, they were the same to the bit."""

    def member(seed):
        keras.utils.set_random_seed(seed)
        images = keras.Input((8, 8, 1))
        x = layers.Flatten()(layers.Resizing(12, 12)(images))
        return keras.Model(images, layers.Dense(3)(layers.Dense(5, "tanh")(x)), name=f"m{seed}")

    x, y = rng.random((8, 8, 8, 1), dtype="float32"), rng.integers(3, size=8)

    def trained(convert, weight, check):
        ensemble = Ensemble(
            [convert(member(seed)) for seed in (0, 1)], GradientAlignment(weight), check=check
        )
        ensemble.compile(keras.optimizers.SGD(0.1))
        ensemble.fit(x, y, verbose=0)
        return ensemble.get_weights()[0]

    np.testing.assert_array_equal(trained(lambda m: m, 0.0, False), trained(lambda m: m, 100.0, False))
    with pytest.raises(InputError, match=r"Resizing 'resizing.*divtf.convert_member"):
        trained(lambda m: m, 0.5, True)
    assert np.abs(trained(convert_member, 0.0, True) - trained(convert_member, 1.0, True)).max() > 1e-4


def smooth(*parts, shape=(8, 8, 3)):
    x = images = keras.Input(shape)
    for part in parts:
        x = part(x)
    return keras.Model(images, layers.Dense(3)(layers.Flatten()(x)), name="mine")


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (lambda: layers.LayerNormalization(name="ln"), "LayerNormalization 'ln'; divtf.convert_member"),
        (lambda: layers.Activation("softsign", name="s"), "no second derivative .* in Activation 's'$"),
        (lambda: table.StandardisedByKeras(name="mean"), "off by .* in StandardisedByKeras 'mean'$"),
        (lambda: table.StandardisedByTensorFlow(name="tf"), "off by .* in StandardisedByTensorFlow 'tf'$"),
        (lambda: keras.ops.layer_normalization, "in LayerNorm 'layer_norm"),
        (
            lambda: smooth(layers.BatchNormalization(name="deep")),
            "in BatchNormalization 'deep'; divtf.convert",
        ),
    ],
)
def test_the_layers_that_are_not_exact_are_named(part, named):
    member = smooth(layers.Conv2D(3, 3, activation="tanh", padding="same"), part(), layers.ReLU())
    with pytest.raises(InputError, match=named):
        exactness.require_exact([member], member.input_shape)


def test_a_right_layer_may_have_any_name():
    member = smooth(layers.Conv2D(3, 3), table.Moments())
    assert measure(member, member.input_shape).exact


def test_measuring_leaves_the_member_as_it_is():
    member = smooth(layers.BatchNormalization(), layers.Dropout(0.5))
    before = [variable.numpy() for variable in member.variables]
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    measure(member, member.input_shape)
    for found, expected in zip(member.variables, before, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ("members", "measured"),
    [
        (lambda: [smooth(layers.Dense(4, "tanh")) for _ in range(3)], 1),
        (lambda: [smooth(layers.Dense(units, "tanh")) for units in (4, 5, 4)], 2),
        (lambda: [smooth(layers.Dense(4, kind)) for kind in ("tanh", "relu")], 2),
        (lambda: [smooth(layers.Lambda(function)) for function in (tf.tanh, tf.nn.softsign)], 2),
        (lambda: [smooth(table.Moments()) for _ in range(2)], 2),
    ],
)
def test_members_of_the_same_layers_are_measured_once(members, measured, monkeypatch):
    calls = []
    monkeypatch.setattr(exactness, "_EXACT", set())
    monkeypatch.setattr(exactness, "measure", lambda *_: calls.append(1) or slopes.Exactness(0.0))
    Ensemble(members())
    assert len(calls) == measured


def test_small_scales_and_heads_of_zero_hide_no_fault():
    """A layer scale of 1e-6, as of ConvNeXt, and a head that starts at 0."""

    class Scale(layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(shape=(shape[-1],), initializer=keras.initializers.Constant(1e-6))

        def call(self, x):
            return self.gamma * x

    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="tanh")(images)
    x = layers.Add()([x, Scale()(layers.LayerNormalization()(x))])
    head = layers.Dense(3, kernel_initializer="zeros")
    member = keras.Model(images, head(layers.Flatten()(x)))
    assert measure(member, member.input_shape).error > 1e-3


def test_without_gal_or_when_told_not_to_nothing_is_measured(monkeypatch):
    def members():
        return [smooth(layers.BatchNormalization()) for _ in range(2)]

    monkeypatch.setattr(exactness, "measure", None)
    Ensemble(members(), CrossEntropy())
    Ensemble(members(), check=False)


def test_a_wrong_slope_is_found_wherever_it_is(monkeypatch):
    """The measure itself, on a right member with a gradient that is made wrong by one per mille."""
    member = smooth(layers.Dense(4, "tanh"))
    assert measure(member, member.input_shape).exact
    cosines = slopes._mean_cosine

    @tf.custom_gradient
    def nearly(value):
        return value, lambda upstream: 1.001 * upstream

    monkeypatch.setattr(slopes, "_mean_cosine", lambda *arguments: nearly(cosines(*arguments)))
    found = measure(member, member.input_shape)
    assert not found.exact and 1e-4 < found.error < 1e-2
