"""The published pages and files are those of the records beside them, and the command that makes them."""

import dataclasses
import io
import json
import sys
import threading
from pathlib import Path

import evaluation_records
import matplotlib.image
import numpy as np
import pytest
from absl import flags

from divtf.commands import publish, publish_pages
from divtf.errors import InputError
from divtf.pipeline import finished
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.reporting import published
from divtf.reporting.page import writing
from divtf.storage import checked_json, run_directory
from divtf.storage.evaluations import ComparisonRecord
from divtf.storage.locks import lock
from divtf.storage.records import (
    CLEAN,
    WORST_CASE,
    GaasRecord,
    TargetRecord,
    TransferMatrixRecord,
    TransferResult,
)

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name for path in (ROOT / publish_pages.RESULTS).glob("*/"))


def load(name):
    return publish_pages.load_all()[name]


@pytest.fixture
def checkout(monkeypatch):
    """The command works where it is called."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", NAMES)
def test_files_and_pages_are_what_the_records_give(checkout, name):
    """To the byte; only pictures may have edges shaded a little otherwise, by another machine's rounding."""
    for path, content in publish_pages.render(name, publish_pages.load_all()).items():
        kept, made = path.read_bytes(), content.encode() if isinstance(content, str) else content
        assert kept == made or (path.suffix == ".png" and changed_pixels(kept, made) < 10), path


def test_the_index_has_every_name(checkout):
    index = Path("runs/results/README.md").read_text()
    assert len(NAMES) >= 7
    assert all(f"]({name}/README.md)**" in index for name in NAMES)


def changed_pixels(first: bytes, second: bytes) -> int:
    """Pixels that two PNG pictures have by more than half the range apart; a digit has dozens."""
    a, b = (matplotlib.image.imread(io.BytesIO(content), format="png") for content in (first, second))
    return int((np.abs(a - b).max(axis=-1) > 0.5).sum()) if a.shape == b.shape else a.size


def test_a_changed_digit_is_seen_in_a_picture(checkout):
    records = load("demo")["table"]
    picture = published.OUTPUTS["table.png"]
    first, *others = records[0].results
    changed = dataclasses.replace(first, correct=first.correct - 1)
    spoilt = [dataclasses.replace(records[0], results=(changed, *others)), *records[1:]]
    kept = published.content(picture, records)
    assert changed_pixels(kept, kept) == 0
    assert changed_pixels(kept, published.content(picture, spoilt)) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_lies_among_the_published_files(checkout, name):
    known = {publish_pages.PAGE, *published.OUTPUTS, *(kind.file for kind in published.KINDS.values())}
    # Pages of `divtf.report` may lie there; they are no part of the repository.
    found = {path.name for path in (publish_pages.RESULTS / name).iterdir()} - {writing.PAGE}
    assert {publish_pages.PAGE, "table.json"} <= found <= known


# The command, in a repository of its own.


