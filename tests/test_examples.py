"""The examples run as they stand there, in a directory of their own, and show what they say."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import divtf
from divtf.ensembles.objectives.perturbed import image_numbers

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, directory, *arguments):
    """What an example prints, as a user runs it."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_own_members_are_attacked_and_saved(tmp_path):
    printed = run("own_members", tmp_path, "--epochs=8", "--to=mine.keras")
    found = dict(re.findall(r"^(T_\w+ +\w+) +([\d.]+) \[", printed, re.MULTILINE))
    assert {" ".join(name.split()) for name in found} == {
        f"{target} {attack}"
        for target in ("T_Base", "T_Div")
        for attack in ("clean", "fgsm", "mifgsm", "worst_case")
    }
    accuracy = {" ".join(name.split()): float(value) for name, value in found.items()}
    assert accuracy["T_Div clean"] > 0.8 and accuracy["T_Div fgsm"] < accuracy["T_Div clean"]
    assert (tmp_path / "mine.keras").is_file() and "predicts the same" in printed


def test_heads_are_trained_on_a_backbone_that_stays(tmp_path):
    printed = run("fine_tune_backbone", tmp_path, "--images=64", "--epochs=1")
    assert "trained variables a member: 4; backbone unmoved: True" in printed
    assert -1 <= float(re.search(r"input gradients: (-?[\d.]+)", printed)[1]) <= 1


def test_a_folder_becomes_a_run_and_an_ensemble(tmp_path):
    printed = run("image_folder", tmp_path)
    assert "conv3 on digits: accuracy in percent at epsilon 0.05 / 0.1" in printed
    assert len(re.findall(r"^(?:zero|one|two|three) +is taken for ", printed, re.MULTILINE)) == 8
    assert "| three |" in (tmp_path / "image_folder" / "runs" / "digits" / "report.md").read_text()


def test_each_format_is_asked_without_divtf(tmp_path):
    printed = run("serve", tmp_path)
    assert re.findall(r"^(\w+) +off by", printed, re.MULTILINE) == ["SavedModel", "ONNX", "LiteRT"]
    assert float(re.search(r"int8: the same class for ([\d.]+)%", printed)[1]) > 90


def test_the_picture_of_the_method_is_drawn_from_trained_gradients(tmp_path):
    printed = run("method", tmp_path, "--images=64", "--epochs=1", "--to=drawn.png")
    found = re.findall(
        r"^(T_Base|GAL): coherence (-?[\d.]+) on this image, (-?[\d.]+) on 1000$", printed, re.M
    )
    assert [name for name, *_ in found] == ["T_Base", "GAL"]
    assert all(-0.5 <= float(value) <= 1 for _, *values in found for value in values)
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_every_example_is_run_here():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    tried = re.findall(r'run\(\s*"(\w+)"|examples\.(\w+):', Path(__file__).read_text())
    assert names == {program or module for program, module in tried}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 110 and text.startswith('"""')
    assert f"python examples/{path.name}" in text or re.search(
        rf"--(model|objective)=examples.{path.stem}:", text
    )


@pytest.mark.parametrize("function", ["strided", "smooth", "pooled"])
def test_small_members_are_made_by_name_each_from_its_seed(function, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES.parent)
    first, other = divtf.build_members(f"examples.small_members:{function}", 2, (28, 28, 1), 10, seed=0)
    again, _ = divtf.build_members(f"examples.small_members:{function}", 2, (28, 28, 1), 10, seed=0)
    assert first.output_shape == (None, 10)
    x = np.random.default_rng(0).random((3, 28, 28, 1), "float32")
    assert np.array_equal(first(x), again(x)) and not np.allclose(first(x), other(x), atol=1e-3)


@pytest.mark.parametrize("function", ["smooth_alignment", "in_turn"])
def test_own_objectives_are_made_by_name_and_add_gal(function, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES.parent)
    objective = divtf.make_objective(f"examples.own_objectives:{function}")
    members = divtf.build_members("examples.small_members:strided", 3, (28, 28, 1), 10, seed=0)
    rng = np.random.default_rng(0)
    x, y = tf.constant(rng.random((12, 28, 28, 1), "float32")), tf.constant(rng.integers(0, 10, 12))
    terms = objective(members, x, y, training=True)
    added = 0 if terms.diversity is None else terms.diversity
    np.testing.assert_allclose(terms.loss, terms.cross_entropy + added + 0.5 * terms.gal, rtol=1e-5)
    if function == "smooth_alignment":
        assert np.all(terms.diversity > 0)
        return
    # Each image fools the member whose turn it is more than the others.
    images = objective.attacked(members, x, y)
    risen = [
        divtf.CrossEntropy()([member], images, y, training=False).loss
        - divtf.CrossEntropy()([member], x, y, training=False).loss
        for member in members
    ]
    turn = np.argmax(risen, axis=0)
    np.testing.assert_array_equal(turn, image_numbers(x, 3))
    assert set(turn) == {0, 1, 2}
    assert np.max(np.abs(images - x)) <= 0.1 + 1e-6
