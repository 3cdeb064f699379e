"""Whole runs, on a data set and a model so small that each takes seconds; one on real images."""

import contextlib
import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tiny
from logged import logged

from divtf.commands import command_line, main, table2
from divtf.data.datasets import DATASETS
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving.export import export_model
from divtf.errors import InputError
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.pipeline import budget, experiment, exports, finished, shared_ensembles, shared_paths
from divtf.pipeline.modes import MODES
from divtf.pipeline.parts import DataPart, OutputPart
from divtf.reporting.plain_text import table_text
from divtf.storage import checked_json, digests, run_directory
from divtf.storage.records import CLEAN, WORST_CASE

ATTACKS, EPSILONS = ("fgsm", "rfgsm"), (0.1, 0.3)
BUDGET = {"epochs": 1, "attacks": ATTACKS, "epsilons": EPSILONS, "batch_size": 24}


pytestmark = pytest.mark.usefixtures("tiny_world")


class Work:
    """Counts what is costly: trainings and adversarial sets."""

    def __init__(self, patch):
        self.trained, self.attacked = 0, []
        fit, make = Ensemble.fit, AdversarialSets._make

        def counted_fit(ensemble, *args, **kwargs):
            self.trained += 1
            return fit(ensemble, *args, **kwargs)

        def counted_make(sets, attack, x, y, numbers, seed):
            self.attacked.append((attack.name, attack.threat.epsilon, len(numbers)))
            return make(sets, attack, x, y, numbers, seed)

        patch.setattr(Ensemble, "fit", counted_fit)
        patch.setattr(AdversarialSets, "_make", counted_make)

    def take(self):
        done, self.trained, self.attacked = (self.trained, self.attacked), 0, []
        return done


@pytest.fixture
def work(monkeypatch):
    return Work(monkeypatch)