def finished_run(root, mode, *, analysed=False, matrix=False, evaluated=False, **values):
    """The files of a finished run, without the run."""
    config = RunConfig(model="conv3", mode=mode, **values)
    directory = root / config.name
    directory.mkdir(parents=True)
    results = [TransferResult(config.target, "", CLEAN, 0.0, 9, 10)]
    results += [TransferResult(config.target, "S", "fgsm", epsilon, 5, 10) for epsilon in (0.1, 0.3)]
    of = {"model": "conv3", "dataset": "mnist", "seed": config.seed}
    of["provenance"] = {"command": f"train {mode}", "commit": "0123abc", "hours": 1.5, "platform": "secret"}
    of["budget"] = {"members": 3, "reduced": True}
    record = TargetRecord(
        target=config.target,
        results=tuple(results),
        coherence=(0.1, 0.5),
        pair_cosines=((1.0, 0.5), (0.5, 1.0)),
        gradients={"gal": 0.5, "zero_entries": 0.25, "zero_products": 0.5},
        **of,
    )
    epochs = [{"epoch": 1, "gal": 1.25}, {"epoch": 2, "gal": 1.0}] if MODES[mode].gal else [{"epoch": 1}]
    checked_json.write_json(directory / run_directory.CONFIG, config.identity())
    checked_json.write_json(directory / run_directory.RESULTS, record.to_json())
    (directory / run_directory.METRICS).write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    if analysed:
        curve = {"epsilon": 0.3, "order": 4, "images": 9, "mean_successes": 2.125}
        curve["probability"] = [1.0, 0.5, 0.5, 0.125]
        analysis = {"command": "figure5 of it", "commit": "fedc321", "platform": "secret"}
        made = GaasRecord(target=config.target, images=10, curves=(curve,), analysis=analysis, **of)
        checked_json.write_json(directory / run_directory.GAAS, made.to_json())
    if matrix:
        cells = tuple(
            TransferResult(config.target, "T_Base", attack, epsilon, 4, 10)
            for attack in ("fgsm", WORST_CASE)
            for epsilon in (0.1, 0.3)
        )
        analysis = {"command": "transfer_matrix of it", "commit": "fedc321", "platform": "secret"}
        # No checkpoint, no digest.
        sources = {name: "" for name in ("T_Base", "T_Div", "surrogate")}
        column = TransferMatrixRecord(
            target=config.target, results=cells, sources=sources, analysis=analysis, **of
        )
        checked_json.write_json(directory / run_directory.TRANSFER_MATRIX, column.to_json())
    if evaluated:
        checked_json.write_json(directory / run_directory.evaluation("strong"), evaluation(config).to_json())


def evaluation(config):
    """One that fooled image 0 by transfer and image 1 by queries, with a curve of each picture."""
    at = [{"false_alarms": 0.05, "tpr": 0.5, "missed": 1, "total": 2, "low": 0.1, "high": 0.9}]
    curve = {
        "attack": "pgd",
        "score": "disagreement",
        "auc": 0.5,
        "at": at,
        "points": [[0.0, 0.0], [1.0, 1.0]],
    }
    square = {"attack": "square", "queries": 9, "gradients": 0, "queries_taken": (10, 4)}
    trials = [
        evaluation_records.trial("transfer", {0}, surrogate="plain"),
        evaluation_records.trial("query", {1}, tried=[0, 1], **square),
    ]
    detection = {
        "clean": {"images": 8, "right": 8},
        "attacks": {"pgd": {"images": 8, "fooled": 1}},
        "curves": [curve | {"images": images} for images in ("all", "fooled")],
    }
    return evaluation_records.record(
        config.target, trials, seed=config.seed, query_images=2, detection=detection
    )


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(name="mine"):
    return {path.name for path in (publish_pages.RESULTS / name).glob("*")}


def page_of(name="mine"):
    return (publish_pages.RESULTS / name / "README.md").read_text()


def everything():
    """Every file that publishing writes -> its bytes."""
    paths = [Path("README.md"), *publish_pages.RESULTS.rglob("*")]
    return {path: path.read_bytes() for path in paths if path.is_file()}


TABLE = {file for file, output in published.OUTPUTS.items() if output.kind == "table"}


def test_table_alone_is_published_with_its_records(repository):
    finished_run(repository / "runs/a", "base")
    finished_run(repository / "runs/a", "div")
    publish.main(Path("runs/a"), "mine")
    assert files_of() == TABLE | {"README.md", "table.json"}
    assert {"table.png", "table.csv", "accuracy.png", "coherence.png"} <= TABLE
    readme = page_of()
    assert readme.startswith("# mine\n\n<!-- mine -->\n"), "a page that is not there is made"
    assert "| T_Div, ours |" in readme and "Commit: 0123abc" in readme
    assert "- Command of T_Base: train base\n- Command of T_Div: train div\n" in readme
    assert "Hours of training, surrogate and static model left out: T_Base 1.5, T_Div 1.5" in readme
    assert "![coherence (Figure 4)](coherence.png)" in readme
    assert "[the table as CSV](table.csv)" in readme
    assert "gaas" not in readme and "sparsity" not in readme


