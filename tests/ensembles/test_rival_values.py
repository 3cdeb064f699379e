"""The rival objectives' values against NumPy twins, on members whose gradients have closed forms."""

import keras
import numpy as np
import objective_reference as twin
import pytest
import reference
import tensorflow as tf
from keras import layers

from divtf import GradientAlignment, make_objective
from divtf.ensembles import alignment
from divtf.ensembles.objectives import adp, parl, trs
from divtf.ensembles.objectives.perturbed import image_numbers

SHAPE, CLASSES = (4, 4, 1), 6
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def flat(x):
    return layers.Flatten()(x)


def hidden(x):
    return layers.Dense(5, "tanh", bias_initializer="normal")(flat(x))


MEMBERS = {"linear": (flat, reference.Linear), "tanh": (hidden, reference.Mlp)}


@pytest.fixture
def members_and_twins(tiny_members):
    """`members_and_twins(kind, n)`: float64 members, and the same in NumPy."""

    def make(kind="linear", n=3):
        features, made = MEMBERS[kind]
        members = tiny_members(n, features=features, input_shape=SHAPE, num_classes=CLASSES, dtype="float64")
        return members, [made(*member.get_weights()) for member in members]

    return make


@pytest.fixture
def batch(tiny_batch):
    """An odd number of images in float64, and their labels."""
    x, y = tiny_batch(7, SHAPE, CLASSES)
    return x.astype("float64"), y


def terms_of(objective, members, x, y, training=True):
    return objective(members, tf.constant(x), tf.constant(y), training=training)


def starts(x, epsilon):
    """U(-epsilon, epsilon) of each image's stream, by TensorFlow's generator and the twin's streams."""
    drawn = [tf.random.stateless_uniform(x.shape[1:], each, -epsilon, epsilon) for each in twin.streams(x)]
    return np.stack(drawn).astype("float64")


# GAL


@pytest.fixture
def gradients(rng):
    """Of 4 members for 5 images."""
    return rng.normal(size=(4, 5, 8))


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 50.0])
def test_sharpened_gal_is_log_sum_exp_of_the_sharpened_cosines(sharpness, gradients):
    found = alignment.gradient_alignment_loss(tf.constant(gradients), sharpness)
    np.testing.assert_allclose(found, twin.sharpened_gal(gradients, sharpness), **EXACT)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sharpness_1_is_equation_8_to_the_bit(dtype, gradients):
    gradients = tf.constant(gradients, dtype)
    cosines = alignment.cosine_similarities(gradients)
    found = alignment.gradient_alignment_loss(gradients, 1.0)
    np.testing.assert_array_equal(found, tf.reduce_logsumexp(cosines, axis=-1))


def test_the_sharper_gal_is_the_nearer_it_comes_to_the_coherence(gradients):
    """max <= log-sum-exp(t c) / t <= max + log(6 pairs) / t."""
    coherence = reference.coherence(gradients)
    gaps = []
    for sharpness in (1.0, 10.0, 1e3, 1e6):
        gap = alignment.gradient_alignment_loss(tf.constant(gradients), sharpness) - coherence
        assert (gap.numpy() >= -1e-12).all() and (gap.numpy() <= np.log(6) / sharpness + 1e-12).all()
        gaps.append(gap.numpy().max())
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 2e-6


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", MEMBERS)
def test_the_objective_of_gal_minimises_it_sharpened_and_reports_equation_8(
    kind, training, members_and_twins, batch
):
    members, twins = members_and_twins(kind)
    terms = terms_of(make_objective("gal", weight=0.7, sharpness=8.0), members, *batch, training)
    gradients = twin.gradients_of(twins, *batch)
    expected = twin.mean_cross_entropy(twins, *batch) + 0.7 * twin.sharpened_gal(gradients, 8.0)
    np.testing.assert_allclose(terms.loss, expected, **EXACT)
    np.testing.assert_allclose(terms.gal, reference.gal(gradients), **EXACT)
    np.testing.assert_allclose(terms.coherence, reference.coherence(gradients), **EXACT)


def test_gal_of_sharpness_1_is_that_without_one_to_the_bit(members_and_twins, batch):
    members, _ = members_and_twins()
    plain, sharp = (
        terms_of(objective, members, *batch)
        for objective in (GradientAlignment(0.5), make_objective("gal", weight=0.5, sharpness=1))
    )
    np.testing.assert_array_equal(plain.loss, plain.cross_entropy + 0.5 * plain.gal)
    np.testing.assert_array_equal(sharp.loss, plain.loss)


