"""Nothing is lost: on a full disk, with damaged files or beside another one, a run ends as if undisturbed."""

import json
import re
import shutil

import numpy as np
import pytest
import tiny
from damage import truncate
from endings import assert_ends_as, ending, lose
from faulty import OFTEN, Fault, run, start
from logged import logged

from divtf.pipeline import finished, shared_paths
from divtf.storage import checked_json, run_directory
from divtf.training.checkpoints import Checkpoints, State

LINE = re.compile(r"error: Expected [^\n]+\. Received: [^\n]+\n")


def test_whole_run_has_all_that_can_be_lost(whole):
    names = set(ending(whole))
    shared = f"{shared_paths.SHARED}/stripes-tiny-seed"
    assert len([name for name in names if name.startswith(shared) and name.endswith(".npy")]) == 4
    assert len([name for name in names if name.endswith(run_directory.CHECKPOINTS)]) == 3
    assert {"run/config.json", "run/metrics.jsonl", "run/results.json", "run/report.md"} <= names
    steps = sorted(state[1]["step"] for name, state in ending(whole).items() if name.endswith("checkpoints"))
    assert steps == [6, 6, 18]


@pytest.mark.slow
def test_another_undisturbed_run_ends_the_same(whole, tmp_path):
    assert run(tmp_path / "run", OFTEN).code == 0
    assert_ends_as(tmp_path, whole)


# Damaged files.


def flip_a_figure(path):
    """One bit of a figure: what was written stays JSON."""
    content = path.read_bytes()
    places = [place.start() for place in re.finditer(rb"(?<=[0-9.])[0-9](?=[0-9])", content)]
    place = places[len(places) // 2] if places else len(content) // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


# Newest checkpoint or set or record -> what has to be lost for it to be read again, and what is said of it.
DAMAGES = {
    "run/checkpoints/step-00000018.keras": ("run/results.json", "step-00000018 is damaged"),
    "run/checkpoints/step-00000018.json": ("run/results.json", "step-00000018 is damaged"),
    "shared-models/*-seed1000-*/checkpoints/step-00000006.keras": (
        "run/results.json",
        "step-00000006 is damaged",
    ),
    "shared-models/*-seed1000-*/adversarial/rfgsm-*.npy": ("run/results.json", "making it again"),
    "shared-models/*-seed1000-*/adversarial/rfgsm-*.json": ("run/results.json", "making it again"),
    "run/results.json": (None, "results.json. Received: "),
    "run/metrics.jsonl": (None, "metrics.jsonl is damaged; writing it again"),
}
CHEAP = ["run/results.json", "run/metrics.jsonl"]


@pytest.mark.parametrize("damage", [truncate, flip_a_figure])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in CHEAP else pytest.mark.slow) for name in DAMAGES]
)
def test_damage_is_reported_once_and_mended(name, damage, copied, whole):
    lost, words = DAMAGES[name]
    (path,) = copied.glob(name)
    damage(path)
    if lost:
        lose(copied, lost)
    done = run(copied / "run")
    assert (done.code, done.err) == (0, "")
    assert len([line for line in done.out.splitlines() if words in line]) == 1, done.out
    assert_ends_as(copied, whole)


def flips(content, every=1):
    """The content with one bit flipped, in every so many bytes, the bits in rotation."""
    for place in range(0, len(content), every):
        byte = content[place]
        yield content[:place] + bytes([byte ^ (1 << place % 8)]) + content[place + 1 :]


def test_no_flipped_bit_of_a_checkpoints_state_is_taken_for_true(copied, monkeypatch):
    """It is found, and the checkpoint before is used; or it says the same, as a changed blank does."""
    monkeypatch.setattr("divtf.training.checkpoints._load", lambda path: None)
    folder = copied / "run" / run_directory.CHECKPOINTS
    path = folder / "step-00000018.json"
    content = path.read_bytes()
    true = Checkpoints(folder).restore()
    unnoticed = []
    for damaged in flips(content):
        path.write_bytes(damaged)
        found = Checkpoints(folder).restore()
        assert found == true or found.step == 9
        unnoticed += [damaged] if found == true else []
    assert len(unnoticed) < len(content) / 4


def test_no_flipped_bit_of_the_results_is_taken_for_true(copied, monkeypatch):
    tiny.register(monkeypatch)
    path = copied / "run" / run_directory.RESULTS
    content, true = path.read_bytes(), finished.read_record(copied / "run")
    found = 0
    for damaged in flips(content, every=5):
        path.write_bytes(damaged)
        try:
            assert finished.read_record(copied / "run") == true
        except checked_json.DamagedError as error:
            found += 1
            assert "results.json" in str(error) and "\n" not in str(error)
    assert found > len(content) / 5 / 2


