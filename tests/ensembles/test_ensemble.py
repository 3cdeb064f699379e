"""The ensemble as a Keras model: prediction, training steps in closed form, measures, files, refusals."""

import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers

from divtf import (
    Adam,
    BatchNormalization,
    CrossEntropy,
    Ensemble,
    GradientAlignment,
    InputError,
    make_objective,
)

OBJECTIVES = {"CrossEntropy": CrossEntropy(), "GradientAlignment": GradientAlignment(0.5)}


@pytest.fixture
def linear_ensemble(tiny_members):
    """`linear_ensemble(objective, n)`: an ensemble of float64 linear members, and their NumPy twins."""

    def make(objective, n=3):
        members = tiny_members(
            n, features=lambda x: layers.Flatten()(x), input_shape=(2, 2, 1), dtype="float64"
        )
        return Ensemble(members, objective), [reference.Linear(*m.get_weights()) for m in members]

    return make


@pytest.fixture
def linear_batch(tiny_batch):
    """Images (float32, as Keras hands them on), labels, and the same images in float64."""

    def make(count=10):
        x, y = tiny_batch(count, (2, 2, 1))
        return x, y, x.astype("float64")

    return make


# How a step is made of its code: arguments of `compile`. XLA leaves checks out of what it compiles.
STEPS = {"graph": {}, "eager": {"run_eagerly": True}, "xla": {"jit_compile": True}}


def sgd(learning_rate):
    return keras.optimizers.SGD(learning_rate)


def fit(ensemble, x, y, batch_size=32, **options):
    return ensemble.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, **options).history


# Prediction


def test_a_call_gives_the_log_of_the_mean_member_probability(linear_ensemble, linear_batch):
    ensemble, twins = linear_ensemble(CrossEntropy())
    x, _, wide = linear_batch()
    expected = reference.log_mean_probability(np.stack([twin.logits(wide) for twin in twins]))
    np.testing.assert_allclose(ensemble(x), expected, rtol=1e-5)
    np.testing.assert_allclose(ensemble.predict(x, batch_size=4, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(ensemble(x)).sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        ensemble.member_logits(x), np.stack([twin.logits(wide) for twin in twins]), rtol=1e-5, atol=1e-6
    )


def test_its_softmax_is_the_mean_probability_so_it_may_stand_for_logits(linear_ensemble, linear_batch):
    ensemble, twins = linear_ensemble(CrossEntropy())
    x, _, wide = linear_batch()
    expected = np.mean([reference.softmax(twin.logits(wide)) for twin in twins], axis=0)
    np.testing.assert_allclose(tf.nn.softmax(ensemble(x)), expected, rtol=1e-5)


def test_a_call_is_exact_where_probabilities_underflow(linear_ensemble, linear_batch):
    ensemble, _ = linear_ensemble(CrossEntropy())
    x, _, wide = linear_batch()
    ensemble.set_weights([1e4 * w for w in ensemble.get_weights()])
    twins = [reference.Linear(*member.get_weights()) for member in ensemble.members]
    expected = reference.log_mean_probability(np.stack([twin.logits(wide) for twin in twins]))
    assert expected.min() < -200  # exp gives 0 in float32
    np.testing.assert_allclose(ensemble(x), expected, rtol=1e-5, atol=1e-5)


def test_prediction_runs_in_inference_mode(tiny_members, tiny_batch):
    def features(x):
        return layers.Flatten()(layers.Dropout(0.5)(BatchNormalization()(x)))

    ensemble, (x, _) = Ensemble(tiny_members(2, features=features)), tiny_batch()
    ensemble.compile()
    weights = ensemble.get_weights()
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), ensemble(x), rtol=1e-6)
    for before, after in zip(weights, ensemble.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)


# Training steps