# ADP


def test_ensemble_entropy_is_that_of_the_mean_probability(rng):
    logits = rng.normal(size=(3, 8, CLASSES), scale=2)
    np.testing.assert_allclose(adp.ensemble_entropy(tf.constant(logits)), twin.entropy(logits), **EXACT)


def test_ensemble_entropy_of_members_that_know_nothing_and_everything():
    """log C where all classes are alike, 0 where the mean is certain, log 2 where two are certain of two."""
    alike = np.zeros((2, 1, CLASSES))
    certain = np.zeros((2, 1, CLASSES))
    certain[..., 2] = 1e4
    split = certain.copy()
    split[1] = 1e4 * np.eye(CLASSES)[0]
    logits = tf.constant(np.concatenate([alike, certain, split], axis=1), tf.float32)
    expected = [np.log(CLASSES), 0, np.log(2)]
    np.testing.assert_allclose(adp.ensemble_entropy(logits), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_log_diversity_is_the_log_determinant_without_the_true_class(members, rng):
    logits = rng.normal(size=(members, 12, CLASSES), scale=2)
    y = np.arange(12) % CLASSES
    found = adp.log_ensemble_diversity(tf.constant(logits), tf.constant(y))
    np.testing.assert_allclose(found, twin.log_diversity(logits, y), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_diversity_of_equal_members_is_finite_and_the_offsets_alone(dtype, rng):
    """A matrix of ones and 1e-6 I has the eigenvalues N + 1e-6 and, N - 1 times, 1e-6."""
    logits = tf.constant(np.repeat(rng.normal(size=(1, 6, CLASSES)), 3, axis=0), dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        found = adp.log_ensemble_diversity(logits, tf.range(6))
    expected = np.log(3 + 1e-6) + 2 * np.log(1e-6)
    np.testing.assert_allclose(found, np.full(6, expected), rtol=1e-6 if dtype == "float32" else 1e-10)
    assert np.isfinite(tape.gradient(found, logits)).all()


@pytest.mark.parametrize("scale", [200.0, 1e4])
def test_log_diversity_where_members_are_certain(scale):
    """Certain of the true class, of a wrong one each, of the same wrong one: by their other classes alone."""
    true = np.zeros((2, CLASSES))
    true[:, 0] = scale  # Nothing else is left of a probability in float32; the others are alike.
    apart = scale * np.eye(CLASSES)[[1, 2]]
    same = scale * np.eye(CLASSES)[[3, 3]]
    logits = tf.constant(np.stack([true, apart, same], axis=1), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        found = adp.log_ensemble_diversity(logits, tf.constant([0, 0, 0]))
    agreed = np.log(2 + 1e-6) + np.log(1e-6)
    np.testing.assert_allclose(found, [agreed, 2e-6, agreed], rtol=1e-6, atol=1e-6)
    assert np.isfinite(tape.gradient(found, logits)).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", MEMBERS)
def test_adp_is_its_equation(kind, training, members_and_twins, batch):
    members, twins = members_and_twins(kind)
    terms = terms_of(make_objective("adp", alpha=1.5, beta=0.3), members, *batch, training)
    expected = twin.adp(twins, *batch, 1.5, 0.3)
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-10)
    cross_entropy = twin.mean_cross_entropy(twins, *batch)
    np.testing.assert_allclose(terms.cross_entropy, cross_entropy, **EXACT)
    np.testing.assert_allclose(terms.diversity, expected - cross_entropy, rtol=1e-10)
    assert (terms.gal is None) == training


def test_adp_without_weights_is_cross_entropy(members_and_twins, batch):
    members, twins = members_and_twins()
    terms = terms_of(make_objective("adp", alpha=0, beta=0), members, *batch)
    np.testing.assert_allclose(terms.loss, twin.mean_cross_entropy(twins, *batch), **EXACT)


# TRS


@pytest.mark.parametrize("members", [2, 3, 5])
def test_similarity_and_steepness_are_means_over_the_pairs(members, rng):
    gradients = rng.normal(size=(members, 6, 9))
    np.testing.assert_allclose(trs.similarity(tf.constant(gradients)), twin.similarity(gradients), **EXACT)
    np.testing.assert_allclose(trs.steepness(tf.constant(gradients)), twin.steepness(gradients), **EXACT)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_lengths_of_tiny_huge_and_zero_gradients_have_finite_slopes(scale, rng):
    directions = rng.normal(size=(2, 3, 5))
    gradients = tf.constant(scale * directions, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(gradients)
        lengths = alignment.norms(gradients)
    expected = np.linalg.norm(directions, axis=-1, keepdims=True)
    np.testing.assert_allclose(lengths, scale * expected[..., 0], rtol=1e-5)
    slope = tape.gradient(lengths, gradients)
    np.testing.assert_allclose(slope, directions / expected if scale else 0 * directions, rtol=1e-5)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_trs_is_its_equation_with_every_other_image_where_gradients_are_longest(
    low, members_and_twins, batch
):
    members, twins = members_and_twins()
    (x, y), ball = batch, {"epsilon": 0.2, "steps": 3, "step": 0.4}
    objective = make_objective("trs", similarity=4, smoothness=3, clip_min=low, **ball)
    terms = terms_of(objective, members, x, y)
    steepest = x.copy()
    steepest[::2] = twin.sign_steps(
        x[::2],
        lambda images: twin.steepness_gradient(twins, images, y[::2]),
        start=starts(x[::2], 0.2),
        low=low,
        **ball,
    )
    expected = twin.trs(twins, x, y, 4, 3, steepest)
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-10)
    # Within the tolerance nothing would do but the steps themselves, and at those images.
    assert (np.abs(twin.trs(twins, x, y, 4, 3, x) - expected)[::2] > 1e-3).all()
    np.testing.assert_allclose(terms.logits, np.stack([member.logits(x) for member in twins]), **EXACT)


@pytest.mark.parametrize("kind", MEMBERS)
def test_trs_is_evaluated_at_the_images_themselves(kind, members_and_twins, batch):
    members, twins = members_and_twins(kind, 2)
    x, y = batch
    terms = terms_of(make_objective("trs", similarity=4, smoothness=3), members, x, y, training=False)
    np.testing.assert_allclose(terms.loss, twin.trs(twins, x, y, 4, 3, x), **EXACT)


def test_trs_of_one_image_moves_it(members_and_twins, batch):
    members, twins = members_and_twins()
    x, y = (part[:1] for part in batch)
    terms = terms_of(make_objective("trs"), members, x, y)
    assert np.isfinite(terms.loss).all()
    assert abs(terms.loss[0] - twin.trs(twins, x, y, 10, 1, x)[0]) > 1e-6


# PARL


def test_output_correlation_is_the_mean_of_numpys_over_the_units(rng):
    outputs = [rng.normal(size=(9, 4)) for _ in range(3)]
    found = parl.output_correlation([tf.constant(each) for each in outputs])
    assert float(found) == pytest.approx(twin.correlation(outputs), rel=1e-12)


@pytest.mark.parametrize("count", [9, 128])
@pytest.mark.parametrize("constants", [(0.1, None), (0.1, 0.7), (1e4 / 3, -0.3)])
def test_the_correlation_with_a_constant_unit_is_0(constants, count, rng):
    """In float32, where the mean of a constant over a batch is not always the constant."""
    outputs = rng.normal(size=(2, count, 4)).astype("float32")
    expected = twin.correlation(outputs[:, :, 1:]) * 3 / 4
    for output, constant in zip(outputs, constants, strict=True):
        output[:, 0] = output[:, 0] if constant is None else constant
    found = parl.output_correlation([tf.constant(output) for output in outputs])
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("count", "used"), [(1, 1), (2, 2), (5, 2)])
def test_parl_of_dense_members_is_the_product_over_the_hidden_layers(
    count, used, training, tiny_members, batch
):
    def features(x):
        return layers.Dense(4, bias_initializer="normal")(hidden(x))

    members = tiny_members(3, features=features, input_shape=SHAPE, num_classes=CLASSES, dtype="float64")
    terms = terms_of(make_objective("parl", weight=0.8, layers=count), members, *batch, training)
    twins = [reference.Mlp(*member.get_weights()[:4]) for member in members]
    product = twin.parl_product([twin.dense_layers(member, batch[0]) for member in twins], used)
    np.testing.assert_allclose(terms.diversity, np.full(7, 0.8 * product), rtol=1e-11)
    np.testing.assert_allclose(terms.loss, terms.cross_entropy + 0.8 * product, rtol=1e-11)
    assert (terms.gal is None) == training


def test_parl_of_convolutional_members_looks_at_their_convolutions_alone(tiny_members, batch):
    def features(x):
        return flat(layers.Activation("tanh")(layers.Conv2D(3, 2, bias_initializer="normal")(x)))

    def before_tanh(member, x):
        """The convolution's own output is what is looked at: the activation is a layer of its own."""
        return keras.Model(member.inputs[0], member.layers[1].output)(x).numpy().reshape(len(x), -1)

    def linear(weights, x):
        outputs, gradients = twin.conv_layers(weights, x)
        windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], (2, 2), axis=(1, 2))
        gradients[0] = np.repeat(windows.sum(axis=(0, 1, 2))[..., None], 3, axis=-1).ravel()
        return [np.arctanh(outputs[0]), outputs[1]], gradients

    members = tiny_members(2, features=features, input_shape=SHAPE, num_classes=CLASSES, dtype="float64")
    terms = terms_of(make_objective("parl", weight=0.8), members, *batch)
    looked_into = [linear(member.get_weights(), batch[0]) for member in members]
    np.testing.assert_allclose(looked_into[0][0][0], before_tanh(members[0], batch[0]), rtol=1e-9)
    np.testing.assert_allclose(
        terms.diversity, np.full(7, 0.8 * twin.parl_product(looked_into, 1)), rtol=1e-9
    )