def settings(root, mode, **values):
    return tiny.config(mode=mode, run_dir=str(root / mode), **BUDGET | values)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One finished run of every mode below one root, and the work that each took."""
    root, took, lines = tmp_path_factory.mktemp("runs"), {}, {}
    with pytest.MonkeyPatch.context() as patch:
        work = Work(patch)
        for mode in MODES:
            with logged() as lines[mode]:
                assert experiment.run(settings(root, mode)) == root / mode
            took[mode] = work.take()
    return {"root": root, "took": took, "lines": lines}


def shared(root):
    return sorted(path for path in (root / shared_paths.SHARED).iterdir())


def test_surrogate_and_static_model_are_trained_once_for_all_targets(runs):
    trained = {mode: count for mode, (count, _) in runs["took"].items()}
    # base: itself and the surrogate; ens: itself and the static model.
    assert trained == {"base": 2, "div": 1, "ens": 2, "ens_div": 1, "noise": 1, "detect": 1}
    assert len(shared(runs["root"])) == 2


def test_adversarial_sets_are_made_once_for_all_targets(runs):
    of_surrogate = [(attack, epsilon, 24) for epsilon in EPSILONS for attack in ATTACKS]
    attacked = {mode: sets for mode, (_, sets) in runs["took"].items()}
    # The sign of the gradient at every training image; then test images, to look for label leaking.
    of_static = [("fgsm", 1.0, 72), *(("fgsm", epsilon, 24) for epsilon in EPSILONS)]
    assert attacked == {mode: [] for mode in MODES} | {"base": of_surrogate, "ens": of_static}


@pytest.mark.parametrize("export", [None, ""])
def test_run_that_another_process_finishes_meanwhile_is_not_measured_again(
    runs, export, tmp_path, monkeypatch, work
):
    """A repeated task of a cluster waits for the first one, which may still be at work."""
    config = settings(tmp_path, "div", resume=True, export=export)
    open_run = run_directory.open_run

    @contextlib.contextmanager
    def waited(path, *args, **kwargs):
        shutil.copytree(runs["root"] / "div", path)
        if export is not None:
            other = experiment.run(settings(tmp_path, "div", resume=True, export=export))
            assert (other / "saved_model").is_dir()
        with open_run(path, *args, **kwargs) as opened:
            yield opened

    def once(path, *args, **kwargs):
        monkeypatch.setattr(run_directory, "open_run", open_run)
        return waited(path, *args, **kwargs)

    monkeypatch.setattr(run_directory, "open_run", once)
    monkeypatch.setattr(experiment, "make_record", None)
    directory = experiment.run(config)
    before = (runs["root"] / "div" / run_directory.RESULTS).read_bytes()
    assert (directory / run_directory.RESULTS).read_bytes() == before
    assert work.take() == (0, [])


def test_static_model_is_never_the_surrogate(runs):
    surrogate, static = shared(runs["root"])
    assert surrogate.name.startswith("stripes-tiny-seed1000-")
    assert static.name.startswith("stripes-tiny-seed2000-")
    sets = [sorted(path.stem for path in home.glob("adversarial/*.npy")) for home in (surrogate, static)]
    assert [len(names) for names in sets] == [4, 3]
    for mode in MODES:
        record = finished.read_record(runs["root"] / mode)
        assert {result.surrogate for result in record.results} == {"", surrogate.name}


@pytest.mark.parametrize("mode", MODES)
def test_record_has_every_accuracy_and_where_it_came_from(runs, mode):
    record = finished.read_record(runs["root"] / mode)
    assert (record.target, record.model, record.dataset) == (MODES[mode].target, "tiny", "stripes")
    cells = [(result.attack, result.epsilon) for result in record.results]
    assert cells[0] == (CLEAN, 0.0)
    expected = {(attack, epsilon) for attack in (*ATTACKS, WORST_CASE) for epsilon in EPSILONS}
    assert set(cells[1:]) == expected
    assert len(cells) == 1 + len(expected)
    assert all(result.total == 24 for result in record.results)
    for epsilon in EPSILONS:
        worst = record.result(WORST_CASE, epsilon).correct
        assert worst <= min(record.result(attack, epsilon).correct for attack in ATTACKS)
    assert len(record.coherence) == 24
    assert np.shape(record.pair_cosines) == (2, 2)
    assert record.budget["reduced"] is True
    assert (record.budget["members"], record.budget["epochs"], record.budget["training images"]) == (2, 1, 72)
    assert {"command", "commit", "tensorflow", "hours", "weights"} <= set(record.provenance)


def test_all_targets_face_the_same_images(runs):
    def digests(mode):
        record = finished.read_record(runs["root"] / mode)
        return [r.adversarial_set for r in record.results if r.attack in ATTACKS]

    assert all(digests(mode) == digests("base") for mode in MODES)
    assert len(set(digests("base"))) == 4


def test_surrogate_is_told_whole_with_one_number_in_record_manifest_and_caption(runs):
    from divtf.pipeline import trained

    config = settings(runs["root"], "div")
    surrogate, static = shared(runs["root"])
    data = experiment.load_data(config.part(DataPart))
    ensemble = trained.restore(config.base(config.surrogate_seed), data.spec, surrogate)
    accuracy = (ensemble.predict(data.test_set()[0], verbose=0).argmax(-1) == data.y_test).mean()
    expected = {
        **{"mode": "base", "model": "tiny", "dataset": "stripes", "members": 2, "objective": "CrossEntropy"},
        **{"seed": 1000, "epochs": 1, "batch size": 24, "learning rate": 0.01, "training images": 72},
        "clean accuracy": accuracy,
    }
    record = finished.read_record(runs["root"] / "div")
    told = [result.surrogate_settings for result in record.results if result.attack != CLEAN]
    manifests = map(checked_json.read_checked, surrogate.glob("adversarial/*.json"))
    told += [manifest["surrogate_settings"] for manifest in manifests]
    assert len(told) == 6 + 4 and all(each == expected for each in told)
    line = f"Surrogate {surrogate.name}: members 2, objective CrossEntropy, mode base, model tiny"
    report = (runs["root"] / "div" / "report.md").read_text()
    assert f"- {line}" in report and f"clean accuracy {100 * accuracy:.1f} % on the attacked" in report
    (manifest,) = map(checked_json.read_checked, static.glob("adversarial/fgsm-1-*.json"))
    of_static = manifest["surrogate_settings"]
    assert of_static | {"clean accuracy": accuracy} == expected | {"seed": 2000}


def test_outcomes_of_targets_are_on_the_same_images_and_are_paired(runs):
    base, div = (finished.read_record(runs["root"] / mode) for mode in ("base", "div"))
    assert all(sum(result.outcomes) == result.correct for result in (*base.results, *div.results))
    mine, other = (np.array(record.result(WORST_CASE, 0.3).outcomes) for record in (div, base))
    counts = f"right where T_Base is wrong {(mine & ~other).sum()} image"
    text = " ".join(table_text([base, div]).split())
    assert counts in text and f"the other way {(other & ~mine).sum()}, exact McNemar p" in text


def test_images_stored_as_jpeg_are_another_run_of_the_same_surrogate(runs, tmp_path, work):
    root = shutil.copytree(runs["root"], tmp_path / "runs")
    config = settings(root, "div", stored_as="jpeg", attacks=("fgsm",))
    directory = experiment.run(dataclasses.replace(config, run_dir=str(root / "jpeg")))
    assert work.take() == (1, []) and len(shared(root)) == 2
    plain, stored = finished.read_record(root / "div"), finished.read_record(directory)
    assert [result.stored_as for result in stored.results] == ["float32", *["jpeg"] * 4]
    assert stored.result("fgsm", 0.3).adversarial_set == plain.result("fgsm", 0.3).adversarial_set
    assert "targets see adversarial images stored as jpeg" in (directory / "report.md").read_text()


def test_targets_differ(runs):
    weights = {finished.read_record(runs["root"] / mode).provenance["weights"] for mode in MODES}
    assert len(weights) == len(MODES)


def test_recorded_accuracy_is_that_of_the_kept_images_and_checkpoint(runs):
    """By hand: the stored images through the stored ensemble."""
    from divtf.pipeline import trained

    root, config = runs["root"], settings(runs["root"], "div")
    data = experiment.load_data(config.part(DataPart))
    target = trained.restore(config, data.spec, root / "div")
    record = finished.read_record(root / "div")
    for result in record.results:
        if result.attack in ATTACKS:
            (path,) = (root / shared_paths.SHARED).glob(
                f"*-seed1000-*/adversarial/{result.attack}-{result.epsilon:g}-*.npy"
            )
            assert digests.file_digest(path) == result.adversarial_set
            hits = target.predict(np.load(path), verbose=0).argmax(-1) == data.y_test
            assert int(hits.sum()) == result.correct


@pytest.mark.parametrize("mode", ["base", "ens_div"])
def test_report_lies_in_the_run_directory(runs, mode):
    directory = runs["root"] / mode
    names = {path.name for path in directory.iterdir()}
    assert {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "results.json",
        "report.md",
        "report.html",
    } <= names
    assert MODES[mode].target in (directory / "report.md").read_text()
    for picture in ("accuracy.png", "coherence.png"):
        assert (directory / picture).read_bytes().startswith(b"\x89PNG")
    (table,) = directory.glob("*.csv")
    with table.open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 7
    assert not [name for name in names if name.startswith(".partial")]


def test_log_shows_clean_images_beside_adversarial_ones_of_the_largest_epsilon(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(
        str(runs["root"] / "base" / run_directory.TENSORBOARD), size_guidance={"tensors": 0}
    )
    log.Reload()
    names = {f"clean and {attack}, epsilon 0.3" for attack in ATTACKS}
    assert names <= set(log.Tags()["tensors"])
    assert not [name for name in log.Tags()["tensors"] if "epsilon 0.1" in name]
    for name in names:
        # A string tensor: width, height, then the pictures as PNG.
        width, height, *pictures = tf.make_ndarray(log.Tensors(name)[0].tensor_proto)
        assert (int(width), int(height), len(pictures)) == (16, 8, 8)
        pair = tf.io.decode_png(pictures[0]).numpy() / 255
        change = np.abs(pair[:, 8:] - pair[:, :8])
        np.testing.assert_allclose(pair[:, :8, 0] * 255, tiny.data().x_test[0, ..., 0], atol=1)
        assert 0.1 < change.max() <= 0.3 + 2 / 255


def hparams_of(root):
    """What TensorBoard's HParams shows of the logs below a directory: settings and figures by run."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    logs = EventMultiplexer().AddRunsFromDirectory(str(root)).Reload()
    board = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(logs, str(root))))
    request, metadata = RequestContext(), board.hparams_metadata(RequestContext(), "")
    found = board.experiment_from_metadata(request, "", True, metadata, None)
    query = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=99)
    query.allowed_statuses.extend(api_pb2.Status.values())
    for metric in found.metric_infos:
        query.col_params.add(metric=metric.name)
    groups = list_session_groups.Handler(request, board, "", query).run().session_groups
    return {
        group.name.split(" ")[0]: (
            {name: value.number_value or value.string_value for name, value in group.hparams.items()},
            {each.name.tag: each.value for each in group.metric_values},
        )
        for group in groups
    }


