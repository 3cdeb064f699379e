"""The checks inside a step: what stops it, and the words for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from divtf.ensembles import step_checks
from divtf.errors import InputError

MODES = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])


def optimizer_after(steps):
    optimizer = keras.optimizers.SGD()
    optimizer.iterations.assign(steps)
    return optimizer


def run(function, graph, steps=0):
    with step_checks.clear_errors(optimizer_after(steps)):
        return (tf.function(function) if graph else function)()


@MODES
@pytest.mark.parametrize(("labels", "low", "high"), [([0, 12, 3], 0, 12), ([2, -1, 1], -1, 2)])
def test_labels_out_of_range_are_named_by_their_extremes(labels, low, high, graph):
    with pytest.raises(InputError) as caught:
        run(lambda: step_checks.class_indices(tf.constant(labels, tf.int64), 12), graph)
    assert (
        str(caught.value)
        == f"Expected labels as whole numbers in [0, 12). Received: labels from {low} to {high}"
    )
    assert caught.value.__suppress_context__


@MODES
def test_labels_in_range_pass_as_they_are(graph):
    labels = run(lambda: step_checks.class_indices(tf.constant([0, 11, 3], tf.int64), 12), graph)
    np.testing.assert_array_equal(labels, [0, 11, 3])


@MODES
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_first_quantity_that_is_not_finite_is_named_with_its_step(bad, graph):
    def check():
        with tf.control_dependencies(
            step_checks.are_finite({"loss": tf.constant(1.0), "gradient norm": bad, "other": bad})
        ):
            return tf.constant(0)

    with pytest.raises(InputError) as caught:
        run(check, graph, steps=41)
    assert str(caught.value) == (
        "Expected a finite gradient norm in training. Received: NaN or infinity at step 42; the trainable "
        "weights are those after step 41. A smaller learning rate or GAL weight may help"
    )


@MODES
def test_what_waits_for_the_checks_does_not_run_if_one_fails(graph):
    weight = tf.Variable(1.0)

    def step():
        with tf.control_dependencies(step_checks.are_finite({"loss": tf.constant(float("nan"))})):
            return weight.assign(2.0)

    with pytest.raises(InputError):
        run(step, graph)
    assert weight.numpy() == 1


def test_without_an_optimizer_no_step_was_taken():
    with pytest.raises(InputError, match="at step 1; the trainable"), step_checks.clear_errors(None):
        step_checks.are_finite({"loss": tf.constant(float("nan"))})


@MODES
def test_errors_of_other_operations_pass(graph):
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels from 0 to 3"):
        run(lambda: tf.debugging.assert_equal(tf.constant(1), 2, "labels from 0 to 3"), graph)