@pytest.mark.parametrize("way", ["fit", "train_on_batch"])
def test_a_step_of_the_default_optimizer_is_traced_once(way, linear_ensemble, linear_batch, monkeypatch):
    """A step that makes the optimizer's variables is traced a second time, which costs a ResNet a minute."""
    step, calls = Ensemble.train_step, []

    def spy(self, data):
        calls.append(data)
        return step(self, data)

    monkeypatch.setattr(Ensemble, "train_step", spy)
    ensemble, _ = linear_ensemble(CrossEntropy())
    x, y, _ = linear_batch()
    ensemble.compile("adam")
    for _ in range(3):
        fit(ensemble, x, y) if way == "fit" else ensemble.train_on_batch(x, y)
    assert len(calls) == 1


@pytest.mark.parametrize("compiled", STEPS)
def test_an_sgd_step_on_cross_entropy_is_the_closed_form(compiled, linear_ensemble, linear_batch):
    """Loss = 1/N sum_n CE_n, so member n moves by -lr/N (x^T r / B, sum r / B), r = softmax - onehot."""
    ensemble, twins = linear_ensemble(CrossEntropy())
    x, y, wide = linear_batch()
    ensemble.compile(sgd(0.3), **STEPS[compiled])
    fit(ensemble, x, y)
    for member, twin in zip(ensemble.members, twins, strict=True):
        weight, bias = twin.parameter_gradients(wide, y)
        found_weight, found_bias = member.get_weights()
        np.testing.assert_allclose(found_weight, twin.weight - 0.3 / 3 * weight, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found_bias, twin.bias - 0.3 / 3 * bias, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("compiled", STEPS)
def test_an_sgd_step_on_equation_9_follows_the_twins_finite_differences(
    compiled, linear_ensemble, linear_batch
):
    ensemble, twins = linear_ensemble(GradientAlignment(0.7))
    x, y, wide = linear_batch()
    ensemble.compile(sgd(0.3), **STEPS[compiled])

    def loss():
        return reference.mean_objective(twins, wide, y, 0.7)["loss"]

    slopes = [[reference.numeric_gradient(loss, a) for a in (twin.weight, twin.bias)] for twin in twins]
    fit(ensemble, x, y)
    for member, twin, (weight, bias) in zip(ensemble.members, twins, slopes, strict=True):
        found_weight, found_bias = member.get_weights()
        np.testing.assert_allclose(found_weight, twin.weight - 0.3 * weight, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found_bias, twin.bias - 0.3 * bias, rtol=1e-6, atol=1e-8)


def test_training_lowers_gal_below_that_of_cross_entropy_training(tiny_members, tiny_batch):
    x, y = tiny_batch(32)
    found = {}
    for name, objective in OBJECTIVES.items():
        ensemble = Ensemble(tiny_members(3, features=lambda x: layers.Flatten()(x)), objective)
        ensemble.compile(keras.optimizers.Adam(0.01))
        fit(ensemble, x, y, epochs=10)
        found[name] = ensemble.evaluate(x, y, verbose=0, return_dict=True)["gal"]
    assert found["GradientAlignment"] < found["CrossEntropy"] - 0.1


def test_regularisers_of_the_members_are_added_as_their_mean(linear_ensemble, linear_batch):
    """1/N sum_n (CE_n + 0.2 |W_n|^2) moves W_n by -lr/N (dCE_n + 0.4 W_n)."""
    ensemble, twins = linear_ensemble(CrossEntropy())
    for member in ensemble.members:
        member.layers[-1].kernel.regularizer = keras.regularizers.L2(0.2)
    x, y, wide = linear_batch()
    ensemble.compile(sgd(0.3))
    penalty = np.mean([0.2 * (twin.weight**2).sum() for twin in twins])
    history = fit(ensemble, x, y)
    np.testing.assert_allclose(history["loss"][0] - history["cross_entropy"][0], penalty, rtol=1e-5)
    for member, twin in zip(ensemble.members, twins, strict=True):
        weight, _ = twin.parameter_gradients(wide, y)
        expected = twin.weight - 0.3 / 3 * (weight + 0.4 * twin.weight)
        np.testing.assert_allclose(member.get_weights()[0], expected, rtol=1e-6, atol=1e-8)


def active(x):
    """A penalty of what a pass gives: another one's is another."""
    return layers.Dense(4, "relu", activity_regularizer=keras.regularizers.L2(0.1))(layers.Flatten()(x))


@pytest.mark.parametrize("way", STEPS)
def test_penalties_of_activations_are_added_however_the_step_is_made(way, tiny_members, tiny_batch):
    x, y = tiny_batch(8)
    members = tiny_members(2, features=active)
    ensemble = Ensemble(members, CrossEntropy())
    penalties = [float(tf.add_n(member.losses)) for member in members if member(x) is not None]
    ensemble.compile(sgd(0.0), **STEPS[way])
    history = fit(ensemble, x, y)
    added = history["loss"][0] - history["cross_entropy"][0]
    np.testing.assert_allclose(added, np.mean(penalties), rtol=1e-4)


def test_penalties_of_activations_are_refused_where_members_are_asked_several_times(tiny_members):
    with pytest.raises(InputError, match="members without activity_regularizer, of which dverge"):
        Ensemble(tiny_members(3, features=active), make_objective("dverge"))


def test_members_that_are_all_frozen_are_measured_and_stay_as_they_are(tiny_members, tiny_batch):
    ensemble = Ensemble(tiny_members(2))
    ensemble.trainable = False
    ensemble.compile(sgd(0.1))
    x, y = tiny_batch()
    before = ensemble.get_weights()
    history = fit(ensemble, x, y)
    measured = ensemble.evaluate(x, y, verbose=0, return_dict=True)
    assert history["loss"][0] == pytest.approx(measured["loss"])
    for weight, start in zip(ensemble.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, start)


class Unused(layers.Layer):
    """Has a weight on which nothing depends."""

    def build(self, input_shape):
        self.unused = self.add_weight(name="unused", shape=(3,), initializer="ones")

    def call(self, x):
        return x


@pytest.mark.parametrize("memory", [None, "low"])
@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, Adam])
def test_a_weight_on_which_nothing_depends_stays_as_it_is(optimizer, memory, tiny_members, tiny_batch):
    """As Keras has it."""
    members = tiny_members(2, features=lambda x: layers.Flatten()(Unused()(x)))
    ensemble = Ensemble(members, GradientAlignment(), memory=memory)
    ensemble.compile(optimizer(0.1))
    before = ensemble.get_weights()
    fit(ensemble, *tiny_batch(6))
    for member in members:
        np.testing.assert_array_equal(member.layers[1].unused, np.ones(3))
    assert any((old != new).any() for old, new in zip(before, ensemble.get_weights(), strict=True))