def test_runs_compare_by_their_final_accuracies_in_tensorboard(runs):
    shown = hparams_of(runs["root"])
    assert set(shown) == set(MODES)
    for mode, (settings_of_run, figures) in shown.items():
        record = finished.read_record(runs["root"] / mode)
        assert (settings_of_run["mode"], settings_of_run["target"]) == (mode, MODES[mode].target)
        assert (settings_of_run["epochs"], settings_of_run["attacks"]) == (1, "fgsm,rfgsm")
        accuracies = {
            "final/" + result.attack + (f" at {result.epsilon:g}" if result.epsilon else ""): result
            for result in record.results
        }
        assert len(accuracies) == 7
        expected = {name: result.correct / result.total for name, result in accuracies.items()}
        expected |= {"final/coherence": np.mean(record.coherence), "final/gal": record.gradients["gal"]}
        assert figures == pytest.approx(expected, rel=1e-6)


def test_finished_run_is_not_done_again(runs, work, monkeypatch):
    config = settings(runs["root"], "div", resume=True)
    before = (runs["root"] / "div" / run_directory.RESULTS).read_bytes()
    monkeypatch.setitem(DATASETS, "stripes", dataclasses.replace(DATASETS["stripes"], load=None))
    with logged() as lines:
        experiment.run(config)
    assert work.take() == (0, [])
    assert len(lines) == 1 and lines[0].startswith("finished before, at ")
    assert (runs["root"] / "div" / run_directory.RESULTS).read_bytes() == before


