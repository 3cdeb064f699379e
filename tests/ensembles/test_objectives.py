"""What training minimises: Equation 9, its parts, and its parameter gradients for every layer type."""

import functools

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers

from divtf import BatchNormalization, CrossEntropy, GradientAlignment, InputError, build_members
from divtf.ensembles import alignment
from divtf.ensembles.objectives.terms import Terms
from divtf.networks import models
from divtf.networks.layers import ParameterFreeShortcut

# Rounding of a loss near 2 over a step of 1e-4 leaves about 1e-11 of a slope near 1e-1.
SMOOTH = {"steps": [1e-4]}
# Shorter steps where LeakyReLU or a maximum has kinks: the loss itself jumps there, since GAL contains
# first derivatives, so none may lie between the points. Rounding then leaves about 1e-7.
KINKED = {"steps": [1e-6, 1e-7]}


def conv(x, **options):
    return layers.Conv2D(3, 3, padding="same", bias_initializer="normal", **options)(x)


def tanh(x):
    return layers.Activation("tanh")(x)


def after_pixels(layer):
    """Features whose first part is a smooth convolution and whose last part is smooth and dense."""

    def features(x):
        x = layers.Flatten()(layer(tanh(conv(x))))
        return layers.Dense(5, activation="tanh", bias_initializer="normal")(x)

    return features


# Layer under test -> (features of a member with it, options of the finite differences).
LAYERS = {
    "flatten and dense": (
        lambda x: layers.Dense(6, activation="tanh", bias_initializer="normal")(layers.Flatten()(x)),
        SMOOTH,
    ),
    "convolution": (after_pixels(conv), SMOOTH),
    "convolution with strides": (after_pixels(lambda x: conv(x, strides=2, use_bias=False)), SMOOTH),
    "max-pooling": (after_pixels(lambda x: layers.MaxPooling2D(2)(x)), KINKED),
    "LeakyReLU": (after_pixels(lambda x: layers.LeakyReLU(negative_slope=0.1)(x)), KINKED),
    "ReLU": (after_pixels(lambda x: layers.ReLU()(x)), KINKED),
    "batch normalisation": (after_pixels(lambda x: BatchNormalization()(x)), SMOOTH),
    "batch normalisation of features": (
        lambda x: tanh(BatchNormalization()(layers.Dense(6, use_bias=False)(layers.Flatten()(x)))),
        SMOOTH,
    ),
    "parameter-free shortcut": (after_pixels(lambda x: ParameterFreeShortcut(2, 5)(x)), SMOOTH),
    "add": (after_pixels(lambda x: layers.Add()([x, conv(x)])), SMOOTH),
    "global average pooling": (lambda x: layers.GlobalAveragePooling2D()(tanh(conv(x))), SMOOTH),
}


def equation_9(members, x, y, weight=0.5):
    """The mean loss as a function of the members' present weights."""
    x, y = tf.constant(x, tf.float64), tf.constant(y)
    return lambda: tf.reduce_mean(GradientAlignment(weight)(members, x, y, training=True).loss)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("layer", LAYERS)
def test_parameter_gradients_equal_finite_differences(
    layer, graph, tiny_members, tiny_batch, gradient_errors
):
    features, options = LAYERS[layer]
    members = tiny_members(2, features=features, dtype="float64")
    x, y = tiny_batch(4)
    errors = gradient_errors(
        equation_9(members, x, y), members[0].trainable_variables, graph=graph, **options
    )
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("model", ["conv3", "resnet8"])
def test_parameter_gradients_of_the_papers_networks_equal_finite_differences(
    model, graph, tiny_batch, gradient_errors, monkeypatch
):
    # The residual networks' structure at one block a stage; more of them only make more kinks.
    monkeypatch.setitem(models.MODELS, "resnet8", functools.partial(models._resnet, blocks=1))
    members = build_members(model, 2, (8, 8, 1), 3, seed=0, dtype="float64")
    x, y = tiny_batch(3, (8, 8, 1))
    weights = members[0].trainable_variables
    # First, last and every other: each costs eight passes forward and to the input.
    chosen = weights[:-2:2] + weights[-2:]
    errors = gradient_errors(equation_9(members, x, y), chosen, graph=graph, **KINKED)
    assert max(errors.values()) < 1e-6, errors


def test_eager_and_graph_gradients_agree(tiny_members, tiny_batch):
    members = tiny_members(3, dtype="float64")
    loss = equation_9(members, *tiny_batch())
    variables = [v for member in members for v in member.trainable_variables]

    def gradient():
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, variables)

    for eager, graph in zip(gradient(), tf.function(gradient)(), strict=True):
        np.testing.assert_allclose(graph, eager, rtol=1e-10, atol=1e-14)


def linear_members_and_twins(tiny_members, n=3):
    members = tiny_members(n, features=lambda x: layers.Flatten()(x), dtype="float64")
    return members, [reference.Linear(*member.get_weights()) for member in members]