def test_frozen_members_stay_as_they_are(tiny_members, tiny_batch):
    members, (x, y) = tiny_members(2), tiny_batch()
    members[0].trainable = False
    before = [member.get_weights() for member in members]
    ensemble = Ensemble(members)
    ensemble.compile(sgd(0.1))
    fit(ensemble, x, y)
    for kept, weight in zip(before[0], members[0].get_weights(), strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert any(not np.array_equal(a, b) for a, b in zip(before[1], members[1].get_weights(), strict=True))


class CallCounter(keras.layers.Layer):
    """Counts the calls that are executed, in graphs too, in training and in inference mode."""

    def build(self, input_shape):
        self.training_calls = self.add_weight(name="training", dtype="int32", trainable=False)
        self.inference_calls = self.add_weight(name="inference", dtype="int32", trainable=False)

    def call(self, x, training=None):
        (self.training_calls if training else self.inference_calls).assign_add(1)
        return x

    def counts(self):
        return int(self.training_calls.value), int(self.inference_calls.value)


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_member_is_called_once_a_step(objective, eager, tiny_members, tiny_batch):
    counters = []

    def features(x):
        counters.append(CallCounter())
        return layers.Flatten()(counters[-1](x))

    ensemble = Ensemble(tiny_members(3, features=features), OBJECTIVES[objective])
    ensemble.compile(sgd(0.1), run_eagerly=eager)
    x, y = tiny_batch(8)
    before = [counter.counts() for counter in counters]
    fit(ensemble, x, y, batch_size=2, epochs=2)
    ensemble.evaluate(x, y, batch_size=4, verbose=0)
    for counter, (training, inference) in zip(counters, before, strict=True):
        assert counter.counts() == (training + 8, inference + 2)


def test_batch_statistics_move_once_a_step(tiny_members, tiny_batch):
    ensemble = Ensemble(tiny_members(2, features=lambda x: layers.Flatten()(BatchNormalization()(x))))
    ensemble.compile(sgd(0.0))
    x, y = tiny_batch(8)
    fit(ensemble, x, y)
    for member in ensemble.members:
        np.testing.assert_allclose(member.layers[1].moving_mean, [0.01 * x.mean()], rtol=1e-4)


# Measures


def expected_measures(twins, x, y, gal_weight):
    logits = np.stack([twin.logits(x) for twin in twins])
    accuracies = {f"member_{n}_accuracy": reference.accuracy(own, y) for n, own in enumerate(logits)}
    return (
        reference.mean_objective(twins, x, y, gal_weight)
        | accuracies
        | {"accuracy": reference.accuracy(reference.log_mean_probability(logits), y)}
    )


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_measures_are_means_over_all_examples_in_fit_and_evaluate(
    objective, eager, linear_ensemble, linear_batch
):
    """10 examples in batches of 4, 4 and 2: a mean of batch means would be off. Weights stay: lr = 0."""
    ensemble, twins = linear_ensemble(OBJECTIVES[objective])
    x, y, wide = linear_batch(10)
    other_x, other_y, other_wide = linear_batch(7)
    ensemble.compile(sgd(0.0), run_eagerly=eager)
    weight = getattr(ensemble.objective, "weight", 0.0)
    expected = expected_measures(twins, wide, y, weight)
    validation = expected_measures(twins, other_wide, other_y, weight)

    measured = ensemble.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert measured == pytest.approx(expected, rel=1e-5)

    history = fit(ensemble, x, y, batch_size=4, epochs=2, validation_data=(other_x, other_y))
    found = {name: values[1] for name, values in history.items() if not name.startswith("val_")}
    if objective == "CrossEntropy":
        del expected["gal"], expected["coherence"]
    assert found == pytest.approx(expected, rel=1e-5)
    found = {name[4:]: values[1] for name, values in history.items() if name.startswith("val_")}
    assert found == pytest.approx(validation, rel=1e-5)


def test_a_single_member_trains_on_cross_entropy_without_gal(linear_ensemble, linear_batch):
    ensemble, twins = linear_ensemble(CrossEntropy(), n=1)
    x, y, wide = linear_batch()
    ensemble.compile(sgd(0.0))
    found = ensemble.evaluate(x, y, verbose=0, return_dict=True)
    assert set(found) == {"loss", "cross_entropy", "accuracy", "member_0_accuracy"}
    assert found["loss"] == pytest.approx(reference.cross_entropy(twins[0].logits(wide), y).mean(), rel=1e-5)


def test_metrics_given_to_compile_see_the_ensembles_prediction(linear_ensemble, linear_batch):
    ensemble, twins = linear_ensemble(GradientAlignment())
    x, y, wide = linear_batch()
    ensemble.compile(
        sgd(0.0),
        metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="nll", from_logits=True)],
    )
    scores = reference.log_mean_probability(np.stack([twin.logits(wide) for twin in twins]))
    expected = {"nll": -scores[np.arange(len(y)), y].mean(), "accuracy": reference.accuracy(scores, y)}
    history = fit(ensemble, x, y, batch_size=4, epochs=2)
    measured = ensemble.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    for name, value in expected.items():
        assert history[name][-1] == pytest.approx(value, rel=1e-5)
        assert measured[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("compiled", STEPS)
def test_training_and_testing_batch_by_batch_work_on_numpy_arrays(compiled, linear_ensemble, linear_batch):
    ensemble, twins = linear_ensemble(GradientAlignment())
    x, y, wide = linear_batch()
    ensemble.compile(sgd(0.0), **STEPS[compiled])
    expected = reference.mean_objective(twins, wide, y, 0.5)["loss"]
    assert ensemble.train_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)
    ensemble.reset_metrics()
    assert ensemble.test_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)


