"""The benchmarks' floor, and the tables made of what they measured."""

import ast
import collections
import dataclasses
import importlib
import json
import types
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from benchmarks import exactness, explanation_tables, outside_attacks
from benchmarks.flops import layer_flops, step_flops
from benchmarks.stages import split_run
from benchmarks.timing import BestRate, Row, markdown, medians
from divtf import CrossEntropy, GradientAlignment, ThreatModel
from divtf.attacks import outside
from divtf.storage.evaluations import TRANSFER, EvaluationRecord, TrialResult, packed_at
from divtf.storage.records import packed

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
    record = json.loads(path.read_text())
    made = {"exactness": exactness.markdown}.get(path.stem, markdown)
    assert path.with_suffix(".md").read_text() == (
        explanation_tables.markdown(record) if "found" in record else made(record)
    )


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


def test_explanations_stand_beside_the_figures_without_them():
    """Of 8 images; where the same 8 outcomes differ in b and c of them, points are 100 (b - c) / 8."""

    def left(fgsm, ifgsm, changed):
        hits = {"ifgsm": ifgsm, "ifgsm with a change": changed, "fgsm": fgsm}
        return {attack: f"{bits:02x}" for attack, bits in hits.items()}

    as_usual, other = explanation_tables.AS_TRAINED, "seed 1"
    found = {
        "T_Div": {
            "none": {"clean": "ff"},
            as_usual: left(0xFF, 0b1100_0000, 0b1111_0000),
            other: left(0xFF, 0b1000_0000, 0xFF),
        },
        "T_Ens of 2 epochs": {"none": {"clean": "fe"}, as_usual: left(0, 0b1110_0000, 0b0001_0000)},
        "T_Ens of 2 epochs with care": {"none": {"clean": "ff"}, as_usual: left(0, 0b1111_1100, 0xFF)},
    }
    environment = {"command": "explain", "commit": "abc", "cpus": 2, "platform": "Linux"}
    record = {
        "title": "Why",
        "budget": {"images": 8, "model": "conv3", "epsilon": 0.3, "epochs": 10, "epochs here": 2},
        "environment": environment,
        "found": found,
    }
    text = explanation_tables.markdown(record)
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ifgsm: a change")]
    lines += [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith(("| surr", "| train"))]
    # By Agresti and Min 2 of 8 are -11.6 to +51.6 points; the paper's figures are those of its Table 2.
    assert lines == [
        ["ifgsm: a change", "T_Div", "ifgsm", "25.0", "50.0", "+25.0 (-11.6 to +51.6)", "20.4"],
        ["ifgsm: a change", "T_Ens of 2 epochs", "ifgsm", "37.5", "12.5", "-25.0 (-62.0 to +22.0)", "56.3"],
        ["surrogate: seed 1", "T_Div", "ifgsm", "25.0", "12.5", "-12.5 (-37.0 to +17.0)", "20.4"],
        ["training: care", "T_Ens of 2 epochs", "ifgsm", "37.5", "75.0", "+37.5 (-4.5 to +64.5)", "56.3"],
    ]
    assert "| T_Div, paper | 20.4 | 20.4 | 34.3 |\n| T_Ens of 2 epochs | 37.5 | 12.5 | 0.0 |\n" in text
    assert (
        "| T_Ens, paper | 56.3 | 56.3 | 61.3 |\n| T_Ens of 2 epochs with care | 75.0 | 100.0 | 0.0 |\n"
        in text
    )
    assert "REDUCED: fewer epochs than the paper's 10" in text
    assert "## Surrogate: seed 1\n\n| accuracy, % | ifgsm | ifgsm with a change | fgsm |" in text


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_takes_of_divtf_is_there(path):
    """Most of them no test runs; importing them would declare the flags of several commands at once."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "divtf":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


# A linear target of three classes, and images whose label is what it says.
SLOPES = np.random.default_rng(0).normal(size=(36, 3)).astype("float32") / 6
IMAGES = np.random.default_rng(1).random((12, 6, 6, 1), dtype="float32")
LABELS = (IMAGES.reshape(12, 36) @ SLOPES).argmax(axis=1)


def linear(x):
    return tf.reshape(x, (-1, 36)) @ SLOPES


@pytest.mark.skipif(not (find_spec("art") and find_spec("foolbox")), reason="needs `attacks` and `bench`")
@pytest.mark.parametrize("name", [*outside_attacks.OUTSIDE, "Square"])
def test_attacks_of_other_libraries_reach_a_linear_target(name):
    """Nearly what the best image in the ball does, which is known: each pixel to one end or the other."""
    outside.load_art("this test")
    threat = ThreatModel(0.15)
    make = outside_attacks.OUTSIDE.get(name) or outside_attacks.BySquare(200)
    hits = outside_attacks.hits_of({name: make}, linear, {"it": linear}, IMAGES, LABELS, threat)["it"][name]
    flat = IMAGES.reshape(12, 36)
    rivals = []
    for other in range(3):
        slope = (SLOPES[:, other] - SLOPES[:, LABELS].T).astype("float64")
        ends = np.where(slope > 0, np.minimum(flat + 0.15, 1), np.maximum(flat - 0.15, 0))
        rivals.append((ends * slope).sum(axis=1))
    falls = np.max(rivals, axis=0) > 0
    assert 2 < falls.sum() < 11 and not (~hits & ~falls).any()
    assert (~hits).sum() >= falls.sum() - (3 if name == "Square" else 1)


def test_worst_cases_of_the_libraries_are_compared_image_by_image():
    others = {"a": np.array([1, 1, 0, 0], bool), "b": np.array([1, 0, 1, 0], bool)}
    own = {"c": np.array([1, 1, 1, 0], bool), "d": np.array([0, 1, 1, 1], bool)}
    clean = np.ones(4, bool)
    rows = {row.name: row.value for row in outside_attacks.rows_of(others, own, clean)}
    assert rows == {
        **{"a, %": 50, "b, %": 50, "c, %": 75, "d, %": 75},
        "worst case of the other libraries, %": 25,
        "worst case of divtf, %": 50,
        "worst case of all, %": 0,
        "divtf's worst case above theirs, points": 25,
        "divtf's worst case above that of all, points": 50,
    }
    *_, theirs, of_all = outside_attacks.rows_of(others, own, clean)
    assert theirs.cells()[2] == of_all.cells()[2] == "<= 2: MISSED"


def test_images_that_are_wrong_when_clean_count_on_neither_side():
    """Another library's attack moves the last one to its class: divtf gains nothing by that."""
    others, own = {"a": np.array([1, 1, 0, 1], bool)}, {"b": np.array([1, 1, 0, 0], bool)}
    rows = outside_attacks.rows_of(others, own, np.array([1, 1, 1, 0], bool))
    assert [row.value for row in rows] == [50, 50, 50, 50, 50, 0, 0]


