"""The benchmarks' floor, and the tables made of what they measured."""

import ast
import collections
import importlib
import json
import types
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from keras import layers

from benchmarks import exactness
from benchmarks.flops import layer_flops, step_flops
from benchmarks.stages import split_run
from benchmarks.timing import BestRate, Row, markdown, medians
from divtf import CrossEntropy, GradientAlignment

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RESULTS = BENCHMARKS / "results"
# Forward operations an example: 8 x 8 x 4 outputs of 3 x 3 x 2 products, 8 x 8 x 3 of 1 x 1 x 4, 192 x 5.
FIRST, SECOND, DENSE = 2 * 8 * 8 * 4 * 9 * 2, 2 * 8 * 8 * 3 * 4, 2 * 192 * 5
OBJECTIVES = {"cross_entropy": CrossEntropy(), "gal": GradientAlignment(0.5)}


def member(name="member"):
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="tanh")(image)
    x = layers.Conv2D(3, 1, activation="tanh")(x)
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(x)), name=name)


def convolutions(make_gradient):
    """Convolutions in a graph that its outputs depend on, by the shape of their kernel."""
    graph = tf.function(make_gradient).get_concrete_function().graph
    found, seen, waiting = collections.Counter(), set(), [tensor.op for tensor in graph.outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        if operation.type.startswith("Conv2D"):
            found[operation.type] += 1
        waiting += [tensor.op for tensor in operation.inputs]
    return sum(found.values())


def test_operations_of_a_forward_pass_are_counted_by_hand():
    assert [flops for flops in map(layer_flops, member().layers) if flops] == [FIRST, SECOND, DENSE]


@pytest.mark.parametrize(
    ("step", "first", "rest"), [("cross_entropy", 2, 3), ("gal", 5, 6), ("attack", 2, 2)]
)
def test_a_steps_operations_are_passes_times_the_forward_ones(step, first, rest):
    assert step_flops(member(), step) == first * FIRST + rest * (SECOND + DENSE)


@pytest.mark.parametrize("step", OBJECTIVES)
def test_passes_are_the_convolutions_of_the_traced_gradient(step):
    """One pass of each convolution, as the floor counts them, is one operation of TensorFlow's graph."""
    members = [member(f"member_{i}") for i in range(2)]
    x, y = tf.ones([4, 8, 8, 2]), tf.constant([0, 1, 2, 3])
    variables = [variable.value for one in members for variable in one.trainable_variables]

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(OBJECTIVES[step](members, x, y, training=True).loss)
        return tape.gradient(loss, variables, unconnected_gradients="zero")

    first, rest = {"cross_entropy": (2, 3), "gal": (5, 6)}[step]
    assert convolutions(gradient) == len(members) * (first + rest)


def test_things_are_timed_in_turn():
    calls = []
    seconds = medians({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3)
    assert calls == list("ab") * 5 and set(seconds) == {"a", "b"}


def test_best_rate_is_that_of_the_fastest_call_by_its_counted_operations(monkeypatch):
    # A product in 2 s and a convolution in 1 s, then both slower.
    monkeypatch.setattr("time.perf_counter", iter([0, 2, 2, 3, 3, 9, 9, 15]).__next__)
    rate = BestRate()
    for _ in range(2):
        rate()
        # 128 x 28 x 28 x 128 outputs of 3 x 3 x 64 products and sums.
        assert rate.flops_per_second == 2 * 128 * 28 * 28 * 128 * 3 * 3 * 64


def test_a_run_is_split_at_its_steps():
    # 3 s before the first of 2 epochs of 25 steps of 0.5 s, 4 s between them, and 6 s after the last step.
    times = {10: 108.0, 20: 113.0, 30: 122.0, 40: 127.0, 50: 132.0}
    events = [types.SimpleNamespace(step=step, wall_time=time) for step, time in times.items()]
    assert split_run(100.0, 138.0, events, per_epoch=25, total=50) == (3.0, 25.0, 4.0, 6.0)


def test_a_step_that_ends_an_epoch_is_logged_before_the_epoch_ends():
    times = {10: 105.0, 20: 110.0, 30: 119.0, 40: 124.0}
    events = [types.SimpleNamespace(step=step, wall_time=time) for step, time in times.items()]
    assert split_run(100.0, 125.0, events, per_epoch=20, total=40) == (0.0, 20.0, 4.0, 1.0)


def test_a_row_says_whether_its_target_is_met():
    assert [Row("step", value, 1.5).cells()[2] for value in (1.5, 1.51)] == ["<= 1.5: met", "<= 1.5: MISSED"]
    assert Row("step", 2.0).cells() == ("step", "2", "")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_published_tables_are_made_of_their_records(path):
    made = exactness.markdown if path.stem == "exactness" else markdown
    assert path.with_suffix(".md").read_text() == made(json.loads(path.read_text()))


def test_tables_are_made_of_the_record():
    record = {
        "title": "Speed",
        "budget": {"members": 5},
        "environment": {"command": "python -m benchmarks", "commit": "abc", "cpus": 2, "platform": "Linux"},
        "tables": {"conv3": [{"name": "GAL step / floor", "value": 1.234, "most": 1.35}]},
    }
    text = markdown(json.loads(json.dumps(record)))
    for part in ("python -m benchmarks", "abc", "members 5", "| GAL step / floor | 1.234 | <= 1.35: met |"):
        assert part in text
    assert "- Machine: 2 cores, Linux\n" in text
    record["environment"]["avx512"] = False
    assert "- Machine: 2 cores, Linux, without AVX-512\n" in markdown(record)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_takes_of_divtf_is_there(path):
    """Most of them no test runs; importing them would declare the flags of several commands at once."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "divtf":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
