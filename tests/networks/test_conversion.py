"""Copies of members with exact layers, and in float64."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from logged import logged

from divtf import BatchNormalization, GradientAlignment, InputError, convert_member
from divtf.networks.conversion import float64_copy, give_weights, is_replaced, takes_bytes
from divtf.runtime.private_names import layers_of


def normalised_features(x):
    """Batch normalisation twice, once inside a nested model."""
    inner = keras.Input(x.shape[1:])
    nested = keras.Model(inner, layers.BatchNormalization(name="deep")(layers.Conv2D(4, 3)(inner)), name="in")
    return layers.Flatten()(nested(layers.BatchNormalization(name="first", momentum=0.8)(x)))


def layer_names(member):
    return [layer.name for layer in layers_of(member) if not isinstance(layer, layers.InputLayer)]


def of(*first):
    return keras.Sequential([keras.Input((8, 8, 3)), *first, layers.Flatten(), layers.Dense(3)])


def nested():
    x = keras.Input((8, 8, 3))
    return keras.Model(x, of(layers.Rescaling(1 / 255))(x))


def with_a_temperature():
    x = keras.Input((8, 8, 3))
    return keras.Model(x, layers.Rescaling(1 / 128)(of()(x)))


TAKEN = {
    "bytes": (lambda: of(layers.Rescaling(1 / 255)), True),
    "bytes to [-1, 1]": (lambda: of(layers.Rescaling(1 / 127.5, -1)), True),
    "bytes, by channel": (lambda: of(layers.Rescaling([1 / 255] * 3)), True),
    "bytes that are augmented": (lambda: of(layers.RandomFlip(seed=0), layers.Rescaling(1 / 255)), True),
    "bytes, nested": (nested, True),
    "bytes, normalised": (lambda: of(layers.Normalization(mean=[120.0] * 3, variance=[9.0] * 3)), True),
    "unit images": (of, False),
    "unit images, normalised": (lambda: of(layers.Normalization(mean=0.5, variance=0.1)), False),
    "unit images, halved": (lambda: of(layers.Rescaling(0.5)), False),
    "unit images, made bytes": (lambda: of(layers.Rescaling(255.0), layers.Rescaling(1 / 255)), False),
    "unit images, with a temperature": (with_a_temperature, False),
}


@pytest.mark.parametrize("what", TAKEN)
def test_models_that_take_bytes_are_known_by_what_comes_first(what):
    make, expected = TAKEN[what]
    assert takes_bytes(make()) is expected


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
    assert converted.name == "mine" and type(converted.layers[0]) is BatchNormalization


def net(*parts, shape=(6, 6, 3)):
    """A functional member with layers in a row."""
    x = images = keras.Input(shape)
    for part in parts:
        x = part(x)
    return keras.Model(images, x, name="mine")


HEADS = {
    "Dense": (lambda: [layers.Dense(3, activation="softmax", name="head")]),
    "Softmax": (lambda: [layers.Dense(3), layers.Softmax(name="head")]),
    "Activation": (lambda: [layers.Dense(3), layers.Activation("softmax", name="head", dtype="float32")]),
    "an operation": (lambda: [layers.Dense(3), keras.ops.softmax]),
    "nested": (lambda: [net(layers.Dense(3, activation="softmax"), shape=(108,))]),
}


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_a_softmax_at_the_end_is_taken_off(head, sequential, tiny_batch):
    if sequential and head == "an operation":
        pytest.skip("Sequential models are of layers")
    parts = [layers.Flatten(), *HEADS[head]()]
    member = keras.Sequential([keras.Input((6, 6, 3)), *parts], name="mine") if sequential else net(*parts)
    with logged() as lines:
        converted = convert_member(member)
    assert lines == ["takes the softmax off member 'mine': it gives logits now"]
    x, _ = tiny_batch(input_shape=(6, 6, 3))
    np.testing.assert_allclose(tf.nn.softmax(converted(x)), member(x), atol=1e-6)
    assert np.asarray(converted(x)).min() < 0
    names = [layer.name for layer in member.layers]
    assert [layer.name for layer in converted.layers][: len(names)] == names
    again = type(converted).from_config(json.loads(json.dumps(converted.get_config())))
    assert [layer.name for layer in again.layers] == [layer.name for layer in converted.layers]


def test_a_softmax_elsewhere_stays(tiny_batch):
    member = net(layers.Flatten(), layers.Dense(5, activation="softmax"), layers.Dense(3))
    x, _ = tiny_batch(input_shape=(6, 6, 3))
    np.testing.assert_allclose(convert_member(member)(x), member(x), atol=1e-6)


PARTS = {
    "Lambda": lambda: layers.Lambda(lambda x: tf.nn.softplus(x) * 2, name="curve"),
    "Lambda with arguments": lambda: layers.Lambda(lambda x, factor: x * factor, arguments={"factor": 3.0}),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.LayerNormalization()),
    "mixed precision": lambda: layers.Conv2D(4, 3, dtype="mixed_bfloat16"),
    "float64": lambda: layers.Conv2D(4, 3, dtype="float64"),
    "a frozen layer": lambda: layers.Conv2D(4, 3, trainable=False),
    "a custom layer": lambda: Doubled(name="twice"),
    "an operation": lambda: keras.ops.tanh,
    **{kind.__name__: kind for kind in (layers.BatchNormalization, layers.LayerNormalization)},
    "GroupNormalization": lambda: layers.GroupNormalization(3),
    "Resizing": lambda: layers.Resizing(4, 9),
    "UpSampling2D": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
}


class Doubled(layers.Layer):
    """Not registered with Keras."""

    def call(self, inputs):
        return inputs * 2


@pytest.mark.parametrize("part", PARTS)
def test_copies_compute_the_same(part, tiny_batch):
    member = net(PARTS[part](), layers.Flatten(), layers.Dense(3))
    x, _ = tiny_batch(input_shape=(6, 6, 3))
    expected = tf.cast(member(x), tf.float64)
    converted, precise = convert_member(member), float64_copy(member)
    precise.set_weights(member.get_weights())
    np.testing.assert_allclose(
        tf.cast(converted(x), tf.float64), expected, atol=1e-2 if "mixed" in part else 1e-5
    )
    np.testing.assert_allclose(
        precise(tf.cast(x, tf.float64)), expected, atol=2e-2 if "mixed" in part else 1e-5
    )
    assert precise(tf.cast(x, tf.float64)).dtype == tf.float64
    for copy in (converted, precise):
        assert [layer.name for layer in copy.layers] == [layer.name for layer in member.layers]
        assert len(copy.trainable_variables) == len(member.trainable_variables)
    policies = [[layer.dtype_policy.name for layer in model.layers] for model in (converted, member)]
    assert policies[0] == policies[1]
    assert not [layer for layer in layers_of(converted) if is_replaced(layer)]


def test_a_layer_in_several_models_is_one_in_the_copy(tiny_batch):
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    inner = net(shared, shape=(6, 6, 3))
    images = keras.Input((6, 6, 3))
    x = shared(inner(shared(images)))
    member = keras.Model(images, layers.Dense(3)(layers.Flatten()(layers.BatchNormalization()(x))), name="m")
    x, _ = tiny_batch(input_shape=(6, 6, 3))
    converted = convert_member(member)
    np.testing.assert_allclose(converted(x), member(x), atol=1e-5)
    assert len(converted.trainable_variables) == len(member.trainable_variables) == 6


class Block(layers.Layer):
    """Makes a layer in its own code."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.BatchNormalization(name="bn")

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