def test_parl_of_convolutions_with_an_activation_looks_behind_it(tiny_members, batch):
    def features(x):
        return flat(layers.Conv2D(3, 2, activation="tanh", bias_initializer="normal")(x))

    members = tiny_members(3, features=features, input_shape=SHAPE, num_classes=CLASSES, dtype="float64")
    terms = terms_of(make_objective("parl", weight=0.8), members, *batch)
    looked_into = [twin.conv_layers(member.get_weights(), batch[0]) for member in members]
    np.testing.assert_allclose(
        terms.diversity, np.full(7, 0.8 * twin.parl_product(looked_into, 1)), rtol=1e-11
    )


@pytest.mark.parametrize("frozen", ["when made", "later"])
def test_parl_takes_frozen_members_as_it_takes_others(frozen, tiny_members, batch):
    def features(x):
        return layers.Dense(5, "tanh", trainable=frozen != "when made")(flat(x))

    members = tiny_members(2, features=features, input_shape=SHAPE, num_classes=CLASSES, dtype="float64")
    members[0].trainable = frozen != "later"
    terms = terms_of(make_objective("parl", weight=0.8), members, *batch)
    looked_into = [
        twin.dense_layers(reference.Mlp(*(weight.numpy() for weight in weights_in_order(member))), batch[0])
        for member in members
    ]
    np.testing.assert_allclose(
        terms.diversity, np.full(7, 0.8 * twin.parl_product(looked_into, 1)), rtol=1e-11
    )