def test_words_around_the_marks_stay_and_give_the_index_its_title(repository):
    finished_run(repository / "runs/a", "base")
    page = publish_pages.RESULTS / "mine" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Mine, at last\n\nBefore.\n\n<!-- mine -->\nold\n<!-- /mine -->\n\nAfter.\n")
    publish.main(Path("runs/a"), "mine")
    assert page.read_text().startswith("# Mine, at last\n\nBefore.\n\n<!-- mine -->\n\n### conv3 on mnist\n")
    assert page.read_text().endswith("(table.json).\n\n<!-- /mine -->\n\nAfter.\n")
    assert "**[Mine, at last](mine/README.md)**<br>conv3 on mnist, REDUCED budget" in index()


def index():
    return (publish_pages.RESULTS / "README.md").read_text()


def test_index_has_every_name_once(repository):
    finished_run(repository / "runs/a", "base")
    for name in ("other", "mine"):
        publish.main(Path("runs/a"), name)
    assert index().startswith("# Results\n\n<!-- results -->\n")
    lines = [line for line in index().splitlines() if line.startswith("| **")]
    assert [line.split("]")[0] for line in lines] == ["| **[mine", "| **[other"]
    assert "T_Base 50.0 / 50.0<br>Records: [table](mine/table.json)" in lines[0]
    assert (
        '[<img src="mine/accuracy.png" width="320" alt="accuracy against epsilon">](mine/README.md)'
        in lines[0]
    )


def test_demo_stands_in_the_main_page_too(repository):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode)
    before = "# Title\n\n<!-- demo -->\n<!-- /demo -->\n"
    Path("README.md").write_text(before)
    publish.main(Path("runs/a"), "mine")
    assert Path("README.md").read_text() == before
    publish.main(Path("runs/a"), "demo")
    readme = Path("README.md").read_text()
    assert "```text\nconv3 on mnist: accuracy in percent at epsilon 0.1 / 0.3\n" in readme
    assert "\nT_Div over T_Base, points at epsilon 0.1 / 0.3:" in readme
    assert readme.count("![") == 1 and "![accuracy against epsilon](runs/results/demo/accuracy.png)" in readme


def test_every_kind_that_the_runs_have_is_published(repository):
    finished_run(repository / "runs/a", "base", analysed=True)
    finished_run(repository / "runs/a", "div", analysed=True, evaluated=True)
    finished_run(repository / "runs/a", "div", activation="relu")
    publish.main(Path("runs/a"), "mine")
    assert files_of() == {file for file in published.OUTPUTS if file != "transfer.png"} - COMPARISON | {
        *("README.md", "table.json", "evaluation.json", "gaas.json", "sparsity.json"),
    }
    assert "under everything that protocol strong tries, on " in index()
    readme = page_of()
    for line in (
        "- Command of the analysis: figure5 of it\n- Commit of the analysis: fedc321\n",
        "- k in {4}: the paper's 25 is the order of no Hadamard matrix",
        "- Images: the first 10 test images, of which 9 count; seed: 0",
        "- Successful directions of 4, on average, at epsilon 0.3: T_Base 2.1, T_Div 2.1",
        "- T_Div (ReLU), seed 0: 25.00 % and 50.00 %; GAL 1.250 in epoch 1, 1.000 in epoch 2",
        "![orthogonal adversarial directions (Figure 5)](gaas.png)",
        "![ReLU against LeakyReLU (section 3.4)](sparsity.png)",
        "### conv3 on mnist, protocol strong: what is left\n",
        "![accuracy against queries](queries.png)",
        "![images that fool a target, flagged against false alarms](roc.png)",
        "- Command of the analysis: evaluate it\n- Commit of the analysis: 0123abc\n",
        "[records: sparsity](sparsity.json)",
    ):
        assert line in readme
    loaded = load("mine")
    counts = {"table": 3, "evaluation": 1, "gaas": 2, "sparsity": 2}
    assert {kind: len(records) for kind, records in loaded.items()} == counts
    assert "secret" not in "".join(path.read_text() for path in publish_pages.RESULTS.rglob("*.json"))


