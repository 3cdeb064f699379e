"""A run directory of 0.2.0, made by the code before the rooms, goes on working."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from logged import logged

from divtf.commands import figure5, transfer_matrix
from divtf.pipeline import experiment, finished, trained
from divtf.storage import checked_json, run_directory
from divtf.storage.digests import digest

BEFORE = Path(__file__).parents[1] / "data" / "0.2.0" / "runs"
NAME = "stripes-tiny-div-seed0"

pytestmark = pytest.mark.usefixtures("tiny_world")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return shutil.copytree(BEFORE, tmp_path_factory.mktemp("before") / "runs")


def config(root, **values):
    values = {"epochs": 1, "attacks": ("fgsm",), "run_dir": str(root / NAME), "resume": True} | values
    return tiny.config(**values)


def checkpoints(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("step-*.keras"))}


def test_its_records_are_read(root):
    record = finished.read_record(root / NAME)
    assert (record.target, record.subject, record.provenance["divtf"]) == (
        "T_Div",
        "tiny on stripes",
        "0.2.0",
    )
    assert finished.read_config(root / NAME).identity() == config(root).identity()
    assert [found.target for found in figure5.collect(root)] == ["T_Div"]
    assert [found.target for found in transfer_matrix.collect(root)] == ["T_Div"]


def test_it_is_finished_for_this_version_too(root):
    before = (root / NAME / run_directory.RESULTS).read_bytes()
    with logged() as lines:
        experiment.run(config(root))
    assert [line.split(",")[0] for line in lines] == ["finished before"]
    assert (root / NAME / run_directory.RESULTS).read_bytes() == before


def test_its_ensemble_is_restored(root):
    target = trained.restore(config(root), tiny.data().spec, root / NAME)
    record = finished.read_record(root / NAME)
    x, y = tiny.data().test_set()
    hits = (target.predict(x, verbose=0).argmax(axis=-1) == y).sum()
    assert hits == record.result("clean", 0.0).correct


def test_lost_results_are_measured_again_on_its_weights_and_its_surrogates(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "runs")
    known, trained_before = finished.read_record(copy / NAME), checkpoints(copy)
    (copy / NAME / run_directory.RESULTS).unlink()
    with logged() as lines:
        experiment.run(config(copy))
    assert checkpoints(copy) == trained_before and sum("was trained before" in line for line in lines) == 2
    again = finished.read_record(copy / NAME)
    assert [result.correct for result in again.results] == [result.correct for result in known.results]
    assert again.provenance["weights"] == known.provenance["weights"]


def test_it_is_gone_on_with(root, tmp_path):
    """Its identity is the same, and its training goes on, with the draws of this version from there on."""
    copy = shutil.copytree(root, tmp_path / "runs")
    identity = json.loads((copy / NAME / run_directory.CONFIG).read_text())
    assert identity == config(copy).identity()
    (copy / NAME / "checkpoints" / "step-00000018.json").unlink()
    (copy / NAME / run_directory.RESULTS).unlink()
    with logged() as lines:
        experiment.run(config(copy))
    assert any(line.startswith("trains T_Div") for line in lines)
    known, found = finished.read_record(root / NAME), finished.read_record(copy / NAME)
    assert found.provenance["weights"] != known.provenance["weights"]
    assert [result.total for result in found.results] == [result.total for result in known.results]


def test_a_checkpoint_of_before_says_that_draws_are_others_from_there_on(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "runs")
    (copy / NAME / run_directory.RESULTS).unlink()
    (copy / NAME / run_directory.CONFIG).write_text(json.dumps(config(copy, epochs=2).identity()))
    state = copy / NAME / "checkpoints" / "step-00000018.json"
    values = checked_json.read_checked(state)
    checked_json.write_checked(state, values | {"run": digest(config(copy, epochs=2).training())})
    with logged() as lines:
        experiment.run(config(copy, epochs=2))
    assert any("an earlier version" in line for line in lines)
    assert finished.read_record(copy / NAME).budget["epochs"] == 2
