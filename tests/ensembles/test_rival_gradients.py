"""What the rival objectives differentiate, and what they leave alone: weights, streams, statistics."""

import itertools

import keras
import numpy as np
import objective_reference as twin
import pytest
import tensorflow as tf
from keras import layers

from divtf import BatchNormalization, make_objective
from divtf.attacks.updates import Ascent
from divtf.ensembles.objectives.perturbed import Perturbed, image_streams

SHAPE, CLASSES = (5, 5, 1), 4
SMOOTH_ALIGNMENT, IN_TURN = "examples.own_objectives:SmoothAlignment", "examples.own_objectives:InTurn"
# Of each objective: large weights, so that no term hides behind the cross-entropy.
PARAMS = {
    "cross_entropy": {},
    "gal": {"weight": 2.0, "sharpness": 3.0},
    "adp": {},
    "trs": {"steps": 2, "epsilon": 0.1},
    "parl": {"weight": 2.0, "layers": 2},
    "dverge": {"steps": 2, "epsilon": 0.1},
    "adversarial": {"steps": 2, "epsilon": 0.1},
    "aligned adversarial": {"steps": 2, "epsilon": 0.1, "gal": 2.0},
    # Of one's own, out of these.
    SMOOTH_ALIGNMENT: {"steps": 2, "epsilon": 0.1, "weight": 2.0},
    IN_TURN: {"steps": 2, "epsilon": 0.1, "gal": 2.0},
}
PERTURBED = ("trs", "dverge", "adversarial", "aligned adversarial", SMOOTH_ALIGNMENT, IN_TURN)
# Eager and graph gradients are compared below, for every objective.
graph_and_eager = pytest.mark.parametrize(
    "graph", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "graph"]
)


def objective(name, **params):
    return make_objective(name.split()[-1], **PARAMS[name] | params)


def smooth(x):
    x = layers.Conv2D(2, 3, activation="tanh", bias_initializer="normal")(x)
    return layers.Dense(4, "tanh", bias_initializer="normal")(layers.Flatten()(x))


@pytest.fixture
def members(tiny_members):
    """`members(n, features)`, in float64."""

    def make(n=2, features=smooth, **options):
        options = {"input_shape": SHAPE, "num_classes": CLASSES, "dtype": "float64"} | options
        return tiny_members(n, features=features, **options)

    return make


@pytest.fixture
def batch(tiny_batch):
    x, y = tiny_batch(4, SHAPE, CLASSES)
    return tf.constant(x, tf.float64), tf.constant(y)


def mean_loss(name, members, x, y):
    return lambda: tf.reduce_mean(objective(name)(members, x, y, training=True).loss)


def gradient_of(loss, variables, graph):
    def gradient():
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, variables)

    return (tf.function(gradient) if graph else gradient)()


@pytest.fixture
def spied(monkeypatch):
    """All images that were made from here on, in order, with what they were made from."""
    made, climbed = [], Perturbed.climbed

    def spy(self, x, *args, **options):
        made.append((x, climbed(self, x, *args, **options)))
        return made[-1][1]

    monkeypatch.setattr(Perturbed, "climbed", spy)
    return made


@pytest.fixture
def frozen(spied, monkeypatch):
    """`frozen(loss)`: from here on the perturbed images are those of the present weights."""

    def freeze(loss):
        spied.clear()
        loss()
        order = itertools.cycle([images for _, images in spied])

        def kept(self, x, *args, **options):
            return next(order)

        monkeypatch.setattr(Perturbed, "climbed", kept)

    return freeze


# Parameter gradients


@graph_and_eager
@pytest.mark.parametrize("name", PARAMS)
def test_parameter_gradients_equal_finite_differences(name, graph, members, batch, gradient_errors, frozen):
    """Of perturbed images at fixed ones, since steps along signs jump."""
    made = members()
    loss = mean_loss(name, made, *batch)
    if name in PERTURBED:
        frozen(loss)
    # Both members: one of them may be in a term that the other one is not.
    variables = [variable for member in made for variable in member.trainable_variables]
    errors = gradient_errors(loss, [*variables[:6:2], *variables[6:]], graph=graph, steps=(1e-3, 1e-4))
    assert max(errors.values()) < 1e-6, errors