def compare_runs(root, *, weights=None):
    """A comparison of the two runs below `root`, as the command leaves it."""
    runs = [finished.read_record(path) for path in finished.directories(root)]
    configs = [finished.read_config(path) for path in finished.directories(root)]
    records = [
        ComparisonRecord.of(run, evaluation(config), "T_Base").to_json()
        for run, config in zip(runs, configs, strict=True)
    ]
    for record in records:
        record["provenance"] = record["provenance"] | ({"weights": weights} if weights else {})
    checked_json.write_json(root / "comparison.json", records)


COMPARISON = {"comparison.json", "comparison.png", "comparison.md", "comparison.csv"}


def test_comparison_is_published_as_markdown_csv_and_json(repository):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode, evaluated=True)
    compare_runs(Path("runs/a"))
    publish.main(Path("runs/a"), "mine")
    # It has the figures of its evaluations, which are not kept twice.
    assert files_of() == TABLE | COMPARISON | {"README.md", "table.json"}
    readme, directory = page_of(), publish_pages.RESULTS / "mine"
    alone = (directory / "comparison.md").read_text()
    assert alone.startswith("### conv3 on mnist: what is left of each\n") and alone.strip() in readme
    assert "under everything that protocol strong tries, on " in index()
    assert "against T_Base" in alone and "| T_Div | 0.1 | 100.0 [67.6-100.0] |" in alone
    assert (directory / "comparison.csv").read_text().startswith("model,dataset,target,marks,epsilon,column")
    for link in ("[the comparison as CSV](comparison.csv)", "[records: comparison](comparison.json)"):
        assert link in readme
    assert "secret" not in (directory / "comparison.json").read_text()
    before = everything()
    publish.redraw()
    assert everything() == before
    Path("runs/a/comparison.json").unlink()
    publish.main(Path("runs/a"), "mine")
    assert not COMPARISON & files_of() and "evaluation.json" in files_of()


def test_evaluation_of_other_weights_is_refused(repository):
    finished_run(repository / "runs/a", "div", evaluated=True)
    (directory,) = finished.directories(Path("runs/a"))
    found = directory / run_directory.evaluation("strong")
    record = checked_json.read_checked(found)
    record["provenance"] = record["provenance"] | {"weights": "others"}
    checked_json.write_json(found, record)
    with pytest.raises(InputError, match=r"weights in .*evaluation-strong\.json\. Received: one of others"):
        publish.main(Path("runs/a"), "mine")


def test_comparison_of_other_weights_or_of_no_comparison_is_refused(repository):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode)
    compare_runs(Path("runs/a"), weights="others")
    with pytest.raises(InputError, match=r"Received: another T_Base, seed 0: give divtf.compare again"):
        publish.main(Path("runs/a"), "mine")
    Path("runs/a/comparison.json").write_text('[{"schema": 1}]')
    with pytest.raises(InputError, match=r"Expected a comparison, as divtf.compare writes it,"):
        publish.main(Path("runs/a"), "mine")
    assert not publish_pages.RESULTS.exists()


def test_evaluations_without_queries_or_detection_have_no_such_pictures(repository, monkeypatch):
    """Nor has one in which no image fooled."""
    whole = evaluation(RunConfig(model="conv3", mode="div"))
    all_seen = {**whole.detection, "curves": whole.detection["curves"][:1]}
    for detection in ({}, all_seen):
        spoilt = dataclasses.replace(whole, trials=whole.trials[:1], detection=detection)
        monkeypatch.setattr(sys.modules[__name__], "evaluation", lambda config, spoilt=spoilt: spoilt)
        finished_run(repository / f"runs/{len(detection)}", "div", evaluated=True)
        publish.main(Path(f"runs/{len(detection)}"), "mine")
        assert files_of() == TABLE | {"README.md", "table.json", "evaluation.json"}