def test_labels_may_be_a_column_and_data_a_dataset(linear_ensemble, linear_batch):
    ensemble, _ = linear_ensemble(GradientAlignment())
    x, y, _ = linear_batch()
    ensemble.compile()
    plain = ensemble.evaluate(x, y, verbose=0)
    assert ensemble.evaluate(x, y[:, None].astype("uint8"), verbose=0) == pytest.approx(plain)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    assert ensemble.evaluate(dataset, verbose=0) == pytest.approx(plain, rel=1e-6)


# Files


def normalised(x):
    """With what a file must hold beside weights: statistics, and the state of random numbers."""
    return layers.Dropout(0.3)(layers.Flatten()(BatchNormalization()(x)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_goes_on_after_a_keras_file_as_if_never_stopped(
    objective, tiny_members, tiny_batch, tmp_path
):
    x, y = tiny_batch(12)

    def ensemble():
        keras.utils.set_random_seed(1)
        made = Ensemble(tiny_members(2, features=normalised), OBJECTIVES[objective])
        made.compile(keras.optimizers.Adam(0.01))
        return made

    whole, stopped = ensemble(), ensemble()
    fit(whole, x, y, batch_size=5, epochs=2)
    expected = fit(whole, x, y, batch_size=5)
    fit(stopped, x, y, batch_size=5, epochs=2)
    stopped.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    assert type(loaded) is Ensemble and type(loaded.objective) is type(stopped.objective)
    assert loaded.objective.get_config() == stopped.objective.get_config()
    assert [member.name for member in loaded.members] == [member.name for member in stopped.members]
    np.testing.assert_array_equal(loaded(x), stopped(x))
    assert int(loaded.optimizer.iterations) == 6
    assert fit(loaded, x, y, batch_size=5) == expected
    for found, wanted in zip(loaded.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_an_ensemble_that_was_never_compiled_survives_a_keras_file(tiny_members, tiny_batch, tmp_path):
    ensemble, (x, _) = Ensemble(tiny_members(2), GradientAlignment(0.25), name="mine"), tiny_batch()
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    assert loaded.name == "mine" and loaded.objective.weight == 0.25
    np.testing.assert_array_equal(loaded(x), ensemble(x))


def test_weights_alone_can_be_saved_and_loaded(tiny_members, tiny_batch, tmp_path):
    first, second = Ensemble(tiny_members(2)), Ensemble(tiny_members(2, seed=1))
    x, _ = tiny_batch()
    first.save_weights(tmp_path / "ensemble.weights.h5")
    second.load_weights(tmp_path / "ensemble.weights.h5")
    np.testing.assert_array_equal(second(x), first(x))


# Refusals


def softmax_inside(x):
    return layers.Dense(3, activation="softmax")(layers.Flatten()(x))


def model(output, name="one", input_shape=(6, 6, 1)):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, output(inputs), name=name)


def logits(x, classes=3):
    return layers.Dense(classes)(layers.Flatten()(x))


def normalised_logits(x):
    return logits(layers.BatchNormalization(name="bn")(layers.Conv2D(2, 3, activation="tanh")(x)))


def two_inputs(name):
    pair = [keras.Input((6, 6, 1)), keras.Input((6, 6, 1))]
    return keras.Model(pair, logits(layers.Add()(pair)), name=name)


BAD_MEMBERS = {
    "none": (lambda: [], r"at least 2 members for GradientAlignment. Received: 0"),
    "one": (lambda: [model(logits)], r"at least 2 members for GradientAlignment. Received: 1"),
    "input shapes": (
        lambda: [model(logits), model(logits, "two", (6, 6, 3))],
        r"one input shape. Received: \[\(None, 6, 6, 1\), \(None, 6, 6, 3\)\]",
    ),
    "class counts": (
        lambda: [model(logits), model(lambda x: logits(x, 4), "two")],
        r"one output shape. Received: \[\(3,\), \(4,\)\]",
    ),
    "one class": (
        lambda: [model(lambda x: logits(x, 1), name) for name in ("one", "two")],
        r"logits \[B, C >= 2\]. Received: \[B, \(1,\)\]",
    ),
    "images for logits": (
        lambda: [model(lambda x: layers.Conv2D(3, 1)(x), name) for name in ("one", "two")],
        r"logits \[B, C >= 2\]. Received: \[B, \(6, 6, 3\)\]",
    ),
    "two inputs": (lambda: [two_inputs("one"), two_inputs("two")], "members of one input. Received"),
    "two outputs": (
        lambda: [model(lambda x: [logits(x), logits(x)], name) for name in ("one", "two")],
        r"members of one output. Received: member 'one' that gives a list",
    ),
    "softmax": (
        lambda: [model(logits), model(softmax_inside, "two")],
        r"logits. Received: member 'two' with probabilities.*divtf.convert_member",
    ),
    "softmax as a layer": (
        lambda: [model(logits), model(lambda x: layers.Softmax()(logits(x)), "two")],
        "member 'two' with probabilities",
    ),
    "Keras batch normalisation": (
        lambda: [model(logits), model(normalised_logits, "two")],
        "member 'two' with .* in BatchNormalization 'bn'; divtf.convert_member",
    ),
    "a function": (lambda: [model(logits), logits], "Keras models. Received: <function"),
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_members_that_do_not_fit_are_refused(case):
    members, message = BAD_MEMBERS[case]
    with pytest.raises(InputError, match=message):
        Ensemble(members(), GradientAlignment())


def test_cross_entropy_takes_keras_batch_normalisation_and_one_member(tiny_batch):
    ensemble = Ensemble([model(lambda x: logits(layers.BatchNormalization()(x)))], CrossEntropy())
    ensemble.compile(sgd(0.1))
    assert math.isfinite(fit(ensemble, *tiny_batch())["loss"][0])


def test_sequential_members_of_the_users_own_are_taken(tiny_batch):
    members = [
        keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)], name=name)
        for name in ("left", "right")
    ]
    ensemble = Ensemble(members)
    ensemble.compile()
    assert {"left_accuracy", "right_accuracy"} < set(fit(ensemble, *tiny_batch()))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_members_may_be_made_with_a_list_of_one_output(objective, tiny_batch):
    def member():
        x = keras.Input((8, 8, 1))
        return keras.Model([x], [layers.Dense(3)(layers.Flatten()(x))])

    ensemble = Ensemble([member(), member()], OBJECTIVES[objective])
    assert ensemble.num_classes == 3
    ensemble.compile("sgd")
    x, y = tiny_batch(8, (8, 8, 1), 3)
    assert np.isfinite(fit(ensemble, x, y)["loss"]).all()