@graph_and_eager
@pytest.mark.parametrize("name", PERTURBED)
def test_no_gradient_flows_through_the_perturbed_images(name, graph, members, batch, frozen, monkeypatch):
    """Nor does any where the steps are smooth in the weights, as signs are not."""
    monkeypatch.setattr(Ascent, "climb", lambda self, x, direction: self.project(x + 0.02 * direction))
    made = members()
    loss, variables = mean_loss(name, made, *batch), made[0].trainable_variables
    found = gradient_of(loss, variables, graph)
    frozen(loss)
    for gradient, expected in zip(found, gradient_of(loss, variables, graph), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-13)


@graph_and_eager
def test_perturbed_images_are_constants_to_an_outer_tape(graph, members, batch):
    """Also where what is climbed along is no sign, but smooth in the weights and the images."""
    weight = tf.Variable(0.1, dtype=tf.float64)

    class Smooth:
        def start(self, x):
            return ()

        def move(self, ascent, images, kept, context):
            return images + weight * ascent.gradient(images, context), kept

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            made = objective("trs").climbed(x, lambda images: images**2, update=Smooth(), random_start=False)
            total = tf.reduce_sum(made)
        return [each is None for each in tape.gradient(total, [x, weight])], total

    found, total = gradients(batch[0])
    assert found == [True, True] and total > tf.reduce_sum(batch[0])


@pytest.mark.parametrize("name", PARAMS)
def test_eager_and_graph_gradients_agree_for_five_members(name, members, batch):
    made = members(5, lambda x: layers.Flatten()(x), num_classes=7)
    loss = mean_loss(name, made, *batch)
    variables = [variable for member in made for variable in member.trainable_variables]
    eager, graph = (gradient_of(loss, variables, graph) for graph in (False, True))
    for found, expected in zip(graph, eager, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)
        assert np.abs(found).max() > 0


# Streams of random numbers


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_stream_depends_on_the_image_alone(dtype, rng):
    x = rng.random((40, *SHAPE)).astype(dtype)
    streams = image_streams(tf.constant(x)).numpy()
    np.testing.assert_array_equal(streams, twin.streams(x))
    assert len({tuple(stream) for stream in streams}) == 40
    order = rng.permutation(40)[:13]
    np.testing.assert_array_equal(image_streams(tf.constant(x[order])), streams[order])
    np.testing.assert_array_equal(tf.function(image_streams)(tf.constant(x)), streams)


def test_images_of_the_same_pixels_elsewhere_have_other_streams():
    one_pixel = tf.reshape(tf.eye(25), [25, *SHAPE])
    assert len({tuple(stream) for stream in image_streams(one_pixel).numpy()}) == 25


@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 5e-3), ("float32", 1e-6), ("float64", 1e-6)])
def test_a_random_start_is_uniform_in_the_ball(dtype, rounding, rng):
    x = tf.constant(rng.uniform(0.3, 0.7, (200, *SHAPE)), dtype)
    still = objective("adversarial", steps=1, epsilon=0.2)
    start = still.climbed(x, lambda images: 0 * images, random_start=True)
    assert start.dtype == x.dtype
    change = (start - x).numpy().ravel() / 0.2
    assert np.abs(change).max() <= 1 + rounding
    # 5000 draws: a mean of 0 +- 0.008, a variance of 1/3 +- 0.004, and a fifth of them in each fifth.
    assert abs(change.mean()) < 0.033 and abs(change.var() - 1 / 3) < 0.017
    shares = np.histogram(change, bins=5, range=(-1, 1))[0] / change.size
    assert np.abs(shares - 0.2).max() < 0.03
    same = still.climbed(x[50:90], lambda images: 0 * images, random_start=True)
    np.testing.assert_array_equal(same, start[50:90])
    np.testing.assert_array_equal(still.climbed(x, lambda images: 0 * images, random_start=False), x)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 2.0)])
@pytest.mark.parametrize("name", PERTURBED)
def test_perturbed_images_stay_in_the_ball_and_the_image_range(name, low, high, members, spied, rng):
    x = tf.constant(low + (high - low) * rng.integers(3, size=(6, *SHAPE)) / 2)
    used = objective(name, epsilon=0.3, step=0.7, clip_min=low, clip_max=high)
    used(members(), x, tf.range(6) % 4, training=True)
    assert len(spied) == (2 if name == "dverge" else 1)
    for origin, images in spied:
        assert images.numpy().min() == low and images.numpy().max() == high
        change = np.abs(images - origin)
        assert 0.3 - 1e-6 < change.max() <= 0.3 + 1e-12


