"""An ensemble on two devices trains and measures as on one."""

import json

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf

from divtf import BatchNormalization, CrossEntropy, Ensemble, GradientAlignment, InputError

# Objective and batch normalisation.
CASES = {
    "base": (CrossEntropy(), None),
    "div": (GradientAlignment(0.5), None),
    "weighted": (GradientAlignment(0.5, label_smoothing=0.1), None),
    "outside": (GradientAlignment(0.5), None),
    "normalised": (GradientAlignment(0.5), BatchNormalization),
    "synchronized": (GradientAlignment(0.5), lambda: BatchNormalization(synchronized=True)),
}
# Examples of the two trainings, in batches of 4. A last batch of 1 leaves a replica without any, which batch
# normalisation over all replicas does not allow for.
COUNTS = {"normalised": (8, 8), "synchronized": (11, 10)}


def ensemble(case, shape):
    objective, normalization = CASES[case]
    members = []
    for index in range(2):
        keras.utils.set_random_seed(index)
        inputs = hidden = keras.Input(shape)
        if normalization:
            hidden = normalization()(hidden)
        hidden = keras.layers.Flatten()(hidden)
        hidden = keras.layers.Dense(5, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))(hidden)
        members.append(keras.Model(inputs, keras.layers.Dense(3)(hidden), name=f"member_{index}"))
    made = Ensemble(members, objective)
    # A user's own; Keras tells by the labels which accuracy is meant.
    top_2 = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top_2")
    metric = "accuracy" if case == "weighted" else top_2
    made.compile(keras.optimizers.SGD(0.5), metrics=[metric])
    return made


def trained(strategy, case, x, y):
    """The weights after training, and what it and evaluation measured."""
    with strategy.scope():
        made = ensemble(case, x.shape[1:])
    results = []
    parts = (x, y)
    if case == "weighted":
        parts = (x, np.eye(3, dtype="float32")[y], np.linspace(0, 2, len(y)).astype("float32"))
    if case == "outside":
        parts = (x, y, {"cross_entropy": (np.arange(len(y)) % 3 > 0).astype("float32")})
    for count in COUNTS.get(case, (11, 9)):
        # Batched globally: a strategy splits each batch over its replicas.
        data = tf.data.Dataset.from_tensor_slices(parts).take(count).batch(4)
        results.append(made.fit(data, epochs=2, verbose=0).history)
        results.append(made.evaluate(data, verbose=0, return_dict=True))
    return [weight.tolist() for weight in made.get_weights()], results


def two_devices():
    """A strategy over two halves of the processor, in a process of its own."""
    forked.split_cpu(2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert two.num_replicas_in_sync == 2
    return two


def compile_by_xla_on_two_devices():
    with two_devices().scope():
        made = ensemble("div", (3, 3, 1))
        with pytest.raises(InputError, match=r"on several devices\. Received: jit_compile=True"):
            made.compile(jit_compile=True)


def train_on_two_devices_by_a_sum():
    with two_devices().scope():
        made = ensemble("div", (3, 3, 1))
        made.objective = lambda members, x, y, *, training: tf.add_n([tf.reduce_sum(m(x)) for m in members])
    with pytest.raises(
        InputError, match=r"^Expected an objective that gives Terms\. Received: function, which"
    ):
        made.fit(np.zeros((4, 3, 3, 1), "float32"), np.zeros(4, int), verbose=0)


def train_on_one_and_two_devices(case, x, y):
    """Print both."""
    two = two_devices()
    if case == "normalised":
        # Both halves of each batch alike: the replicas' batch statistics are then the whole batch's.
        twice = np.repeat(np.arange(4).reshape(2, 2), 2, axis=0).ravel()
        x, y = x[twice], y[twice]
    strategies = (tf.distribute.get_strategy(), two)
    print(json.dumps([trained(strategy, case, x, y) for strategy in strategies]), flush=True)


@pytest.mark.parametrize(
    "case",
    [
        "div",
        "weighted",
        "outside",
        "synchronized",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("base", "normalised")),
    ],
)
def test_two_replicas_train_and_measure_as_one_device(case, tiny_batch):
    """SGD on 11 images in batches of 4, 4 and 3, then on 9 in batches of 4, 4 and 1: one replica has none."""
    code, out, err = forked.Forked(train_on_one_and_two_devices, case, *tiny_batch(11, (3, 3, 1))).ended()
    assert code == 0, err[-2000:]
    (weights, measures), (shared_weights, shared_measures) = json.loads(out.splitlines()[-1])
    for alone, shared in zip(weights, shared_weights, strict=True):
        np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=1e-5)
    for alone, shared in zip(measures, shared_measures, strict=True):
        assert set(shared) == set(alone)
        for name in alone:
            np.testing.assert_allclose(shared[name], alone[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_xla_on_several_devices_is_refused():
    code, _, err = forked.Forked(compile_by_xla_on_two_devices).ended()
    assert code == 0, err[-2000:]


def test_an_objective_that_gives_no_terms_gets_one_line():
    code, _, err = forked.Forked(train_on_two_devices_by_a_sum).ended()
    assert code == 0, err[-2000:]
