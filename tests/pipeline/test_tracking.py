"""--track: MLflow and Weights & Biases have what the run has, and the run nothing of theirs."""

import contextlib
import importlib.util
import ipaddress
import json
import random
import socket
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from logged import logged
from run_files import metrics

from divtf.errors import InputError
from divtf.pipeline import experiment, finished, shown
from divtf.runtime.workers import Team
from divtf.storage import run_directory
from divtf.training import trackers

pytestmark = pytest.mark.usefixtures("tiny_world")
FILES = {"config.json", "report.md", "table.csv", "table.json", "accuracy.png", "table.png"}
# What MLflow and wandb are told where to write by, which tests may have set.
SET = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT")


def settings(root, name, **values):
    values = {"epochs": 2, "attacks": ("fgsm",), "epsilons": (0.1,)} | values
    return tiny.config(mode="base", run_dir=str(root / name), **values)


@contextlib.contextmanager
def addresses(patch):
    """Where this process connects to meanwhile."""
    seen, connect = [], socket.socket.connect

    def noted(self, address):
        seen.append((self.family, address))
        return connect(self, address)

    patch.setattr(socket.socket, "connect", noted)
    yield seen


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run without trackers and with both."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch, addresses(patch) as seen:
        for name in SET:
            patch.delenv(name, raising=False)
        experiment.run(settings(root, "plain"))
        config = settings(root, "told", track=("mlflow", "wandb"))
        with logged() as lines:
            experiment.run(config)
    return {"root": root, "config": config, "lines": lines, "addresses": seen}


def record(runs, name="told"):
    return finished.read_record(runs["root"] / name)


def state(directory):
    return json.loads((directory / "tracking.json").read_text())


def test_tracking_changes_nothing_of_the_run(runs):
    plain, told = runs["root"] / "plain", runs["root"] / "told"
    for name in (run_directory.METRICS, run_directory.CONFIG, "table.csv", "accuracy.png"):
        assert (plain / name).read_bytes() == (told / name).read_bytes(), name
    assert record(runs, "plain").results == record(runs).results
    assert record(runs, "plain").provenance["weights"] == record(runs).provenance["weights"]
    assert not (plain / "tracking.json").exists()
    assert not [line for line in runs["lines"] if "track" in line]


def test_nothing_leaves_the_machine_unless_it_is_asked_for(runs):
    internet = [address for family, address in runs["addresses"] if family != socket.AF_UNIX]
    assert not [address for address in internet if not ipaddress.ip_address(address[0]).is_loopback]
    assert {path.name for path in runs["root"].iterdir()} == {
        *("plain", "told", "shared-models", "mlruns", "wandb")
    }


@pytest.fixture(scope="module")
def in_mlflow(runs):
    """The run as MLflow's client reads it, and that client."""
    from mlflow import MlflowClient

    client = MlflowClient((runs["root"] / "mlruns").as_uri())
    (experiment_of,) = client.search_experiments(filter_string="name = 'divtf'")
    (run,) = client.search_runs([experiment_of.experiment_id])
    return run, client


def test_mlflow_has_the_configuration_the_epochs_and_the_accuracies(runs, in_mlflow):
    run, client = in_mlflow
    assert (run.info.status, run.info.run_name) == ("FINISHED", "told")
    wanted = {name: str(value) for name, value in shown.settings(runs["config"]).items()}
    assert wanted.items() <= run.data.params.items()
    assert (wanted["attacks"], wanted["target"], wanted["epochs"]) == ("fgsm", "T_Base", "2")
    epochs = metrics(runs["root"] / "told")
    for name in set(epochs[0]) - {"epoch"}:
        history = client.get_metric_history(run.info.run_id, name)
        assert [each.value for each in sorted(history, key=lambda each: each.step)] == [
            pytest.approx(line[name]) for line in epochs
        ], name
    found = {
        name.removeprefix("final/"): value
        for name, value in run.data.metrics.items()
        if name.startswith("final")
    }
    (clean, attacked, worst) = record(runs).results
    assert found["clean"] == clean.correct / clean.total
    assert found["fgsm at 0.1"] == attacked.correct / attacked.total
    assert found["worst_case at 0.1"] == worst.correct / worst.total
    assert found["coherence"] == pytest.approx(np.mean(record(runs).coherence))