@pytest.mark.parametrize("name", ["trs", "adversarial"])
def test_an_image_is_perturbed_alike_in_any_batch(name, members, batch, spied):
    made, (x, y) = members(), batch
    x, y = tf.concat([x, 1 - x], axis=0), tf.concat([y, y], axis=0)
    objective(name)(made, x, y, training=True)
    objective(name)(made, x[::-1], y[::-1], training=True)
    (origin, images), (other_origin, other) = spied
    found = {origin[n].numpy().tobytes(): images[n] for n in range(len(origin))}
    both = [n for n in range(len(other_origin)) if other_origin[n].numpy().tobytes() in found]
    # TRS moves the second half, which is the other one in the other order.
    assert len(both) == (0 if name == "trs" else 8)
    for n in both:
        np.testing.assert_allclose(found[other_origin[n].numpy().tobytes()], other[n], rtol=0, atol=1e-12)


# What the members' layers see


class CallCounter(keras.layers.Layer):
    """Counts the calls that are executed, in training and in inference mode.

    In variables of TensorFlow: Keras does not count them among the member's, which TRS puts back.
    """

    def build(self, input_shape):
        self.training_calls, self.inference_calls = tf.Variable(0), tf.Variable(0)

    def call(self, x, training=None):
        (self.training_calls if training else self.inference_calls).assign_add(1)
        return x

    def counts(self):
        return int(self.training_calls), int(self.inference_calls)


# Calls of each of three members in training and in inference mode, for 2 steps. TRS looks at the clean and
# at the moved images; DVERGE at the others', and at the features that it wants.
CALLS = {
    "cross_entropy": (1, 0),
    "gal": (1, 0),
    "adp": (1, 0),
    "trs": (2, 2),
    "parl": (1, 0),
    "dverge": (2, 3),
    "adversarial": (1, 2),
    "aligned adversarial": (1, 2),
    SMOOTH_ALIGNMENT: (2, 2),
    IN_TURN: (1, 2),
}


@graph_and_eager
@pytest.mark.parametrize("name", PARAMS)
def test_members_are_called_no_more_than_needed_and_perturb_in_inference_mode(name, graph, members, batch):
    counters = []

    def counted(x):
        counters.append(CallCounter())
        return smooth(counters[-1](x))

    loss = mean_loss(name, members(3, counted), *batch)
    before = [counter.counts() for counter in counters]
    (tf.function(loss) if graph else loss)()
    for counter, (training, inference) in zip(counters, before, strict=True):
        more_training, more_inference = CALLS[name]
        assert counter.counts() == (training + more_training, inference + more_inference)


def normalised(x):
    return layers.Flatten()(layers.Dropout(0.2)(BatchNormalization(momentum=0.9)(x)))


def test_moving_statistics_follow_the_images_trained_on(members, batch, spied):
    """Those of adversarial training are a tenth of the moments of the images that it ends with."""
    made = members(2, normalised)
    mean_loss("adversarial", made, *batch)()
    images = spied[0][1].numpy()
    for member in made:
        layer = member.layers[1]
        np.testing.assert_allclose(layer.moving_mean, [0.1 * images.mean()], rtol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, [0.9 + 0.1 * images.var()], rtol=1e-6)


class Counts(layers.Layer):
    """A loss of its own: the number of images of the last call."""

    def call(self, x):
        self.add_loss(tf.cast(tf.shape(x)[0], "float32"))
        return x


def test_a_step_of_trs_moves_statistics_once_and_adds_the_losses_of_layers_by_the_whole_batch(members, batch):
    """Its pass at the steepest images, half as many, leaves no trace."""
    made, x = members(2, lambda x: normalised(Counts()(x))), batch[0].numpy()
    mean_loss("trs", made, *batch)()
    for member in made:
        (layer,) = (layer for layer in member.layers if isinstance(layer, BatchNormalization))
        np.testing.assert_allclose(layer.moving_mean, [0.1 * x.mean()], rtol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, [0.9 + 0.1 * x.var()], rtol=1e-6)
        assert [float(loss) for loss in member.losses] == [len(x)]


@pytest.mark.parametrize("name", PERTURBED)
def test_perturbing_moves_neither_statistics_nor_the_state_of_dropout(name, members, batch):
    made, (x, y) = members(2, normalised), batch
    before = [weight.numpy() for member in made for weight in member.variables]
    used = objective(name)
    if name in ("trs", SMOOTH_ALIGNMENT):
        used._steepest(made, x, y)
    elif name == "dverge":
        used._distilled(made[0], x)
    else:
        used.attacked(made, x, y)
    after = [weight.numpy() for member in made for weight in member.variables]
    for kept, found in zip(before, after, strict=True):
        np.testing.assert_array_equal(found, kept)