def test_parl_takes_the_kernel_that_a_layer_with_lora_multiplies_with(tiny_members, batch):
    """A sum has one gradient with respect to each of its parts."""
    members = tiny_members(2, features=hidden, input_shape=SHAPE, num_classes=CLASSES, dtype="float64")
    twins = []
    for member in members:
        first, last = (layer for layer in member.layers if isinstance(layer, layers.Dense))
        first.enable_lora(2, b_initializer="normal")
        assert np.abs(first.kernel - first.weights[0]).max() > 0.01
        twins.append(reference.Mlp(*map(np.asarray, (first.kernel, first.bias, last.kernel, last.bias))))
    looked_into = [twin.dense_layers(member, batch[0]) for member in twins]
    expected = np.full(7, 0.8 * twin.parl_product(looked_into, 1))
    with tf.GradientTape() as tape:
        terms = terms_of(make_objective("parl", weight=0.8), members, *batch)
        loss = tf.reduce_sum(terms.diversity)
    np.testing.assert_allclose(terms.diversity, expected, rtol=1e-6)
    trained = [weight for weight in members[0].trainable_variables if "lora" in weight.name]
    slopes = tape.gradient(loss, trained)
    assert len(slopes) == 2 and all(np.abs(slope).max() > 0 for slope in slopes)


