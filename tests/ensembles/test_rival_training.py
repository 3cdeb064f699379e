"""Ensembles that train by each objective: steps, labels, files, replicas, and objectives of one's own."""

import dataclasses
import json
import subprocess
import sys

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf import OBJECTIVES, Adam, BatchNormalization, Ensemble, InputError, make_objective
from divtf.ensembles.objectives.terms import Terms

SHAPE, CLASSES = (4, 4, 1), 6
# Few steps: what a step is has tests of its own.
PARAMS = {"trs": {"steps": 2}, "dverge": {"steps": 2}, "adversarial": {"steps": 2}, "gal": {"sharpness": 2.0}}
# Of GAL and cross-entropy alone there are tests in `test_ensemble.py`.
RIVALS = [name for name in OBJECTIVES if name not in ("cross_entropy", "gal")]


def objective(name, **params):
    return make_objective(name, **PARAMS.get(name, {}) | params)


def dense(x):
    return layers.Dense(5, "tanh")(layers.Flatten()(x))


def normalised(x):
    return dense(BatchNormalization()(x))


@pytest.fixture
def ensemble(tiny_members):
    """`ensemble(objective, n, ...)`: compiled, to train eagerly: so little takes longer to trace."""

    def make(objective, n=2, features=dense, optimizer=None, eager=True, **options):
        members = tiny_members(n, features=features, input_shape=SHAPE, num_classes=CLASSES, **options)
        made = Ensemble(members, objective)
        made.compile(optimizer or keras.optimizers.SGD(0.5), run_eagerly=eager)
        return made

    return make


@pytest.fixture
def batch(tiny_batch):
    return tiny_batch(9, SHAPE, CLASSES)


def fit(ensemble, x, y, batch_size=9, **options):
    return ensemble.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, **options).history


def assert_same_weights(found, expected, **tolerance):
    for weight, wanted in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weight, wanted, **tolerance or {"rtol": 0, "atol": 0})


# Steps


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 5))])
@pytest.mark.parametrize("name", RIVALS)
def test_an_ensemble_trains_by_each_rival_alike_in_graph_mode_and_eagerly(name, n, ensemble, batch):
    """Batches of 4, 4 and 1."""
    made = [ensemble(objective(name), n, dtype="float64", eager=eager) for eager in (False, True)]
    start = made[0].get_weights()
    graph, eager = (fit(each, *batch, batch_size=4) for each in made)
    assert set(graph) == set(eager)
    for measure in graph:
        assert graph[measure] == pytest.approx(eager[measure], rel=1e-5)
    assert_same_weights(*made, rtol=1e-7, atol=1e-9)
    for weight, before in zip(made[0].get_weights(), start, strict=True):
        assert np.abs(weight - before).max() > 1e-4


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_measured_of_each_objective(name, ensemble, batch):
    made = ensemble(objective(name))
    trained, evaluated = fit(made, *batch), made.evaluate(*batch, verbose=0, return_dict=True)
    accuracies = {"accuracy", "member_0_accuracy", "member_1_accuracy"}
    always = {"loss", "cross_entropy"} | accuracies
    diverse = {"diversity"} if name in ("adp", "trs", "parl") else set()
    aligned = {"gal", "coherence"} if name in ("gal", "trs") else set()
    assert set(trained) == always | diverse | aligned
    assert set(evaluated) == always | diverse | {"gal", "coherence"}
    if diverse:
        total = evaluated["cross_entropy"] + evaluated["diversity"]
        assert evaluated["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_members_that_take_images_of_any_size_train(name, tiny_batch):
    """On a dataset that does not tell their size either."""

    def member(seed):
        images = keras.Input((None, None, 1))
        x = layers.Conv2D(2, 2, activation="tanh", kernel_initializer=keras.initializers.GlorotUniform(seed))
        return keras.Model(images, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x(images))))

    x, y = tiny_batch(6, SHAPE, CLASSES)
    made = Ensemble([member(seed) for seed in range(2)], objective(name))
    made.compile(keras.optimizers.SGD(0.5))
    types = (tf.TensorSpec([None, None, None, 1]), tf.TensorSpec([None], tf.int64))
    data = tf.data.Dataset.from_generator(lambda: [(x, y), (x[:, :3], y)], output_signature=types)
    assert np.isfinite(made.fit(data, steps_per_epoch=2, verbose=0).history["loss"]).all()


# Labels