def test_transfer_matrix_is_published_as_picture_records_and_lines(repository):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode, matrix=True)
    publish.main(Path("runs/a"), "mine")
    assert files_of() == TABLE | {"README.md", "table.json", "transfer.json", "transfer.png"}
    readme = page_of()
    for line in (
        "- Accuracy in percent at epsilon 0.1 / 0.3 on images that fgsm makes on each ensemble; on a",
        "- Images: the first 10 test images; seed: 0. Targets of one seed start from the same weights\n",
        "- On images of T_Base: T_Base 40.0 / 40.0 (its own), T_Div 40.0 / 40.0\n",
        "- Command of the analysis: transfer_matrix of it\n- Commit of the analysis: fedc321\n",
        "![accuracy on the images of each source](transfer.png)",
    ):
        assert line in readme
    assert "secret" not in (publish_pages.RESULTS / "mine/transfer.json").read_text()


def test_matrix_of_other_runs_than_those_published_is_refused(repository):
    finished_run(repository / "runs/a", "base", matrix=True)
    finished_run(repository / "runs/a", "div")
    with pytest.raises(InputError, match=r"all finished runs below .*give divtf.transfer_matrix again"):
        publish.main(Path("runs/a"), "mine")
    assert not publish_pages.RESULTS.exists()


def test_analysis_of_weights_that_are_gone_is_refused(repository):
    finished_run(repository / "runs/a", "base", analysed=True)
    path = repository / "runs/a/mnist-conv3-base-seed0" / run_directory.RESULTS
    record = json.loads(path.read_text())
    checked_json.write_json(path, record | {"provenance": record["provenance"] | {"weights": "others"}})
    with pytest.raises(InputError, match=r"weights in .*gaas\.json\. Received: one of others"):
        publish.main(Path("runs/a"), "mine")


def test_what_has_no_records_any_more_is_removed(repository):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode, analysed=True)
    finished_run(repository / "runs/b", "base")
    publish.main(Path("runs/a"), "other")
    publish.main(Path("runs/a"), "mine")
    publish.main(Path("runs/b"), "mine")
    assert files_of() == TABLE | {"README.md", "table.json"}
    assert {"gaas.png", "gaas.json"} <= files_of("other")


def test_redrawing_makes_all_from_the_records_alone(repository):
    finished_run(repository / "runs/a", "base", analysed=True)
    Path("README.md").write_text("# Title\n\n<!-- demo -->\n<!-- /demo -->\n")
    for name in ("mine", "demo"):
        publish.main(Path("runs/a"), name)
    before = everything()
    for path in publish_pages.RESULTS.glob("*/table.png"):
        path.unlink()
    (publish_pages.RESULTS / "mine/gaas.png").write_bytes(b"old")
    for path in before:
        if path.suffix == ".md":
            path.write_text(path.read_text().replace("accuracy", "beauty"))
    publish.redraw()
    assert everything() == before


def test_one_run_of_each_target_and_seed_is_published(repository):
    finished_run(repository / "runs/a", "div")
    finished_run(repository / "runs/a", "div", seed=1)
    assert len(publish_pages.collect(Path("runs/a"))["table"]) == 2
    finished_run(repository / "runs/a/again", "div", seed=1)
    (repository / "runs/a/again/mnist-conv3-div-seed1").rename(repository / "runs/a/twice")
    with pytest.raises(
        InputError, match=r"Expected one run of each .*Received: T_Div, conv3 on mnist, seed 1"
    ):
        publish_pages.collect(Path("runs/a"))


def test_seeds_and_targets_are_added_to_those_published(repository):
    """As if all had been below one directory; what is not asked for is replaced."""
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode, analysed=True, evaluated=True)
    finished_run(repository / "runs/b", "div", seed=1)
    finished_run(repository / "runs/b", "noise")
    publish.main(Path("runs/a"), "mine")
    publish.main(Path("runs/b"), "mine", added=True)
    rows = [(record.target, record.seed) for record in load("mine")["table"]]
    assert rows == [("T_Base", 0), ("T_Div", 0), ("T_Div", 1), ("T_Noise", 0)]
    assert "| T_Div, ours | 90.0<br><sub>±0.0 n=2</sub> |" in page_of()
    assert {"gaas.json", "evaluation.json"} <= files_of()
    publish.main(Path("runs/b"), "mine")
    assert len(load("mine")["table"]) == 2 and "gaas.json" not in files_of()