def of_bytes():
    x = keras.Input((8, 8, 1), dtype="uint8")
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Rescaling(1 / 255)(x))))


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("objective", [GradientAlignment(), make_objective("adversarial")])
def test_members_of_whole_numbers_are_refused_where_input_gradients_are_needed(objective, check):
    with pytest.raises(InputError, match=r"members of keras\.Input\(dtype='float32'\).*dtype=uint8"):
        Ensemble([of_bytes(), of_bytes()], objective, check=check)


def test_members_of_whole_numbers_train_on_cross_entropy(tiny_batch):
    ensemble = Ensemble([of_bytes(), of_bytes()], CrossEntropy())
    ensemble.compile("sgd")
    x, y = tiny_batch(8, (8, 8, 1), 3)
    assert np.isfinite(fit(ensemble, (255 * x).astype("uint8"), y)["loss"]).all()


def test_images_in_float16_have_the_gradients_of_float32(tiny_members, tiny_batch):
    """Of sure members: their losses' gradients underflow in float16."""
    x, y = tiny_batch(8, (8, 8, 1), 3)
    x = x.astype("float16")
    found = []
    for images in (x, x.astype("float32")):
        members = tiny_members(2, input_shape=(8, 8, 1), num_classes=3)
        for member in members:
            member.layers[-1].set_weights([60 * weight for weight in member.layers[-1].get_weights()])
        ensemble = Ensemble(members, GradientAlignment())
        ensemble.compile(sgd(0.01))
        # NumPy's Keras would cast.
        ensemble.fit(tf.data.Dataset.from_tensor_slices((images, y)).batch(8), verbose=0)
        found.append(ensemble.get_weights())
    for narrow, wide in zip(*found, strict=True):
        np.testing.assert_array_equal(narrow, wide)