def test_outside_tables_have_transfer_from_each_surrogate_and_a_white_box():
    def moved(by):
        return lambda target, x, y, threat, seed: np.clip(x + by * threat.epsilon, 0, 1)

    def evaluated(target, standing):
        """A record of one attack by transfer, which leaves these images."""
        tried, hits = packed_at(range(12), standing, 12)
        trials = (
            TrialResult("dim", TRANSFER, 0.05, {}, 1, 0, tried, hits, surrogate="more"),
            # On a surrogate of its own an attack leaves none: the others are not tried there.
            TrialResult("dim", TRANSFER, 0.05, {}, 1, 0, tried, packed([False] * 12), surrogate="same as it"),
        )
        shared = {"surrogates": {}, "stored_as": "float32", "query_images": 0, "images_digest": "x"}
        clean = packed([True] * 12)
        return EvaluationRecord(
            target,
            "m",
            "d",
            0,
            protocol="strong",
            images=12,
            epsilons=(0.05,),
            clean=clean,
            trials=trials,
            **shared,
        )

    targets = {"T_Base": linear, "T_Div": lambda x: linear(x) * -1}
    standing = [True] * 3 + [False] * 9
    tables = outside_attacks.tables_of(
        {"surrogate": linear, "more": linear},
        targets,
        {target: evaluated(target, standing) for target in targets},
        (IMAGES, LABELS),
        ThreatModel(0.05),
        white_box={"down": moved(-1)},
        transfer={"half": moved(0.5)},
    )
    assert list(tables) == [
        f"{target}, {kind}, epsilon 0.05"
        for kind in ("transfer", "white box")
        for target in ("T_Base", "T_Div")
    ]
    transfer, white_box = (tables[f"T_Base, {kind}, epsilon 0.05"] for kind in ("transfer", "white box"))
    assert [row.name for row in transfer[:3]] == [
        *(f"half from {surrogate}, %" for surrogate in ("surrogate", "more")),
        "divtf by transfer, %",
    ]
    assert transfer[2].value == 25
    assert [row.name for row in white_box[:2]] == ["down, %", "divtf by all attacks, %"]
    assert tables["T_Div, white box, epsilon 0.05"][0].value == 0 < white_box[0].value


@dataclasses.dataclass(frozen=True)
class Moved:
    """An attack that moves every pixel by a share of epsilon."""

    by: float

    def __call__(self, target, x, y, threat, seed):
        """[n, ...] -> [n, ...], noted in `CALLS`."""
        CALLS.append(self.by)
        return np.clip(x + self.by * threat.epsilon, 0, 1)


CALLS: list[float] = []


@pytest.mark.skipif(not (find_spec("art") and find_spec("foolbox")), reason="needs `attacks` and `bench`")
def test_what_others_found_is_kept_for_what_it_depends_on(tmp_path):
    CALLS.clear()
    model, other = (
        keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)]) for _ in range(2)
    )
    for each, sign in ((model, 1), (other, -1)):
        each.layers[-1].set_weights([sign * SLOPES, np.zeros(3, "float32")])
    kept, targets = outside_attacks.Found(tmp_path), {"T_Base": model, "T_Div": other}
    first = (Moved(-1.0), model, targets, IMAGES, LABELS, ThreatModel(0.05))
    found = kept.of("down", *first)
    # As without keeping, and by a plain product.
    for name, right in outside_attacks.Found().of("down", *first).items():
        np.testing.assert_array_equal(found[name], right)
    moved = np.clip(IMAGES - np.float32(0.05), 0, 1).reshape(12, 36) @ SLOPES
    np.testing.assert_array_equal(found["T_Base"], moved.argmax(axis=1) == LABELS)
    np.testing.assert_array_equal(found["T_Div"], moved.argmin(axis=1) == LABELS)
    others = [
        first,
        (Moved(-0.5), *first[1:]),
        (first[0], other, *first[2:]),
        (*first[:2], {"T_Base": model}, *first[3:]),
        (*first[:3], IMAGES[:6], LABELS[:6], first[5]),
        (*first[:4], (LABELS + 1) % 3, first[5]),
        (*first[:5], ThreatModel(0.06)),
    ]
    CALLS.clear()
    for _ in range(2):
        for given in others:
            kept.of("down", *given)
        outside_attacks.Found(tmp_path, seed=1).of("down", *first)
    assert len(CALLS) == len(others), "the first was there, another seed was not"