class Subclassed(keras.Model):
    """Whose wiring nobody knows."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units, self.flatten, self.dense = units, layers.Flatten(), layers.Dense(units)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))

    def get_config(self):
        return super().get_config() | {"units": self.units}


def test_a_subclassed_model_is_copied_in_float64(tiny_batch):
    member, (x, _) = Subclassed(units=4), tiny_batch(input_shape=(6, 6, 3))
    expected = member(x)
    copy = float64_copy(member)
    copy.set_weights(member.get_weights())
    np.testing.assert_allclose(copy(tf.cast(x, tf.float64)), expected, atol=1e-6)
    assert keras.config.dtype_policy().name == "float32"


REFUSED = {
    "a layer in a layer": (
        lambda: net(Block(name="b"), layers.Flatten()),
        "BatchNormalization 'bn'.*use divtf.Batch",
    ),
    "renorm": (lambda: net(layers.BatchNormalization(renorm=True)), "renorm=False"),
    "crop": (lambda: net(layers.Resizing(3, 3, crop_to_aspect_ratio=True)), "crop_to_aspect_ratio=False"),
    "a subclassed model": (Subclassed, "Functional or Sequential model.*Subclassed"),
    "a layer": (lambda: layers.Dense(3), "Functional or Sequential model.*Dense"),
    "a Sequential not built": (lambda: keras.Sequential([layers.Dense(3)]), "Functional or Sequential"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_one_line(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as raised:
        convert_member(make())
    assert "\n" not in str(raised.value)


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(5, 9, size=(16, 6, 6, 3)).astype("float32"))
    return layer


def curve(x):
    return tf.nn.softplus(x)


OWN = {
    "an adapted Normalization": adapted,
    "an activation of the user's": lambda: layers.Conv2D(2, 3, activation=curve),
    "an activation without a name": lambda: layers.Conv2D(2, 3, activation=lambda x: x * tf.tanh(x)),
    "a regularizer without a name": lambda: layers.Conv2D(
        2, 3, kernel_regularizer=lambda w: tf.reduce_sum(w * w)
    ),
    "an initializer of the user's": lambda: layers.Conv2D(
        2, 3, bias_initializer=lambda shape, dtype=None: tf.ones(shape, dtype)
    ),
    "a model in a wrapper": lambda: layers.TimeDistributed(
        net(layers.Dense(4), layers.LayerNormalization(), shape=(6, 3))
    ),
    "nearest upsampling": lambda: layers.UpSampling2D(2),
}


@pytest.mark.parametrize("part", OWN)
def test_what_is_the_user_s_own_is_copied_too(part, tiny_batch):
    member = net(OWN[part](), layers.Flatten(), layers.Dense(3))
    x, _ = tiny_batch(input_shape=(6, 6, 3))
    copy = float64_copy(member)
    give_weights(copy, member.get_weights())
    for made, images in ((convert_member(member), x), (copy, tf.cast(x, tf.float64))):
        np.testing.assert_allclose(made(images), member(x), rtol=1e-4, atol=1e-4)
    assert not [layer for layer in layers_of(convert_member(member)) if is_replaced(layer)]


def test_upsampling_by_repeating_may_be_of_any_size():
    images = keras.Input((None, None, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.UpSampling2D(2)(images))
    convert_member(keras.Model(images, layers.Dense(3)(pooled)))


class OtherCall(keras.Sequential):
    """Its layers do not tell what it computes."""

    def call(self, inputs, training=None, mask=None):
        return super().call(tf.square(inputs), training=training)


def softmax_used_twice():
    head = layers.Dense(3, activation="softmax")
    images = keras.Input((3,))
    return keras.Model(images, head(head(images)), name="twice")


@pytest.mark.parametrize(
    "make",
    [lambda: OtherCall([keras.Input((6,)), layers.Dense(3)], name="other"), softmax_used_twice],
    ids=["a call of its own", "a softmax within and at the end"],
)
def test_copies_that_compute_something_else_are_refused(make):
    with pytest.raises(
        InputError, match=r"whose layers put together anew give other outputs, off by"
    ) as raised:
        convert_member(make())
    assert "\n" not in str(raised.value)