def test_gradient_alignment_with_the_papers_weight_is_the_default(tiny_members):
    objective = Ensemble(tiny_members(2)).objective
    assert isinstance(objective, GradientAlignment) and objective.weight == 0.5


def test_xla_is_refused_where_it_differentiates_max_pooling_twice(tiny_members):
    pooled = tiny_members(2)
    plain = tiny_members(2, features=lambda x: layers.Flatten()(x), name="plain")
    with pytest.raises(InputError, match=r"jit_compile=True with max-pooling in \['member_0', 'member_1'\]"):
        Ensemble(pooled, GradientAlignment()).compile(jit_compile=True)
    for members, objective in ((pooled, CrossEntropy()), (plain, GradientAlignment())):
        ensemble = Ensemble(members, objective)
        ensemble.compile(jit_compile=True)
        assert ensemble.get_compile_config()["jit_compile"] is True


def test_xla_is_never_chosen_for_the_user(tiny_members):
    ensemble = Ensemble(tiny_members(2))
    for options in ({}, {"jit_compile": "auto"}, {"jit_compile": False}):
        ensemble.compile(**options)
        assert ensemble.get_compile_config()["jit_compile"] is False


def smooth(tiny_members, count=2):
    """Members that XLA differentiates twice."""
    return tiny_members(count, features=lambda x: layers.Flatten()(x))