def test_mlflow_has_the_report_and_its_pictures(runs, in_mlflow):
    run, client = in_mlflow
    assert {each.path for each in client.list_artifacts(run.info.run_id)} >= FILES
    copy = Path(run.info.artifact_uri.removeprefix("file://")) / "report.md"
    assert copy.read_text() == (runs["root"] / "told" / "report.md").read_text()


def logged_in_wandb(path):
    """The records of a file of wandb's: LevelDB's log format, of protocol buffers.

    After 7 bytes of head come blocks of 32 KiB; in them parts, each with a checksum, a length and a kind: the
    whole, the first, one in the middle, or the last of a record.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


@pytest.fixture(scope="module")
def in_wandb(runs):
    (path,) = (runs["root"] / "wandb").glob("offline-run-*/*.wandb")
    return path, list(logged_in_wandb(path))


def items(message):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in message}


def test_wandb_has_the_configuration_the_epochs_and_the_accuracies(runs, in_wandb):
    _, records = in_wandb
    (begun,) = [each.run for each in records if each.WhichOneof("record_type") == "run"][:1]
    assert (begun.display_name, begun.project) == ("told", "divtf")
    assert shown.settings(runs["config"]).items() <= items(begun.config.update).items()
    rows = [items(each.history.item) for each in records if each.WhichOneof("record_type") == "history"]
    told = [row for row in rows if "epoch/loss" in row]
    epochs = metrics(runs["root"] / "told")
    assert len(told) == len(epochs) == 2
    for row, line in zip(told, epochs, strict=True):
        assert {name: row[f"epoch/{name}"] for name in line if name != "epoch"} == pytest.approx(
            {name: value for name, value in line.items() if name != "epoch"}
        )
    summary = {}
    for each in records:
        if each.WhichOneof("record_type") == "summary":
            summary |= items(each.summary.update)
    (clean, attacked, _) = record(runs).results
    assert summary["final/clean"] == clean.correct / clean.total
    assert summary["final/fgsm at 0.1"] == attacked.correct / attacked.total


def test_wandb_has_the_report_and_its_pictures(runs, in_wandb):
    path, records = in_wandb
    assert {each.name for each in (path.parent / "files").iterdir()} >= FILES
    rows = [items(each.history.item) for each in records if each.WhichOneof("record_type") == "history"]
    names = {name for row in rows for name in row}
    assert any(name.startswith("report/accuracy") for name in names)
    (picture,) = (path.parent / "files" / "media").rglob("accuracy*.png")
    assert picture.read_bytes() == (runs["root"] / "told" / "accuracy.png").read_bytes()


def test_mlflow_keeps_to_the_place_that_the_user_has_set(tmp_path, monkeypatch):
    import mlflow

    assert not mlflow.is_tracking_uri_set(), "a run leaves no place behind"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "theirs").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "their experiment")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracker = trackers.MLflow()
    name = tracker.begin(trackers.Subject("run", {"epochs": 2}, tmp_path / "ours"), "a run that is gone")
    tracker.end(failed=True)
    run = mlflow.get_run(name)
    assert (run.info.status, run.data.params) == ("FAILED", {"epochs": "2"})
    assert mlflow.get_experiment(run.info.experiment_id).name == "their experiment"
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_what_was_told_is_not_told_again(runs, monkeypatch):
    def begin(*_):
        raise AssertionError("begun again")

    for kind in (trackers.MLflow, trackers.WeightsAndBiases):
        monkeypatch.setattr(kind, "begin", begin)
    experiment.run(settings(runs["root"], "told", track=("mlflow", "wandb"), resume=True))


class Noted(keras.callbacks.Callback):
    def __init__(self, calls, failing):
        super().__init__()
        self.calls, self.failing = calls, failing

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch", epoch))
        if self.failing == "epoch" and epoch == 0:
            raise OSError("no room for curves")
        if self.failing == "killed" and epoch == 0:
            raise KeyboardInterrupt


@pytest.fixture
def tracker(monkeypatch):
    """A tracker in the place of MLflow that notes its calls, draws random numbers, and may fail."""

    class Stub:
        calls, failing = [], ""

        def begin(self, subject, known):
            random.random(), np.random.random()
            self.calls.append(("begin", known))
            if self.failing == "begin":
                raise ConnectionError("nobody there\nat all")
            return "id-1"

        def callback(self):
            return Noted(self.calls, self.failing)

        def finish(self, figures, paths):
            self.calls.append(("finish", sorted(figures)))
            if self.failing == "finish":
                raise OSError("no room for pictures")

        def end(self, failed):
            self.calls.append(("end", failed))

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Stub)
    return Stub


@pytest.mark.parametrize("failing", ["epoch", "finish"])
def test_a_tracker_that_fails_late_loses_nothing(runs, tracker, failing, tmp_path):
    tracker.failing = failing
    with logged() as lines:
        experiment.run(settings(tmp_path, "run", track=("mlflow",), attacks=()))
    told = [line for line in lines if "--track=mlflow fails, and the run goes on without it: no room" in line]
    assert len(told) == 1
    assert (tmp_path / "run" / "report.md").exists()
    assert finished.read_record(tmp_path / "run").results == record(runs).results[:1]
    assert tracker.calls[-1] == ("end", True)
    assert not state(tmp_path / "run")["mlflow"].get("whole")


def test_an_interrupted_run_goes_on_under_its_id(runs, tracker, tmp_path):
    tracker.failing = "killed"
    with pytest.raises(KeyboardInterrupt):
        experiment.run(settings(tmp_path, "run", track=("mlflow",), attacks=()))
    assert tracker.calls == [("begin", None), ("epoch", 0), ("end", True)]
    tracker.failing, tracker.calls[:] = "", []
    experiment.run(settings(tmp_path, "run", track=("mlflow",), attacks=(), resume=True))
    names = ["final/clean", "final/coherence", "final/gal"]
    assert tracker.calls == [("begin", "id-1"), ("epoch", 1), ("finish", names), ("end", False)]
    assert state(tmp_path / "run") == {"mlflow": {"run": "id-1", "whole": True}}
    assert metrics(tmp_path / "run") == metrics(runs["root"] / "plain")


def test_a_tracker_that_cannot_begin_is_one_line(tracker, tmp_path):
    tracker.failing = "begin"
    with pytest.raises(InputError, match=r"Expected --track=mlflow to begin a run\. Received: nobody there$"):
        experiment.run(settings(tmp_path, "run", track=("mlflow",), attacks=()))
    assert not (tmp_path / "run" / run_directory.CHECKPOINTS).exists()


def test_a_trackers_draws_are_not_the_runs(tracker, tmp_path, monkeypatch):
    """A layer without a seed takes its own from Python's random numbers."""
    seen = []

    def carry_out(*_):
        seen.append((random.random(), np.random.random()))

    monkeypatch.setattr(experiment, "_carry_out", carry_out)
    monkeypatch.setattr(experiment, "read_record", lambda _: None)
    monkeypatch.setattr(shown, "figures", lambda _: {})
    for name, track in (("one", ()), ("two", ("mlflow",))):
        experiment.run(settings(tmp_path, name, track=track))
    assert seen[0] == seen[1] and ("begin", None) in tracker.calls


def test_only_the_chief_tells(tracker, tmp_path, monkeypatch):
    team = Team(None)
    team.is_chief = False
    monkeypatch.setattr(experiment.devices, "team", lambda _: team)
    monkeypatch.setattr(experiment, "_assist", lambda *_: None)
    experiment.run(settings(tmp_path, "run", track=("mlflow",), attacks=()))
    assert tracker.calls == [] and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_a_directory_is_made(name, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find(module))
    expected = rf"Expected what --track={name} needs: pip install 'divtf\[{name}\]'. Received: no {name} in"
    with pytest.raises(InputError, match=expected):
        experiment.run(settings(tmp_path, "run", track=(name,)))
    assert not (tmp_path / "run").exists()