@pytest.mark.parametrize("name", RIVALS)
def test_one_hot_labels_train_as_indices_do(name, ensemble, batch):
    x, y = batch
    one_hot = np.eye(CLASSES)[y]
    by_indices, by_one_hot = (ensemble(objective(name), dtype="float64") for _ in range(2))
    assert fit(by_one_hot, x, one_hot)["loss"] == pytest.approx(fit(by_indices, x, y)["loss"], rel=1e-6)
    assert_same_weights(by_one_hot, by_indices, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["cross_entropy", "adp", "parl", "dverge"])
def test_soft_labels_are_those_of_the_cross_entropy(name, training, ensemble, batch, rng):
    """Linear in the label: what the classes give alone, each as much as the label says.

    Nothing else here depends on more of a label than its likeliest class, which keeps its place.
    """
    members = ensemble(objective(name), 3, dtype="float64").members
    x, y = tf.constant(batch[0], tf.float64), batch[1]
    soft = 0.6 * np.eye(CLASSES)[y] + 0.4 * rng.dirichlet(np.ones(CLASSES), size=9)
    found = objective(name)(members, x, tf.constant(soft), training=training)
    of_class = [
        objective(name)(members, x, tf.fill([9], label), training=training).cross_entropy
        for label in range(CLASSES)
    ]
    expected = sum(soft[:, label] * of_class[label] for label in range(CLASSES))
    np.testing.assert_allclose(found.cross_entropy, expected, rtol=1e-10)
    if found.diversity is not None:
        hard = objective(name)(members, x, tf.constant(y), training=training)
        np.testing.assert_allclose(found.diversity, hard.diversity, rtol=1e-10)


@pytest.mark.parametrize("name", ["trs", "adversarial"])
def test_soft_labels_train_where_images_are_perturbed_by_them(name, ensemble, batch, rng):
    made = ensemble(objective(name))
    soft = rng.dirichlet(np.ones(CLASSES), size=9).astype("float32")
    assert np.isfinite(fit(made, batch[0], soft)["loss"]).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_mixed_bfloat16_trains_in_wider_losses(name, ensemble, batch):
    made = ensemble(objective(name), dtype="mixed_bfloat16")
    assert np.isfinite(fit(made, *batch)["loss"]).all()
    terms = made.objective(made.members, *map(tf.constant, batch), training=True)
    assert {part.dtype for part in (*terms.means().values(), terms.logits)} == {tf.float32}