def of_other_weights(root, mode):
    (directory,) = [path for path in finished.directories(root) if f"-{mode}-" in path.name]
    record = checked_json.read_checked(directory / run_directory.RESULTS)
    record["provenance"] = record["provenance"] | {"weights": "others"}
    checked_json.write_json(directory / run_directory.RESULTS, record)


def test_what_was_published_of_a_run_that_was_trained_anew_is_left_out_and_told(repository, capsys):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode, analysed=True)
    publish.main(Path("runs/a"), "mine")
    finished_run(repository / "runs/b", "div")
    publish.main(Path("runs/b"), "mine", added=True)
    assert len(load("mine")["gaas"]) == 2 and not capsys.readouterr().out, "the same run again"
    of_other_weights(repository / "runs/b", "div")
    publish.main(Path("runs/b"), "mine", added=True)
    assert [record.target for record in load("mine")["table"]] == ["T_Base", "T_Div"]
    assert [record.target for record in load("mine")["gaas"]] == ["T_Base"]
    assert "left out: gaas of T_Div, conv3 on mnist, seed 0, of weights" in capsys.readouterr().out


def test_what_is_added_is_what_redrawing_gives(repository):
    """Kinds come in one order, whenever they came."""
    finished_run(repository / "runs/a", "div", analysed=True)
    finished_run(repository / "runs/b", "base", evaluated=True)
    for root in ("runs/a", "runs/b"):
        publish.main(Path(root), "mine", added=True)
    before = everything()
    publish.redraw()
    assert everything() == before


def test_two_that_add_at_once_lose_nothing(repository, monkeypatch):
    finished_run(repository / "runs/a", "base")
    finished_run(repository / "runs/b", "div")
    collect, waiting = publish_pages.collect, threading.Event()

    def slow(root):
        waiting.set()
        return collect(root)

    monkeypatch.setattr(publish_pages, "collect", slow)
    with lock(Path("runs/.publishing"), wait=False):
        other = threading.Thread(target=publish.main, args=(Path("runs/b"), "mine"), kwargs={"added": True})
        other.start()
        assert not waiting.wait(0.5), "it does not look at what is published before it is its turn"
        publish_pages.publish("mine", {"mine": publish_pages.collect(Path("runs/a"))})
    other.join()
    assert [record.target for record in load("mine")["table"]] == ["T_Base", "T_Div"]


def test_nothing_need_be_published_to_add_to(repository):
    finished_run(repository / "runs/a", "base")
    publish.main(Path("runs/a"), "mine", added=True)
    assert len(load("mine")["table"]) == 1


def test_seeds_that_were_not_trained_alike_are_not_added(repository):
    finished_run(repository / "runs/a", "div")
    publish.main(Path("runs/a"), "mine")
    before = everything()
    finished_run(repository / "runs/b", "div", seed=1)
    (directory,) = finished.directories(Path("runs/b"))
    record = checked_json.read_checked(directory / run_directory.RESULTS)
    checked_json.write_json(
        directory / run_directory.RESULTS, record | {"budget": {"members": 5, "reduced": True}}
    )
    expected = r"all seeds of T_Div, conv3 on mnist alike, .*: members 3\. Received: .*seed 1: members 5"
    with pytest.raises(InputError, match=expected):
        publish.main(Path("runs/b"), "mine", added=True)
    assert everything() == before


def test_no_runs_are_refused(repository):
    with pytest.raises(InputError, match=r"Expected finished runs below runs/none\. Received: none"):
        publish_pages.collect(Path("runs/none"))


@pytest.mark.parametrize("name", ["../mine", "a/b", ".", "", "a b"])
def test_names_that_are_none_are_refused(repository, name):
    finished_run(repository / "runs/a", "base")
    with pytest.raises(InputError, match="Expected --name of letters, digits"):
        publish.main(Path("runs/a"), name)
    assert not publish_pages.RESULTS.exists()