def test_steps_compiled_by_xla_are_those_that_are_not(tiny_members, tiny_batch):
    found, batches = [], [tiny_batch() for _ in range(3)]
    for jit in (False, True):
        ensemble = Ensemble(smooth(tiny_members))
        ensemble.compile(Adam(0.01), jit_compile=jit)
        losses = [fit(ensemble, *batch)["loss"] for batch in batches]
        found.append((losses, [weight.ravel() for weight in ensemble.get_weights()]))
    (plain, weights), (compiled, compiled_weights) = found
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)
    np.testing.assert_allclose(np.hstack(compiled_weights), np.hstack(weights), rtol=0, atol=1e-5)


def test_xla_compiles_the_terms_and_gradients(tiny_members, tiny_batch):
    """And with them all that takes time: the optimizer and the checks are what is left."""
    ensemble = Ensemble(smooth(tiny_members))
    ensemble.compile(jit_compile=True)
    ensemble.build_for_training()
    x, y = tiny_batch()
    graph = tf.function(ensemble.train_step).get_concrete_function((tf.constant(x), tf.constant(y))).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "MatMul" not in kinds and "Softmax" not in kinds
    assert any(
        operation.get_attr("_XlaMustCompile")
        for operation in graph.get_operations()
        if operation.type.endswith("PartitionedCall")
    )


def test_max_pooling_deep_in_a_nested_model_is_found(tiny_members):
    def features(x):
        inner = keras.Input(x.shape[1:])
        return layers.Flatten()(keras.Model(inner, layers.MaxPooling2D(2)(inner))(x))

    with pytest.raises(InputError, match="max-pooling"):
        Ensemble(tiny_members(2, features=features)).compile(jit_compile=True)


def test_a_loss_is_refused(tiny_members):
    with pytest.raises(InputError, match=r"the objective is the loss\. Received: loss='mse'"):
        Ensemble(tiny_members(2)).compile(loss="mse")


BAD_LABELS = {
    "too large": ([0, 1, 2, 3, 0, 1, 2, 0], r"numbers in \[0, 3\). Received: labels from 0 to 3"),
    "negative": ([0, 1, -1, 0, 0, 1, 2, 0], r"numbers in \[0, 3\). Received: labels from -1 to 2"),
    "between": (np.full(8, 0.5), r"numbers in \[0, 3\). Received: labels from 0.5 to 0.5"),
    "of other classes": (
        np.eye(4)[np.zeros(8, int)],
        r"labels \[batch, 3\]. Received: float32 of shape \(.*4\)",
    ),
}


