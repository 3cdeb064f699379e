"""Fixtures: tiny members, tiny batches and the check of gradients against finite differences."""

import gc
import os
import time

import numpy as np
import pytest
import reference
import tiny

from divtf.runtime.processor import prepare_tensorflow

# Tests run as commands do, on every processor.
prepare_tensorflow()
# Two processes of tests share the cores, and what they compute is tiny: a thread each, here and in what they
# start.
for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")


# Modules that take a minute, or have a test that does, slow ones included.
_LONG = (
    *("test_ray_cluster", "test_mix", "test_bad_input", "test_kills", "test_faults", "test_experiment"),
    *(
        "test_evaluation",
        "test_all_attacks",
        "test_table2",
        "test_training",
        "test_readme",
        "test_transfer_matrix",
        "test_replicas",
        "test_devices",
    ),
)


def pytest_collection_modifyitems(items):
    """Long modules come first: at the end no process is left alone with one."""
    place = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(_LONG)))


def pytest_collection_finish():
    """What is imported is never garbage: to look through it takes half a second each time."""
    gc.freeze()


_collected = time.monotonic()


def pytest_runtest_teardown():
    """Iterators of training that an error ended are garbage, and the longer they live, the longer to free.

    TensorFlow's tuning thread of an iterator sleeps twice as long each time, for up to a minute, and
    sometimes misses that it is to end; whoever frees the iterator waits for it.
    """
    global _collected
    if time.monotonic() > _collected + 5:
        gc.collect()
        _collected = time.monotonic()


@pytest.fixture(scope="module")
def tiny_world():
    """The model `tiny` and its data set `stripes`, by name."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.register(patch)
        yield


@pytest.fixture
def rng():
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20190128)


@pytest.fixture
def tiny_batch(rng):
    """`tiny_batch(count, input_shape, num_classes)`: float32 images in [0, 1] and class indices."""

    def make(count=8, input_shape=(6, 6, 1), num_classes=3):
        x = rng.random((count, *input_shape), dtype="float32")
        return x, rng.integers(num_classes, size=count)

    return make


@pytest.fixture
def tiny_members():
    """`tiny_members(n, ...)`: small functional models that give logits, with distinct names and weights.

    `features` maps images to what the last Dense layer sees: by default a convolution, LeakyReLU and
    max-pooling. It makes its own layers at every call: a layer has the precision it was made with.
    """
    import keras
    from keras import layers

    def convolutional(x):
        x = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(4, 3, padding="same")(x))
        return layers.Flatten()(layers.MaxPooling2D(2)(x))

    def make(n=2, *, input_shape=(6, 6, 1), num_classes=3, features=None, seed=0, dtype=None, name="member"):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(dtype or before)
        try:
            members = []
            for index in range(n):
                keras.utils.set_random_seed(1000 * seed + index)
                inputs = keras.Input(input_shape, dtype=keras.config.dtype_policy().variable_dtype)
                logits = layers.Dense(num_classes, bias_initializer="normal")(
                    (features or convolutional)(inputs)
                )
                members.append(keras.Model(inputs, logits, name=f"{name}_{index}"))
            return members
        finally:
            keras.config.set_dtype_policy(before)

    return make


@pytest.fixture
def gradient_errors(rng):
    """Relative errors of a tape's gradient of `loss()` along random directions, variable by variable.

    `graph` differentiates inside a tf.function. The differences are of fourth order, in the precision
    of the variables: float64 is what makes them sharp. Of several `steps` the best one counts: a kink
    between its points spoils a long step, rounding a short one, and a wrong gradient fits none.
    """
    import tensorflow as tf

    def errors(loss, variables, *, steps=(1e-4,), graph=False):
        def gradient():
            with tf.GradientTape() as tape:
                value = loss()
            return tape.gradient(value, variables)

        gradients = (tf.function(gradient) if graph else gradient)()
        value = tf.function(loss)
        found = {}
        for variable, slope in zip(variables, gradients, strict=True):
            start = variable.numpy()
            direction = rng.normal(size=start.shape)
            direction /= np.linalg.norm(direction)

            def along(distance, variable=variable, start=start, direction=direction):
                variable.assign(start + distance * direction)
                return float(value())

            expected = np.array([reference.derivative_at_zero(along, step) for step in steps])
            variable.assign(start)
            found[variable.path] = float(np.abs(np.vdot(slope, direction) / expected - 1).min())
        return found

    return errors
