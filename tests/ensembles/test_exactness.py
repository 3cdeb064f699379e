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
    *("ContrastLimitedAdaptiveHistogramEqualization", "RandomHue", "RandomPosterization", "RandomSaturation"),
}
# What TensorFlow has no float64 for, or Keras makes no copy of.
NOT_MEASURED = {
    *("AveragePooling3D", "MaxPooling3D", "AdaptiveAveragePooling3D", "AdaptiveMaxPooling3D"),
    *("MelSpectrogram", "RandomShear"),
}
# What TensorFlow or Keras gets wrong. Spectral normalisation holds its vectors constant, as stop_gradient:
# their slopes are not those of their values, and that is meant.
WRONG = (CONVERTED - NONE) | {
    *("ops.moments", "ops.layer_normalization", "a layer with keras.ops.moments"),
    *("a layer with tf.nn.moments", "RandomTranslation", "RandomRotation", "SpectralNormalization"),
    *("RandomPerspective", "RandomZoom"),
    "ops.stop_gradient",
}


@pytest.mark.parametrize(
    "graph", [pytest.param(False, id="eager"), pytest.param(True, id="graph", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("shape", "name"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_layer_is_found_to_be_what_it_is(shape, name, graph):
    member = table.in_member(table.LAYERS[shape][name], shape)
    if name in NOT_MEASURED:
        with pytest.raises(InputError, match=r"copied in float64, to be measured, or check=False"):
            measure(member, member.input_shape, graph=graph)
        return
    found = measure(member, member.input_shape, graph=graph)
    if name in NONE:
        assert found.reason.startswith("no second derivative")
    elif name in WRONG:
        assert not found.exact and not found.reason
    else:
        assert found.error < TOLERANCE


@pytest.mark.parametrize("seed", [22, 44, 53])
def test_chance_hides_no_layer(seed):
    """With these seeds the layer leaves four images as they are."""
    member = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 3, activation="tanh"), layers.RandomPerspective()]
    )
    member.add(layers.Flatten())
    member.add(layers.Dense(3))
    keras.utils.set_random_seed(seed)
    assert not measure(member, member.input_shape).exact


@pytest.mark.parametrize("seed", [0, 2])
def test_a_layer_that_changes_few_images_is_found(seed):
    """With these seeds it leaves all twelve images as they are: the member by itself seems exact."""
    keras.utils.set_random_seed(seed)
    member = smooth(layers.Conv2D(3, 3, activation="tanh"), layers.RandomPerspective(factor=0.1, name="rare"))
    assert measure(member, member.input_shape).exact
    with pytest.raises(
        InputError, match=r"slope of GAL that is off now and then in RandomPerspective 'rare'"
    ):
        exactness.require_exact([member], member.input_shape)


def test_a_right_layer_that_draws_is_taken_after_a_look_at_many_images(monkeypatch):
    looked, compare = [], exactness.compare
    monkeypatch.setattr(
        exactness, "compare", lambda *a, **k: looked.append(a[1][0].shape[0]) or compare(*a, **k)
    )
    member = smooth(layers.Conv2D(3, 3, activation="tanh"), layers.Dropout(0.5))
    exactness.require_exact([member], member.input_shape)
    assert looked == [12, 100]


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


@pytest.mark.slow
def test_a_vision_transformer_is_converted_and_trains(rng):
    member = vision_transformer(layers.LayerNormalization)
    assert not measure(member, member.input_shape).exact
    members = [convert_member(vision_transformer(layers.LayerNormalization)) for _ in range(2)]
    assert measure(members[0], members[0].input_shape).error < TOLERANCE
    ensemble = Ensemble(members)
    ensemble.compile("adam")
    x, y = rng.random((8, 8, 8, 3), dtype="float32"), rng.integers(5, size=8)
    assert np.isfinite(ensemble.fit(x, y, verbose=0).history["gal"]).all()


@pytest.mark.parametrize(
    ("name", "activation"), [*((name, "leaky_relu") for name in MODELS), ("conv3", "silu")]
)
def test_members_of_this_package_are_exact_and_are_not_measured(name, activation, monkeypatch):
    """The reason for which the Ensemble takes them without measuring."""
    member = build_member(name, (8, 8, 3), 4, activation=activation)
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


def standardised(x):
    mean, variance = tf.nn.moments(x, [1, 2, 3], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-3)


class OwnCall(keras.Sequential):
    """Normalises in a call of its own, of which its layers do not tell."""

    def call(self, inputs, training=None, mask=None):
        return super().call(standardised(inputs), training=training)


class Configured(keras.Model):
    """Given a function that its configuration does not tell of."""

    def __init__(self, function=None):
        super().__init__(name="configured")
        self.function = function or tf.identity
        self.conv, self.flatten, self.dense = (
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(3),
        )

    def call(self, inputs):
        return self.dense(self.flatten(self.function(self.conv(inputs))))


def own_call():
    parts = [layers.Conv2D(4, 3, activation="tanh"), layers.Flatten(), layers.Dense(3)]
    return OwnCall([keras.Input((8, 8, 3)), *parts])


def configured():
    model = Configured(standardised)
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


@pytest.mark.parametrize("make", [own_call, configured])
def test_what_is_measured_is_the_member_and_no_other_function(make):
    with pytest.raises(InputError, match="whose layers put together anew give other outputs"):
        Ensemble([make(), make()])


def frozen(frozen=True):
    member = smooth(layers.Conv2D(3, 3, activation="tanh"), layers.BatchNormalization(name="bn"))
    member.get_layer("bn").trainable = not frozen
    return member


def test_what_is_trained_later_is_measured_then(rng):
    x, y = rng.random((8, 8, 8, 3), dtype="float32"), rng.integers(3, size=8)
    unfrozen = Ensemble([frozen(), frozen()])
    other_objective = Ensemble([frozen(False), frozen(False)], CrossEntropy())
    for ensemble in (unfrozen, other_objective):
        ensemble.compile("adam")
        ensemble.fit(x, y, verbose=0)
    for member in unfrozen.members:
        member.get_layer("bn").trainable = True
    unfrozen.compile("adam")
    other_objective.objective = GradientAlignment()
    for ensemble in (unfrozen, other_objective):
        with pytest.raises(InputError, match=r"BatchNormalization 'bn'; divtf.convert_member"):
            ensemble.fit(x, y, verbose=0)
        with pytest.raises(InputError, match="BatchNormalization 'bn'"):
            ensemble.train_on_batch(x, y)


def unbuilt():
    return keras.Sequential(
        [layers.Conv2D(4, 3), layers.LayerNormalization(name="ln"), layers.Flatten(), layers.Dense(3)]
    )


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
@pytest.mark.parametrize("by", ["file", "configuration"])
def test_what_was_not_measured_before_it_was_saved_is_measured_after(by, tmp_path, rng):
    x, y = rng.random((8, 8, 8, 3), dtype="float32"), rng.integers(3, size=8)
    made = [Ensemble([unbuilt(), unbuilt()]), Ensemble([frozen(False), frozen(False)], CrossEntropy())]
    for number, ensemble in enumerate(made):
        if by == "file":
            ensemble.save(tmp_path / f"{number}.keras")
            restored = keras.models.load_model(tmp_path / f"{number}.keras")
        else:
            restored = Ensemble.from_config(ensemble.get_config())
        restored.compile("adam")
        restored.objective = GradientAlignment()
        with pytest.raises(InputError, match="exact to second order"):
            restored.fit(x, y, verbose=0)


def test_what_was_measured_before_it_was_saved_is_not_measured_again(tmp_path, monkeypatch):
    ensemble = Ensemble([smooth(layers.ReLU()) for _ in range(2)])
    ensemble.save(tmp_path / "e.keras")
    monkeypatch.setattr(exactness, "measure", None)
    monkeypatch.setattr(exactness, "_EXACT", set())
    restored = keras.models.load_model(tmp_path / "e.keras")
    restored.compile("adam")
    restored.fit(np.zeros((2, 8, 8, 3), "float32"), np.array([0, 1]), verbose=0)


def test_functions_of_one_name_are_measured_each():
    def with_activation(function):
        register = keras.saving.register_keras_serializable("tests", "own")
        return [smooth(layers.Conv2D(4, 3, activation=register(function))) for _ in range(2)]

    Ensemble(with_activation(lambda x: tf.nn.softplus(x)))
    with pytest.raises(InputError, match="exact to second order"):
        Ensemble(with_activation(lambda x: standardised(x)))


class Noise(layers.Layer):
    def call(self, inputs, training=None):
        return inputs + tf.random.normal(tf.shape(inputs), dtype=inputs.dtype) if training else inputs


class Constant(layers.Layer):
    def call(self, inputs):
        return inputs - tf.constant([0.4, 0.4, 0.5])


class Holding(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.BatchNormalization()

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Noise, r"with random numbers of its own, which no seed of Keras repeats in Noise 'noise[_\d]*'$"),
        (Constant, r"copied in float64, to be measured, or check=False.*calling Constant.call"),
        (Holding, r"off by .* in Holding 'holding[_\d]*'$"),
    ],
)
def test_the_reason_is_the_true_one(part, said):
    with pytest.raises(InputError, match=said) as raised:
        Ensemble([smooth(layers.Conv2D(3, 3, activation="tanh"), part()) for _ in range(2)])
    assert "\n" not in str(raised.value)