# Files


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_goes_on_from_its_variables_to_the_bit(name, ensemble, batch):
    """Nothing else is kept from step to step: what is random is drawn from the images."""
    (x, y), used = batch, objective(name)
    whole, resumed = (ensemble(used, features=normalised, optimizer=Adam(0.01)) for _ in range(2))
    whole.train_on_batch(x, y)
    resumed.set_weights(whole.get_weights())
    resumed.optimizer.build(resumed.trainable_variables)
    for variable, value in zip(resumed.optimizer.variables, whole.optimizer.variables, strict=True):
        variable.assign(value)
    for made in (whole, resumed):
        made.train_on_batch(x[::-1].copy(), y[::-1].copy())
    assert_same_weights(resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_goes_on_from_a_keras_file_to_the_bit(name, ensemble, batch, tmp_path):
    used = objective(name, label_smoothing=0.1)
    whole, stopped = (ensemble(used, 3, normalised, optimizer=Adam(0.01), eager=False) for _ in range(2))
    fit(whole, *batch, batch_size=4)
    fit(stopped, *batch, batch_size=4)
    stopped.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    assert loaded.objective == used
    assert fit(loaded, *batch, batch_size=4) == fit(whole, *batch, batch_size=4)
    assert_same_weights(loaded, whole)


def test_a_process_that_has_imported_no_objective_loads_each(ensemble, batch, tmp_path):
    """`import divtf` alone makes Keras know them."""
    expected = {}
    for name in OBJECTIVES:
        made = ensemble(objective(name, label_smoothing=0.125))
        made.save(tmp_path / f"{name}.keras")
        expected[name] = [type(made.objective).__name__, made.objective.get_config()]
    code = (
        "import json, sys, pathlib, divtf, keras\n"
        "assert not any('objectives' in name for name in sys.modules)\n"
        "files = sorted(pathlib.Path(sys.argv[1]).glob('*.keras'))\n"
        "loaded = {file.stem: keras.models.load_model(file).objective for file in files}\n"
        "print(json.dumps({name: [type(o).__name__, o.get_config()] for name, o in loaded.items()}))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert json.loads(finished.stdout) == expected


# Replicas

# Which images make a batch of 4, 2 for each of two replicas. PARL's correlations are of a replica's images:
# they are those of the batch where the halves are alike.
ARRANGED = {
    "adp": [0, 1, 2, 3],
    "adversarial": [0, 1, 2, 3],
    "trs": [0, 1, 2, 3],
    "parl": [0, 1, 0, 1],
    "dverge": [0, 1, 2, 3],
}


def trained(strategy, name, x, y):
    """The weights after two batches of 4, and what training and evaluation measured."""
    with strategy.scope():
        members = []
        for index in range(3):
            keras.utils.set_random_seed(index)
            inputs = keras.Input(SHAPE)
            members.append(keras.Model(inputs, layers.Dense(CLASSES)(dense(inputs)), name=f"member_{index}"))
        made = Ensemble(members, objective(name))
        made.compile(keras.optimizers.SGD(0.5))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    results = [made.fit(data, verbose=0).history, made.evaluate(data, verbose=0, return_dict=True)]
    return [weight.tolist() for weight in made.get_weights()], results


def train_on_one_and_two_devices(names, x, y):
    """Print both of each objective, in a process of its own."""
    forked.split_cpu(2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    strategies = (tf.distribute.get_strategy(), two)
    found = {}
    for name in names:
        places = [*ARRANGED[name], *(4 + place for place in ARRANGED[name])]
        found[name] = [trained(strategy, name, x[places], y[places]) for strategy in strategies]
    print(json.dumps(found), flush=True)


@pytest.mark.parametrize(
    "names",
    [("trs",), pytest.param(("adp", "adversarial", "parl", "dverge"), marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_two_replicas_train_and_measure_as_one_device_by_each_rival(names, tiny_batch):
    assert set(ARRANGED) == {"trs", "adp", "adversarial", "parl", "dverge"}
    code, out, err = forked.Forked(
        train_on_one_and_two_devices, names, *tiny_batch(8, SHAPE, CLASSES)
    ).ended()
    assert code == 0, err[-2000:]
    for name, (alone, shared) in json.loads(out.splitlines()[-1]).items():
        assert_alike(name, alone, shared)


def assert_alike(name, alone, shared):
    """What one device gave and what two did."""
    (weights, measures), (shared_weights, shared_measures) = alone, shared
    for weight, found in zip(weights, shared_weights, strict=True):
        np.testing.assert_allclose(found, weight, rtol=1e-4, atol=1e-5, err_msg=name)
    for expected, found in zip(measures, shared_measures, strict=True):
        assert set(found) == set(expected)
        for measure in expected:
            assert found[measure] == pytest.approx(expected[measure], rel=1e-4, abs=1e-5), measure


# Objectives of one's own


def confidence_penalty(members, x, y, *, training):
    """A function: cross-entropy of the first member, and squared logits."""
    logits = tf.stack([member(x, training=training) for member in members])
    cross_entropy = keras.losses.sparse_categorical_crossentropy(y, logits[0], from_logits=True)
    penalty = tf.reduce_mean(logits**2, axis=[0, 2])
    return Terms(logits, cross_entropy + penalty, cross_entropy, diversity=penalty)


class OfSecondOrder:
    """No `Objective`, and no more than the call, but for what it says of its gradient."""

    second_order = True

    def __call__(self, members, x, y, *, training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            terms = confidence_penalty(members, x, y, training=training)
        slope = tf.reduce_sum(tape.gradient(terms.cross_entropy, x) ** 2, axis=[1, 2, 3])
        return dataclasses.replace(terms, loss=terms.loss + slope)


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("own", [confidence_penalty, OfSecondOrder()], ids=["function", "object"])
def test_an_objective_of_ones_own_trains(own, eager, ensemble, batch):
    made = ensemble(own, 1, eager=eager, optimizer=Adam(0.05))
    history = fit(made, *batch, batch_size=9, epochs=10)
    assert set(history) == {"loss", "cross_entropy", "diversity", "accuracy", "member_0_accuracy"}
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("name", ["gal", "trs", "parl", "own"])
def test_members_are_measured_for_objectives_of_second_order(name, ensemble):
    def wrong(x):
        return layers.Flatten()(layers.BatchNormalization()(layers.Conv2D(2, 2, activation="tanh")(x)))

    with pytest.raises(InputError, match="BatchNormalization"):
        ensemble(OfSecondOrder() if name == "own" else objective(name), features=wrong)


@pytest.mark.parametrize("name", ["cross_entropy", "adp", "dverge", "adversarial", "own"])
def test_members_are_not_measured_for_objectives_of_first_order(name, ensemble, batch):
    made = ensemble(
        confidence_penalty if name == "own" else objective(name),
        features=lambda x: layers.Flatten()(layers.BatchNormalization()(x)),
    )
    assert np.isfinite(fit(made, *batch)["loss"]).all()