def test_runs_without_attacks_and_with_one_member_have_a_table_only(repository):
    finished_run(repository / "runs/a", "base")
    path = repository / "runs/a/mnist-conv3-base-seed0" / run_directory.RESULTS
    record = json.loads(path.read_text())
    bare = {"results": record["results"][:1], "coherence": [], "pair_cosines": []}
    checked_json.write_json(path, record | bare)
    publish.main(Path("runs/a"), "mine")
    assert files_of() == {"README.md", "table.json", "table.png", "table.csv"}
    assert "coherence.png" not in page_of()
    assert "on clean images: T_Base 90.0<br>Records" in index() and '<img src="mine/table.png"' in index()


def test_what_cannot_be_drawn_leaves_all_as_it_was(repository, monkeypatch):
    def fail(records, beside):
        raise OSError("no more")

    finished_run(repository / "runs/a", "base")
    publish.main(Path("runs/a"), "mine")
    before = everything()
    finished_run(repository / "runs/a", "div")
    broken = dataclasses.replace(published.OUTPUTS["table.csv"], make=fail)
    monkeypatch.setitem(published.OUTPUTS, "table.csv", broken)
    with pytest.raises(OSError, match="no more"):
        publish.main(Path("runs/a"), "mine")
    assert everything() == before


@pytest.mark.parametrize("flag", ["--run=runs/a", "--name=mine", "--add"])
def test_redrawing_is_of_every_name(repository, flag):
    told = flags.FlagValues()
    publish.define_flags(told)
    told(["publish", "--redraw", flag])
    with pytest.raises(InputError, match="Expected --redraw alone, which is of every name"):
        publish.as_told(told)


@pytest.mark.parametrize("content", ["{}", "null", '[{"schema": 2}]', "[{}]", "{"])
def test_published_records_of_another_version_get_one_line(repository, content):
    finished_run(repository / "runs/a", "base")
    publish.main(Path("runs/a"), "mine")
    (publish_pages.RESULTS / "mine/table.json").write_text(content)
    with pytest.raises(InputError, match=r"in runs/results/mine/table\.json\. Received"):
        publish.main(Path("runs/a"), "other")


@pytest.mark.parametrize("content", ["{}", "damaged"])
def test_an_evaluation_that_cannot_be_read_is_not_left_out_in_silence(repository, content):
    """Its target's mark would be."""
    finished_run(repository / "runs/a", "div", evaluated=True)
    (directory,) = finished.directories(Path("runs/a"))
    (directory / run_directory.evaluation("strong")).write_text(content)
    with pytest.raises(InputError, match=r"evaluation-strong\.json"):
        publish.main(Path("runs/a"), "mine")


def test_redrawing_passes_over_a_name_that_nothing_is_published_of(repository, capsys):
    finished_run(repository / "runs/a", "base")
    publish.main(Path("runs/a"), "mine")
    (publish_pages.RESULTS / "other").mkdir()
    before = everything()
    publish.redraw()
    assert everything() == before
    assert "other: nothing published yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("page", "without"),
    [
        ("runs/results/demo/README.md", "<!-- demo -->"),
        ("runs/results/README.md", "<!-- results -->"),
        ("README.md", "<!-- demo -->"),
    ],
)
def test_page_without_marks_is_refused_before_anything_is_written(repository, page, without):
    finished_run(repository / "runs/a", "base")
    Path("README.md").write_text("# Title\n\n<!-- demo -->\n<!-- /demo -->\n")
    Path(page).parent.mkdir(parents=True, exist_ok=True)
    Path(page).write_text("# No marks here\n")
    before = everything()
    with pytest.raises(InputError, match=f"marks {without} .* in {page}. Received: 0 pairs of them"):
        publish.main(Path("runs/a"), "demo")
    assert everything() == before


def test_page_without_a_title_is_refused(repository):
    finished_run(repository / "runs/a", "base")
    page = publish_pages.RESULTS / "mine" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text("<!-- mine -->\n<!-- /mine -->\n")
    with pytest.raises(InputError, match="Expected a heading, # TITLE"):
        publish.main(Path("runs/a"), "mine")