@pytest.mark.parametrize("compiled", STEPS)
@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_are_none_are_refused_and_move_no_weight(
    case, method, compiled, linear_ensemble, linear_batch
):
    ensemble, _ = linear_ensemble(GradientAlignment())
    ensemble.compile(sgd(0.1), **STEPS[compiled])
    y, message = BAD_LABELS[case]
    before = ensemble.get_weights()
    with pytest.raises(InputError, match=message):
        getattr(ensemble, method)(linear_batch(8)[0], np.asarray(y), verbose=0)
    for kept, weight in zip(before, ensemble.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_missing_labels_are_refused(linear_ensemble, linear_batch):
    ensemble, _ = linear_ensemble(GradientAlignment())
    ensemble.compile()
    with pytest.raises(InputError, match=r"\(images, labels\) batches. Received: no labels"):
        ensemble.fit(linear_batch()[0], verbose=0)


@pytest.mark.parametrize("compiled", STEPS)
@pytest.mark.parametrize(
    ("quantity", "gal_weight", "poison"),
    [
        ("cross_entropy", 0.5, float("nan")),
        ("loss", 3e38, 1.0),  # times a GAL of log 6 +- 1 is above the largest float32
        ("gradient norm", 1e30, 1.0),  # its square is
    ],
)
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    quantity, gal_weight, poison, compiled, tiny_members, tiny_batch
):
    """A sound objective for two steps of two images, then the poisoned one at step 3."""
    x, y = tiny_batch(6)
    ensemble = Ensemble(smooth(tiny_members, count=4), GradientAlignment(0.5))
    ensemble.compile(sgd(0.1), **STEPS[compiled])
    fit(ensemble, x[:4], y[:4], batch_size=2)
    before = ensemble.get_weights()
    ensemble.objective = GradientAlignment(gal_weight)
    ensemble.make_train_function(force=True)
    message = (
        rf"Expected a finite {quantity} in training. Received: NaN or infinity at step 3; .* after step 2"
    )
    with pytest.raises(InputError, match=message):
        fit(ensemble, poison * x[4:], y[4:], batch_size=2)
    for kept, weight in zip(before, ensemble.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert int(ensemble.optimizer.iterations) == 2


@pytest.mark.parametrize("poisoned", [0, 5])
def test_the_step_that_is_named_is_the_offending_one(poisoned, tiny_members, tiny_batch):
    """Step 1 or 6; the optimizer may not count a step that it did not make."""
    x, y = tiny_batch(16)
    x[2 * poisoned] = float("nan")
    ensemble = Ensemble(tiny_members(2, features=normalised))
    ensemble.compile("sgd")
    with pytest.raises(InputError, match=f"at step {poisoned + 1}; the trainable .* after step {poisoned}"):
        fit(ensemble, x, y, batch_size=2)
    assert int(ensemble.optimizer.iterations) == poisoned
    for weight in ensemble.trainable_variables:
        assert np.isfinite(weight).all()


def test_errors_of_other_operations_are_passed_on(linear_ensemble, linear_batch):
    ensemble, _ = linear_ensemble(GradientAlignment())
    ensemble.compile()

    class Broken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            tf.debugging.assert_equal(1, 2)

    x, y, _ = linear_batch()
    with pytest.raises(tf.errors.InvalidArgumentError):
        fit(ensemble, x, y, callbacks=[Broken()])


# Precision


def test_mixed_precision_keeps_losses_and_predictions_in_float32(tiny_members, tiny_batch):
    ensemble = Ensemble(tiny_members(2, dtype="mixed_bfloat16"))
    x, y = tiny_batch()
    assert ensemble(x).dtype == tf.float32 and ensemble.member_logits(x).dtype == tf.float32
    ensemble.compile(sgd(0.01))
    assert math.isfinite(fit(ensemble, x, y)["loss"][0])
