"""Adam by one kernel: against NumPy, against Keras's own, saved and gone on with."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import divtf

SHAPES = ((3, 4), (4,), ())


def gradients(steps):
    """One array a variable for each step; an entry is zero throughout, and one is tiny."""
    rng = np.random.default_rng(11)
    made = [[rng.normal(size=shape) for shape in SHAPES] for _ in range(steps)]
    for step in made:
        step[0][0, 0], step[1][0] = 0.0, step[1][0] * 1e-9
    return made


def stepped(optimizer, steps, dtype="float64", compiled=True):
    """Variables of `SHAPES`, from ones, after these steps; Keras keeps the learning rate in float32."""
    variables = [keras.Variable(np.ones(shape), dtype=dtype) for shape in SHAPES]
    optimizer.build(variables)
    apply = lambda *values: optimizer.apply_gradients(zip(values, variables, strict=True))  # noqa: E731
    apply = tf.function(apply) if compiled else apply
    for step in steps:
        apply(*(tf.constant(gradient, dtype) for gradient in step))
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("betas", [{}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}], ids=str)
def test_steps_are_those_of_the_paper(betas, compiled):
    steps = gradients(6)
    found = stepped(divtf.Adam(0.01, **betas), steps, compiled=compiled)
    for index, value in enumerate(found):
        expected = reference.adam(
            np.ones(SHAPES[index]), [step[index] for step in steps], np.float32(0.01), **betas
        )
        np.testing.assert_allclose(value, expected, rtol=1e-9)
    assert found[0][0, 0] == 1, "no gradient, no step"


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 8)},
        {"clipnorm": 0.5},
        {"use_ema": True, "ema_overwrite_frequency": 2},
        {"gradient_accumulation_steps": 2},
        {"amsgrad": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_are_those_of_keras(options):
    """Keras rounds the betas to float32, which puts its steps off by up to 6e-6 of their size."""
    steps = gradients(6)
    expected = stepped(keras.optimizers.Adam(**options), steps)
    for value, other in zip(stepped(divtf.Adam(**options), steps), expected, strict=True):
        moved = np.abs(other - 1).max()
        assert moved > 1e-4
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-5 * moved)


def test_state_is_kerass_own():
    """A checkpoint of one goes on with the other."""
    steps, states = gradients(4), {}
    for kind in (keras.optimizers.Adam, divtf.Adam):
        optimizer = kind(0.01)
        stepped(optimizer, steps)
        state = states[kind] = {}
        optimizer.save_own_variables(state)
    ours, theirs = states[divtf.Adam], states[keras.optimizers.Adam]
    assert set(ours) == set(theirs) and len(ours) == 2 + 2 * len(SHAPES)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, err_msg=name)


def test_saved_and_loaded_it_is_the_same():
    made = divtf.Adam(0.02, beta_1=0.8)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert type(again) is divtf.Adam
    assert again.get_config() == made.get_config()


def test_adam_by_name_is_this_one():
    members = [divtf.build_member("conv3", (4, 4, 1), 2, name_suffix=f"_{i}") for i in range(2)]
    ensemble = divtf.Ensemble(members)
    ensemble.compile("adam")
    assert type(ensemble.optimizer) is divtf.Adam
    ensemble.compile(keras.optimizers.Adam())
    assert type(ensemble.optimizer) is keras.optimizers.Adam
