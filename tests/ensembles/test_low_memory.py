"""One member after the other: the numbers of the plain step, and statistics that move once."""

import itertools
import json

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf import (
    BatchNormalization,
    CrossEntropy,
    Ensemble,
    GradientAlignment,
    InputError,
    make_objective,
)
from divtf.ensembles import step_gradients
from divtf.ensembles.weights import checked_weights

OBJECTIVES = {
    "cross_entropy": CrossEntropy(),
    "gal": GradientAlignment(0.5, label_smoothing=0.1),
    "sharp": GradientAlignment(1.0, sharpness=10.0),
    "adp": make_objective("adp"),
}


def features(x):
    """With what a second pass might move twice, or draw anew, or forget: statistics, masks, penalties."""
    x = layers.Conv2D(3, 3, kernel_regularizer=keras.regularizers.L2(0.1))(x)
    x = layers.LeakyReLU(negative_slope=0.1)(BatchNormalization()(x))
    return layers.Dropout(0.3, seed=5)(layers.Flatten()(x))


def trained(memory, objective, members, batch, **fit):
    ensemble = Ensemble(members, objective, memory=memory)
    ensemble.compile(keras.optimizers.SGD(0.1), run_eagerly=fit.pop("eager", False))
    history = ensemble.fit(*batch, batch_size=4, shuffle=False, verbose=0, **fit).history
    states = [variable.numpy() for member in members for variable in member.non_trainable_variables]
    return ensemble.get_weights(), states, history


@pytest.mark.parametrize(
    ("name", "count"), [("gal", 2), ("gal", 5), ("cross_entropy", 3), ("sharp", 3), ("adp", 3)]
)
def test_steps_are_those_of_the_plain_step(name, count, tiny_members, tiny_batch):
    batch = tiny_batch(8, num_classes=6)
    plain, low = (
        trained(memory, OBJECTIVES[name], tiny_members(count, features=features, num_classes=6), batch)
        for memory in (None, "low")
    )
    for a, b in zip(plain[0], low[0], strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-6)
    for a, b in zip(plain[1], low[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    assert plain[2].keys() == low[2].keys()
    for measure in plain[2]:
        np.testing.assert_allclose(low[2][measure], plain[2][measure], rtol=1e-4, atol=1e-5, err_msg=measure)


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
def test_gradients_are_those_of_the_plain_step_in_float64(eager, tiny_members, tiny_batch):
    """To rounding: 1e-9 of weights, after steps as long as weights."""
    x, y = tiny_batch(8)
    weights = np.linspace(0, 2, 8)
    found = [
        trained(
            memory,
            GradientAlignment(0.7),
            tiny_members(3, dtype="float64"),
            (x.astype("float64"), y),
            eager=eager,
            sample_weight=weights,
        )[0]
        for memory in (None, "low")
    ]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def ancestors(tensors):
    """Names of the operations that tensors of a graph wait for, and their own."""
    found, waiting = set(), [tensor.op for tensor in tensors]
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return found


def test_a_member_starts_when_the_gradients_of_the_one_before_are_there(tiny_members, tiny_batch):
    """Else the activations of several are kept at a time, whenever the threads come to it."""
    members = tiny_members(3, features=features, num_classes=6)
    x, y = (tf.constant(part) for part in tiny_batch(4, num_classes=6))
    found = []

    @tf.function
    def step():
        weights = checked_weights(None)
        found.extend(step_gradients.one_by_one(GradientAlignment(), members, tf.identity, x, y, weights)[-1])

    graph = step.get_concrete_function().graph
    each = len(members[0].trainable_variables)
    of_members = [found[place : place + each] for place in range(0, 3 * each, each)]
    for before, after in itertools.pairwise(of_members):
        own = ancestors(after) - ancestors(before)
        work = [graph.get_operation_by_name(name) for name in own]
        work = [operation for operation in work if operation.type.startswith(("Conv2D", "MatMul"))]
        assert len(work) > 5
        for operation in work:
            assert {tensor.op.name for tensor in before} < ancestors(operation.outputs)


def test_weights_of_the_cross_entropy_alone(tiny_members, tiny_batch):
    weights = {"cross_entropy": np.array([0, 1, 1, 0, 1, 1, 0, 1], "float32")}
    batch = tiny_batch(8)
    plain, low = (
        trained(memory, GradientAlignment(), tiny_members(3), batch, sample_weight=weights)
        for memory in (None, "low")
    )
    for a, b in zip(plain[0], low[0], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    assert plain[2]["cross_entropy"] == pytest.approx(low[2]["cross_entropy"])


def test_frozen_layers_stay(tiny_members, tiny_batch):
    members = tiny_members(3)
    members[1].trainable = False
    members[2].layers[-1].trainable = False
    frozen = [weight.numpy() for weight in (*members[1].weights, *members[2].layers[-1].weights)]
    trained("low", GradientAlignment(), members, tiny_batch(8))
    for before, weight in zip(frozen, (*members[1].weights, *members[2].layers[-1].weights), strict=True):
        np.testing.assert_array_equal(weight.numpy(), before)


def on_one_and_two_devices(x, y):
    """Print weights and losses of both, in a process of its own."""
    forked.split_cpu(2)
    results = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        with strategy.scope():
            members = []
            for index in range(3):
                keras.utils.set_random_seed(index)
                inputs = keras.Input(x.shape[1:])
                hidden = layers.Dense(5, "tanh", kernel_regularizer="l2")(layers.Flatten()(inputs))
                members.append(keras.Model(inputs, layers.Dense(3)(hidden), name=f"member_{index}"))
            ensemble = Ensemble(members, GradientAlignment(), memory="low")
            ensemble.compile(keras.optimizers.SGD(0.5))
        # The last batch of one leaves a replica without any.
        history = ensemble.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(4), verbose=0).history
        results.append(([weight.tolist() for weight in ensemble.get_weights()], history["loss"]))
    print(json.dumps(results), flush=True)


def test_two_replicas_train_as_one(rng):
    x, y = rng.random((9, 4, 4, 1)).astype("float32"), np.arange(9) % 3
    code, out, err = forked.Forked(on_one_and_two_devices, x, y).ended()
    assert code == 0, err
    (one, loss), (two, other) = json.loads(out.splitlines()[-1])
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(other, rel=1e-5)


def test_saved_ensemble_goes_on_so(tmp_path, tiny_members):
    ensemble = Ensemble(tiny_members(2), memory="low")
    ensemble.save(tmp_path / "ensemble.keras")
    assert keras.saving.load_model(tmp_path / "ensemble.keras").memory == "low"


def test_objective_that_takes_members_together_is_refused(tiny_members):
    with pytest.raises(InputError, match=r"each member gives by itself for memory='low'.*Received: Trans"):
        Ensemble(tiny_members(2), make_objective("trs"), memory="low")
    with pytest.raises(InputError, match=r"memory as low or None\. Received: memory='high'"):
        Ensemble(tiny_members(2), memory="high")


def test_xla_which_would_take_as_much_is_refused(tiny_members):
    ensemble = Ensemble(tiny_members(2), CrossEntropy(), memory="low")
    with pytest.raises(InputError, match=r"jit_compile=False with memory='low'.*Received: jit_compile=True"):
        ensemble.compile(jit_compile=True)
    ensemble.compile(jit_compile="auto")
    Ensemble(tiny_members(2), CrossEntropy()).compile(jit_compile=True)