def nested_and_flat(tiny_members):
    """Members whose convolutions are those of a model in them, and the same ones without it."""

    def features(x):
        nested = keras.Sequential([layers.Conv2D(3, 2, activation="tanh"), layers.BatchNormalization()])
        inputs = keras.Input(SHAPE, dtype="float64")
        backbone = keras.Model(inputs, nested(layers.Conv2D(2, 2, activation="tanh")(inputs)))
        return flat(backbone(x, training=False))

    def unpacked(member):
        _, backbone, flatten, head = member.layers
        _, first, nested = backbone.layers
        x = nested.layers[1](nested.layers[0](first(member.input)), training=False)
        return keras.Model(member.input, head(flatten(x)))

    members = tiny_members(2, features=features, input_shape=SHAPE, num_classes=CLASSES, dtype="float64")
    return members, list(map(unpacked, members))


@pytest.mark.parametrize(("name", "values"), [("parl", {"weight": 0.8}), ("dverge", {"steps": 2})])
def test_models_nested_in_members_are_looked_into(name, values, tiny_members, batch):
    found, expected = (
        terms_of(make_objective(name, **values), members, *batch) for members in nested_and_flat(tiny_members)
    )
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-12)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
    if name == "parl":
        np.testing.assert_allclose(found.diversity, expected.diversity, rtol=1e-12)


def weights_in_order(member):
    """Keras lists trainable weights first."""
    return [weight for layer in member.layers for weight in layer.weights]


# DVERGE


@pytest.mark.parametrize("n", [2, 3])
def test_dverge_trains_each_member_on_what_was_distilled_from_the_others(n, members_and_twins, batch):
    members, twins = members_and_twins("tanh", n)
    (x, y), ball = batch, {"epsilon": 0.2, "steps": 4, "step": 0.3}
    terms = terms_of(make_objective("dverge", **ball), members, x, y)
    numbers = image_numbers(tf.constant(x), 2).numpy()
    assert set(numbers) == {0, 1}
    images = [twin.distilled(member, x, numbers, **ball) for member in twins]
    np.testing.assert_allclose(terms.loss, twin.dverge(twins, y, images), rtol=1e-10)
    np.testing.assert_array_equal(terms.loss, terms.cross_entropy)
    first_others = [images[1]] + (n - 1) * [images[0]]
    expected = [member.logits(given) for member, given in zip(twins, first_others, strict=True)]
    np.testing.assert_allclose(terms.logits, expected, rtol=1e-9)
    # What a wrong pairing, or the members' own images, would give is far outside the tolerance.
    assert np.abs(twin.dverge(twins, y, images[::-1]) - terms.loss).max() > 1e-3
    assert np.abs(twin.mean_cross_entropy(twins, x, y) - terms.loss).max() > 1e-3


def test_dverge_of_linear_members_looks_at_their_logits(members_and_twins, batch):
    """d mean((z - z')^2) / dx = 2 / C (z - z') W^T."""
    members, twins = members_and_twins("linear", 2)
    (x, y), ball = batch, {"epsilon": 0.1, "steps": 3, "step": 0.5}
    beside = x[twin.neighbours(len(x))]

    def distilled(member):
        def nearer(images):
            return -2 / CLASSES * (member.logits(images) - member.logits(beside)) @ member.weight.T

        return twin.sign_steps(x, nearer, decay=1.0, **ball)

    terms = terms_of(make_objective("dverge", **ball), members, x, y)
    expected = twin.dverge(twins, y, [distilled(member) for member in twins])
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-10)


def test_distilled_images_come_nearer_in_features_within_the_ball(members_and_twins, batch):
    members, twins = members_and_twins("tanh", 2)
    x, _ = batch
    images = make_objective("dverge")._distilled(members[0], tf.constant(x)).numpy()
    assert np.abs(images - x).max() <= 0.07 + 1e-12 and images.min() >= 0 and images.max() <= 1
    beside = twins[0].logits(x[twin.neighbours(len(x))])
    far, near = (np.abs(twins[0].logits(each) - beside).mean() for each in (x, images))
    assert near < far