def test_same_run_without_resume_is_refused(runs):
    with pytest.raises(InputError, match="Expected --resume"):
        experiment.run(settings(runs["root"], "div"))


def test_another_run_in_its_place_is_refused(runs):
    config = settings(runs["root"], "div", gal_weight=0.25, resume=True)
    with pytest.raises(InputError, match=r"gal_weight=0.5 there, 0.25 here"):
        experiment.run(config)


def test_results_lost_are_measured_again_without_training(runs, work):
    directory = runs["root"] / "noise"
    before = json.loads((directory / run_directory.RESULTS).read_text())
    (directory / run_directory.RESULTS).unlink()
    experiment.run(settings(runs["root"], "noise", resume=True))
    assert work.take() == (0, [])
    clock = ("provenance", "checksum")  # The date of the measurement is in one, and of it the other.
    after = json.loads((directory / run_directory.RESULTS).read_text())
    assert {k: v for k, v in after.items() if k not in clock} == {
        k: v for k, v in before.items() if k not in clock
    }
    assert after["provenance"]["weights"] == before["provenance"]["weights"]


@pytest.mark.parametrize("content", ["{}", "[]", '{"schema": 99}', '{"schema": 1}', "{"])
def test_results_of_something_else_are_refused_by_path(tmp_path, content):
    (tmp_path / run_directory.RESULTS).write_text(content)
    with pytest.raises(InputError, match=r"Expected .*results\.json\. Received: "):
        finished.read_record(tmp_path)


def test_finished_run_is_exported_when_asked_for_later(runs, work, tmp_path):
    config = settings(runs["root"], "div", resume=True, export="")
    experiment.run(config)
    path = runs["root"] / "div" / "saved_model"
    x, _ = tiny.data().test_set()
    served = tf.saved_model.load(str(path))
    probabilities = served.serve(tf.constant(x))["probabilities"].numpy()
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
    record = finished.read_record(runs["root"] / "div")
    assert (probabilities.argmax(-1) == tiny.data().y_test).sum() == record.result(CLEAN, 0).correct
    assert str(path) in experiment.summary(config.part(OutputPart))
    before = path.stat().st_mtime_ns
    experiment.run(config)
    assert path.stat().st_mtime_ns == before, "exported once"

    elsewhere = dataclasses.replace(config, export=str(tmp_path / "models" / "div"))
    for _ in range(2):  # The second time it is known for this run's own.
        experiment.run(elsewhere)
    assert (tmp_path / "models" / "div" / "saved_model.pb").exists()
    assert work.take() == (0, [])