def test_no_flipped_bit_of_a_manifest_or_set_is_taken_for_true(copied):
    from divtf.evaluation.adversarial_sets import _read

    (path,) = copied.glob("shared-models/*-seed1000-*/adversarial/rfgsm-*.npy")
    manifest = json.loads(path.with_suffix(".json").read_text())
    sha256 = manifest.pop("sha256")
    for beside in ("surrogate_settings", "checksum"):  # They tell no set from another.
        manifest.pop(beside)
    kind = (24, 8, 8, 1), np.dtype("float32")
    images, digest = _read(path, manifest, *kind)
    assert digest == sha256
    for suffix in (".json", ".npy"):
        file = path.with_suffix(suffix)
        content, blanks = file.read_bytes(), 0
        for damaged in flips(content, every=1 if suffix == ".json" else 97):
            file.write_bytes(damaged)
            if kept := _read(path, manifest, *kind):
                blanks += 1
                assert suffix == ".json" and (kept[0] == images).all() and kept[1] == digest
        assert blanks < len(content) / 4
        file.write_bytes(content)


# Full disks.

FULL = [
    Fault("training.checkpoints.Checkpoints.save", 4, act="fill"),
    Fault("training.callbacks.Recorder._write_scalars", 6, act="fill"),
    Fault("evaluation.adversarial_sets.AdversarialSets._write", 1, act="fill"),
    Fault("reporting.report.write_report", 1, act="fill"),
]


def assert_full_disk_loses_nothing(directory, fault, whole):
    done = run(directory, fault=fault)
    assert done.code == 2
    assert LINE.fullmatch(done.err), done.err
    assert "File too large" in done.err
    root = directory.parent
    assert not list(root.rglob(".partial-*"))
    with logged() as lines:
        for folder in root.rglob(run_directory.CHECKPOINTS):
            assert isinstance(Checkpoints(folder).restore(), State)
    assert lines == [], "every newest checkpoint is whole"
    again = run(directory)
    assert (again.code, again.err) == (0, "")
    assert_ends_as(root, whole)


def test_full_disk_at_a_checkpoint_is_one_line_and_loses_nothing(half_done, whole):
    assert_full_disk_loses_nothing(
        half_done / "run", Fault("training.checkpoints.Checkpoints.save", act="fill"), whole
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", FULL, ids=str)
def test_full_disk_anywhere_is_one_line_and_loses_nothing(fault, whole, tmp_path):
    assert_full_disk_loses_nothing(tmp_path / "run", fault, whole)


# Two processes.


def test_directory_of_a_living_process_is_refused_and_of_a_dead_one_gone_on_with(copied, whole):
    lose(copied, "run/report.md")
    first = start(copied / "run", fault=Fault("report.md", act="stop")).until_stopped()
    try:
        second = run(copied / "run")
        assert second.code == 2
        assert LINE.fullmatch(second.err), second.err
        assert f"held by process {first.process.pid}" in second.err
        assert not (copied / "run" / "report.md").exists(), "it has not touched the run"
    finally:
        first.kill()
    assert run(copied / "run").code == 0
    assert_ends_as(copied, whole)


@pytest.mark.slow
def test_set_that_a_living_process_makes_is_waited_for_and_a_dead_ones_made_anew(copied, whole):
    """Two targets of one surrogate: the first is stopped, then killed, with half a set on disk."""
    (adversarial,) = copied.glob("shared-models/*-seed1000-*/adversarial")
    lose(copied, "run/results.json", "shared-models/*-seed1000-*/adversarial/rfgsm-*")
    shutil.copytree(copied / "run", copied / "other")
    fault = Fault("rfgsm-*.npy", when="within", act="stop")
    first = start(copied / "run", fault=fault).until_stopped()
    try:
        second = start(copied / "other").until_waiting()
        assert len(list(adversarial.glob(".partial-*"))) == 1, "a living process's file is left alone"
    finally:
        first.kill()
    second.wait()
    assert (second.code, second.err) == (0, "")
    assert f"waits for process {first.process.pid}, which holds {adversarial}" in second.out
    assert not list(adversarial.glob(".partial-*"))
    shutil.rmtree(copied / "run")
    (copied / "other").rename(copied / "run")
    assert_ends_as(copied, whole)


# Nothing hostile is run, and nothing of another run is taken.


def test_checkpoint_of_another_run_is_refused(copied):
    """As whole as it is: the static model's in the place of the target's."""
    (static,) = copied.glob("shared-models/*-seed2000-*/checkpoints")
    shutil.rmtree(copied / "run" / "checkpoints")
    shutil.copytree(static, copied / "run" / "checkpoints")
    (copied / "run" / run_directory.RESULTS).unlink()
    done = run(copied / "run")
    assert done.code == 2
    assert LINE.fullmatch(done.err), done.err
    assert "Expected a checkpoint of this run" in done.err and "step-00000006.keras" in done.err


@pytest.mark.slow
def test_deterministic_runs_are_equal_to_the_bit(tmp_path):
    """And they do ask TensorFlow for it: its log has a line for each operation that it has to replace."""
    for root in ("first", "second"):
        assert run(tmp_path / root / "run", "--deterministic").code == 0
    assert_ends_as(tmp_path / "first", tmp_path / "second")