def test_dverge_is_evaluated_on_clean_images(members_and_twins, batch):
    members, twins = members_and_twins("tanh")
    terms = terms_of(make_objective("dverge"), members, *batch, training=False)
    np.testing.assert_allclose(terms.loss, twin.mean_cross_entropy(twins, *batch), **EXACT)


def test_layers_are_drawn_uniformly_and_for_each_image_by_itself(rng):
    x = tf.constant(rng.random((1500, *SHAPE), dtype="float32"))
    numbers = image_numbers(x, 3).numpy()
    # 500 each, with a standard deviation of 18.
    assert np.abs(np.bincount(numbers, minlength=3) - 500).max() < 73
    np.testing.assert_array_equal(image_numbers(x[7:90:2], 3), numbers[7:90:2])
    # Of two neighbours one in three agree.
    assert abs((numbers[1:] == numbers[:-1]).mean() - 1 / 3) < 0.05


# Adversarial training


@pytest.mark.parametrize("n", [1, 3])
def test_adversarial_training_is_cross_entropy_where_pgd_on_the_mean_probability_ends(
    n, members_and_twins, batch
):
    members, twins = members_and_twins("linear", n)
    (x, y), ball = batch, {"epsilon": 0.15, "steps": 5, "step": 0.4}
    terms = terms_of(make_objective("adversarial", **ball), members, x, y)
    images = twin.sign_steps(
        x,
        lambda moved: twin.mean_probability_gradient(twins, moved, y),
        start=starts(x, 0.15),
        **ball,
    )
    np.testing.assert_allclose(terms.loss, twin.mean_cross_entropy(twins, images, y), rtol=1e-10)
    np.testing.assert_allclose(
        terms.logits, np.stack([member.logits(images) for member in twins]), rtol=1e-9, atol=1e-12
    )
    assert (terms.loss > twin.mean_cross_entropy(twins, x, y) + 1e-3).numpy().all()


@pytest.mark.parametrize("training", [True, False])
def test_gal_of_adversarial_training_is_taken_at_the_images_that_are_trained_on(
    training, members_and_twins, batch
):
    members, twins = members_and_twins("linear", 3)
    (x, y), ball = batch, {"epsilon": 0.15, "steps": 5, "step": 0.4}
    terms = terms_of(make_objective("adversarial", gal=0.75, **ball), members, x, y, training=training)
    images = x
    if training:
        images = twin.sign_steps(
            x, lambda moved: twin.mean_probability_gradient(twins, moved, y), start=starts(x, 0.15), **ball
        )
    gal = reference.gal(twin.gradients_of(twins, images, y))
    np.testing.assert_allclose(terms.gal, gal, rtol=1e-9)
    np.testing.assert_allclose(terms.loss, twin.mean_cross_entropy(twins, images, y) + 0.75 * gal, rtol=1e-9)


def test_gal_of_adversarial_training_is_of_smoothed_labels_where_it_has_them(members_and_twins, batch):
    members, _ = members_and_twins()
    settings = {"label_smoothing": 0.2}
    found = terms_of(make_objective("adversarial", gal=0.75, **settings), members, *batch, training=False)
    expected = terms_of(GradientAlignment(0.75, **settings), members, *batch, training=False)
    np.testing.assert_allclose(found.loss, expected.loss, **EXACT)


def test_adversarial_training_is_evaluated_on_clean_images(members_and_twins, batch):
    members, twins = members_and_twins()
    terms = terms_of(make_objective("adversarial"), members, *batch, training=False)
    np.testing.assert_allclose(terms.loss, twin.mean_cross_entropy(twins, *batch), **EXACT)
    np.testing.assert_allclose(terms.gal, reference.gal(twin.gradients_of(twins, *batch)), **EXACT)


# Smoothed labels, of every objective that takes a cross-entropy


@pytest.mark.parametrize("name", ["cross_entropy", "adp", "parl"])
def test_label_smoothing_is_of_the_cross_entropy(name, members_and_twins, batch):
    members, twins = members_and_twins("tanh")
    (x, y), share = batch, 0.2
    terms = terms_of(make_objective(name, label_smoothing=share), members, x, y)
    spread = np.mean([-reference.log_softmax(member.logits(x)).mean(axis=-1) for member in twins], axis=0)
    expected = (1 - share) * twin.mean_cross_entropy(twins, x, y) + share * spread
    np.testing.assert_allclose(terms.cross_entropy, expected, **EXACT)