def test_formats_that_are_not_there_yet_are_exported(runs, work, monkeypatch):
    made = []

    def export(ensemble, path, *given, **options):
        made.append(path.name)
        return export_model(ensemble, path, *given, **options)

    monkeypatch.setattr(exports, "export_model", export)
    config = settings(runs["root"], "div", resume=True, export="", export_format=("onnx",))
    experiment.run(config)
    several = dataclasses.replace(config, export_format=("onnx", "litert_int8", "saved_model_uint8"))
    for _ in range(2):
        experiment.run(several)
    assert made == ["model.onnx", "model_int8.tflite", "saved_model_uint8"]
    directory, (x, _) = runs["root"] / "div", tiny.data().test_set()
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    (served,) = session.run(["probabilities"], {"images": x})
    record = finished.read_record(directory)
    assert (served.argmax(-1) == tiny.data().y_test).sum() == record.result(CLEAN, 0).correct
    of_bytes = tf.saved_model.load(str(directory / "saved_model_uint8")).signatures["serving_default"]
    bytes_served = of_bytes(images=tf.constant(tiny.data().x_test))["probabilities"].numpy()
    np.testing.assert_allclose(bytes_served, served, atol=1e-5)
    lines = experiment.summary(several.part(OutputPart)).splitlines()
    assert [line.split()[-1] for line in lines[-3:]] == [
        str(directory / name) for name in ("model.onnx", "model_int8.tflite", "saved_model_uint8")
    ]
    assert work.take() == (0, [])


@pytest.mark.parametrize("taken", ["file", "directory", "saved_model"])
def test_export_to_a_taken_place_is_refused_before_training(tmp_path, work, taken):
    place = tmp_path / "place"
    if taken == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / ("saved_model.pb" if taken == "saved_model" else "mine")).write_text("mine")
    with pytest.raises(InputError, match=r"Expected a new path for the SavedModel\. Received: .*place"):
        experiment.run(settings(tmp_path, "base", export=str(place)))
    assert work.take() == (0, [])
    assert not (tmp_path / "base").exists(), "nothing is left that would ask for --resume"


def test_data_that_cannot_be_had_leaves_no_run_directory(tmp_path, monkeypatch):
    def load():
        raise InputError("Expected stripes in /nowhere. Received: nothing")

    monkeypatch.setitem(DATASETS, "stripes", dataclasses.replace(DATASETS["stripes"], load=load))
    with pytest.raises(InputError, match="Expected stripes in /nowhere"):
        experiment.run(settings(tmp_path, "base"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"static_models": ("plain", "own_models:nope")}, "Expected --model=own_models:nope to be there"),
        ({"static_models": ("plain3", "div"), "num_members": 1}, "at least 2"),
        (
            {"static_models": ("plain3",), "seed": 2103},
            r"static model plain3 \(of seed=2103, surrogate_seed=1000, static_seed=2000\)",
        ),
    ],
    ids=["not there", "of one member", "seed"],
)
def test_static_model_that_cannot_be_trained_leaves_no_run_directory(tmp_path, work, values, message):
    config = settings(tmp_path, "ens", **values)
    for attempt in (lambda: experiment.run(config), lambda: experiment.require_possible([config])):
        with pytest.raises(InputError, match=message) as raised:
            attempt()
        assert "\n" not in str(raised.value)
    assert work.take() == (0, []) and not list(tmp_path.iterdir())


def test_without_attacks_no_surrogate_is_trained(tmp_path, work):
    directory = experiment.run(settings(tmp_path, "base", attacks=()))
    assert work.take() == (1, [])
    assert not (tmp_path / shared_paths.SHARED).exists()
    (clean,) = finished.read_record(directory).results
    assert (clean.attack, clean.total) == (CLEAN, 24)