@pytest.mark.parametrize("training", [False, True])
def test_gradient_alignment_is_equation_9(training, tiny_members, tiny_batch):
    members, twins = linear_members_and_twins(tiny_members)
    x, y = tiny_batch()
    terms = GradientAlignment(0.7)(members, tf.constant(x, tf.float64), tf.constant(y), training=training)
    expected = reference.mean_objective(twins, x.astype("float64"), y, 0.7)
    found = {name: float(tf.reduce_mean(part)) for name, part in terms.means().items()}
    assert found == pytest.approx(expected, rel=1e-12)
    assert terms.logits.shape == (3, 8, 3)
    assert all(part.shape == (8,) for part in terms.means().values())


def test_cross_entropy_trains_on_the_mean_member_cross_entropy_and_computes_no_gal(tiny_members, tiny_batch):
    members, twins = linear_members_and_twins(tiny_members)
    x, y = tiny_batch()
    terms = CrossEntropy()(members, tf.constant(x, tf.float64), tf.constant(y), training=True)
    expected = np.mean([reference.cross_entropy(twin.logits(x), y) for twin in twins], axis=0)
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-12)
    assert set(terms.means()) == {"loss", "cross_entropy"}


def test_cross_entropy_measures_gal_and_coherence_outside_training(tiny_members, tiny_batch):
    members, twins = linear_members_and_twins(tiny_members)
    x, y = tiny_batch()
    terms = CrossEntropy()(members, tf.constant(x, tf.float64), tf.constant(y), training=False)
    expected = reference.mean_objective(twins, x.astype("float64"), y, gal_weight=0.0)
    found = {name: float(tf.reduce_mean(part)) for name, part in terms.means().items()}
    assert found == pytest.approx(expected, rel=1e-12)


def test_one_member_has_no_gal(tiny_members, tiny_batch):
    x, y = tiny_batch()
    terms = CrossEntropy()(tiny_members(1), tf.constant(x), tf.constant(y), training=False)
    assert set(terms.means()) == {"loss", "cross_entropy"}


def test_weight_zero_is_cross_entropy_with_gal_measured(tiny_members, tiny_batch):
    members, (x, y) = tiny_members(2), tiny_batch()
    terms = GradientAlignment(0)(members, tf.constant(x), tf.constant(y), training=True)
    np.testing.assert_array_equal(terms.loss, terms.cross_entropy)
    assert terms.gal is not None


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight):
    with pytest.raises(InputError, match=f"finite and >= 0. Received: weight={weight}"):
        GradientAlignment(weight)


@pytest.mark.parametrize("objective", [CrossEntropy(), GradientAlignment(0.25)])
def test_objectives_are_serialised_with_their_arguments(objective):
    saved = keras.saving.serialize_keras_object(objective)
    restored = keras.saving.deserialize_keras_object(saved)
    assert type(restored) is type(objective) and restored.get_config() == objective.get_config()


def test_the_papers_weight_is_the_default():
    assert GradientAlignment().weight == 0.5


def test_means_leave_out_what_was_not_computed():
    part = tf.zeros([2])
    made = Terms(logits=tf.zeros([1, 2, 3]), loss=part, cross_entropy=part)
    assert set(made.means()) == {"loss", "cross_entropy"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"loss": tf.zeros([])}, r"loss \[batch\], a value for each example\. Received: loss of shape \(\)"),
        ({"loss": 0.5}, r"loss \[batch\], a value for each example\. Received: loss of shape \(\)"),
        ({"cross_entropy": tf.zeros([2, 1])}, r"Received: cross_entropy of shape \(2, 1\)"),
        ({"diversity": tf.zeros([])}, r"Received: diversity of shape \(\)"),
        (
            {"logits": tf.zeros([2, 3])},
            r"\[members, batch, classes\]\. Received: logits of shape \(2, 3\)",
        ),
        ({"logits": [tf.zeros([2, 3])]}, r"Received: logits of shape list"),
    ],
)
def test_terms_of_other_shapes_get_one_line(parts, message):
    """A loss that is a mean already would leave weights of examples without effect."""
    fits = {"logits": tf.zeros([1, 2, 3]), "loss": tf.zeros([2]), "cross_entropy": tf.zeros([2])}
    with pytest.raises(InputError, match=message) as raised:
        Terms(**fits | parts)
    assert "\n" not in str(raised.value)


def test_losses_and_cosines_are_float32_in_mixed_bfloat16(tiny_members, tiny_batch):
    """The members compute in bfloat16; what is made of their logits and input gradients is wider.

    Twins in float32 of the same weights give the same to bfloat16's 8 bits of precision, and not to more.
    """
    members, exact = tiny_members(3, dtype="mixed_bfloat16"), tiny_members(3)
    for member, twin in zip(members, exact, strict=True):
        twin.set_weights(member.get_weights())
    x, y = map(tf.constant, tiny_batch())
    for objective in (CrossEntropy(), GradientAlignment(0.5)):
        terms = objective(members, x, y, training=False)
        expected = objective(exact, x, y, training=False)
        for name in ("logits", "loss", "cross_entropy", "gal", "coherence"):
            value, twin = getattr(terms, name), getattr(expected, name)
            assert value.dtype == tf.float32, name
            difference = np.abs(value.numpy() - twin.numpy()).max()
            assert 1e-6 < difference < 0.1, name
    gradients = alignment.input_gradients(members, x, y)[2]
    assert gradients.dtype == alignment.cosine_similarities(gradients).dtype == tf.float32
    assert alignment.cosine_similarities(tf.cast(gradients, tf.bfloat16)).dtype == tf.float32