def test_run_in_the_current_directory_shares_its_surrogate_beside_it(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = tiny.config(mode="base", run_dir=".", **BUDGET | {"attacks": ("fgsm",), "epsilons": (0.1,)})
    data = experiment.load_data(config.part(DataPart))
    _, directory = shared_ensembles.ensemble(config.base(1000), data)
    assert directory.parent == tmp_path / shared_paths.SHARED


@pytest.mark.parametrize(
    ("values", "reduced"),
    [
        ({}, False),
        ({"num_members": 6, "epochs": 12}, False),
        ({"num_members": 4}, True),
        ({"epochs": 9}, True),
        ({"max_train_examples": 100}, True),
        ({"max_test_examples": 100}, True),
        ({"max_attack_examples": 100}, True),
        ({"dataset": "mnist5k"}, True),
        ({"attacks": ("fgsm",)}, True),
        ({"epsilons": (0.1,)}, True),
        ({"epsilons": (0.1, 0.2, 0.3)}, False),
    ],
)
def test_budget_says_whether_it_is_less_than_the_papers(values, reduced):
    config = dataclasses.replace(tiny.RunConfig(model="conv3"), **values)
    assert budget.budget(config, tiny.data())["reduced"] is reduced


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, {}),
        ({"batch_size": 128}, {}),
        ({"mode": "base", "gal_weight": 0.1}, {}),
        (
            {"batch_size": 64, "gal_weight": 0.1, "schedule": "cosine"},
            {"batch size": 64, "gal weight": 0.1, "schedule": "cosine"},
        ),
        (
            {"learning_rate": 0.1, "weight_decay": 0.2, "negative_slope": 0.3},
            {"learning rate": 0.1, "weight decay": 0.2, "negative slope": 0.3},
        ),
    ],
)
def test_budget_names_what_training_goes_by_where_it_is_not_the_default(values, named):
    found = budget.budget(tiny.RunConfig(model="conv3", **values), tiny.data())
    usual = budget.budget(tiny.RunConfig(model="conv3", batch_size=128), tiny.data())
    others = {name: value for name, value in found.items() if name not in usual}
    assert others == named


def test_table_of_finished_runs_is_printed_without_work(runs, work, capsys):
    root = runs["root"]
    parts = [settings(root, mode, resume=True) for mode in ("base", "div")]
    table2.main(parts)
    printed = capsys.readouterr().out
    assert work.take() == (0, []), "the runs before have done it all"
    assert "== 1/2: tiny, T_Base, seed 0" in printed
    table = printed[printed.index("tiny on stripes") :]
    assert re.search(r"^T_Base .*\d", table, re.M)
    assert re.search(r"^T_Div .*\d", table, re.M)
    for word in ("clean", "fgsm", "rfgsm", "24 clean", "members 2", str(root / "report.md")):
        assert word in table
    for mode in ("base", "div"):
        assert f"{root / mode}/report.md" in table


def test_command_prints_table_and_places_of_a_finished_run(runs, capsys):
    main.main(settings(runs["root"], "ens", resume=True))
    printed = capsys.readouterr().out
    assert "T_Ens" in printed
    assert f"tensorboard    {runs['root'] / 'ens' / 'tensorboard'}" in printed


def test_users_error_within_a_run_is_one_line(runs, capsys):
    config = settings(runs["root"], "ens")
    assert command_line.execute(main.main, lambda flag_values: config, ["command"]) == 2
    assert re.fullmatch(r"error: Expected --resume .* Received: .*\n", capsys.readouterr().err)


@pytest.mark.slow
def test_command_runs_on_real_images_from_flags_to_saved_model(tmp_path):
    """The smallest real budget, in a process of its own, deterministic; and what it says when told again."""
    command = [
        *(sys.executable, "-m", "divtf.main", "--dataset=mnist5k", "--num_members=2", "--epochs=1"),
        *("--max_train_examples=60", "--max_test_examples=20", "--batch_size=30", "--attacks=fgsm"),
        *("--deterministic", "--export", f"--run_dir={tmp_path / 'run'}"),
    ]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^T_Div .*\d", done.stdout, re.M)
    assert (tmp_path / "run" / "saved_model" / "saved_model.pb").exists()
    again = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert again.returncode == 2
    errors = [line for line in again.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "--resume" in errors[0]


def test_members_that_an_objective_cannot_train_are_refused_without_a_directory(tmp_path):
    config = tiny.config(objective="adp", mode="base", num_members=3, run_dir=str(tmp_path / "runs" / "adp"))
    with pytest.raises(InputError, match=r"fewer members than classes \(3\) for ADP"):
        experiment.run(config)
    assert not (tmp_path / "runs").exists()
