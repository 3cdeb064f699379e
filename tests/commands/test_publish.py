"""The README's figures are those of the records beside it, and the command that puts them there."""

import dataclasses
import io
import json
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from divtf.commands import publish
from divtf.errors import InputError
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.storage import checked_json, run_directory
from divtf.storage.records import (
    CLEAN,
    WORST_CASE,
    MatrixRecord,
    SubspaceRecord,
    TargetRecord,
    TransferResult,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "runs/results"
README = (ROOT / "README.md").read_text()
NAMES = publish.published_names(README)


@pytest.mark.parametrize("name", NAMES)
def test_readme_section_is_what_the_records_give(name):
    assert publish.insert(README, name, publish.section(name, publish.load(name, RESULTS))) == README


@pytest.mark.parametrize("name", NAMES)
def test_files_are_what_the_records_give(name):
    """To the byte; only pictures may have edges shaded a little otherwise, by another machine's rounding."""
    for end, content in publish.contents(publish.load(name, RESULTS)).items():
        path = RESULTS / f"{name}-{end}"
        kept = path.read_bytes()
        assert kept == content or (path.suffix == ".png" and changed_pixels(kept, content) < 10), path.name


def changed_pixels(first: bytes, second: bytes) -> int:
    """Pixels that two PNG pictures have by more than half the range apart; a digit has dozens."""
    a, b = (matplotlib.image.imread(io.BytesIO(content), format="png") for content in (first, second))
    return int((np.abs(a - b).max(axis=-1) > 0.5).sum()) if a.shape == b.shape else a.size


def test_a_changed_digit_is_seen_in_a_picture():
    records = publish.load(NAMES[0], RESULTS)["table"]
    kept = publish.OUTPUTS["table.png"].make(records)
    first, *others = records[0].results
    changed = dataclasses.replace(first, correct=first.correct - 1)
    spoilt = [dataclasses.replace(records[0], results=(changed, *others)), *records[1:]]
    assert changed_pixels(kept, kept) == 0
    assert changed_pixels(kept, publish.OUTPUTS["table.png"].make(spoilt)) >= 10


def test_every_published_file_belongs_to_a_name_of_the_readme():
    made = {f"{n}{kind.ending}.json" for n in NAMES for kind in publish.KINDS.values()}
    made |= {f"{name}-{end}" for name in NAMES for end in publish.OUTPUTS}
    assert {path.name for path in RESULTS.iterdir()} <= made
    assert all((RESULTS / f"{name}.json").exists() for name in NAMES)
    assert NAMES


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((runs/results/[^)]+)\)", README)
    assert len(links) > len(NAMES)
    for link in links:
        assert (ROOT / link).exists(), link


def test_insert_replaces_only_between_the_marks():
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb"
    assert publish.insert(text, "t", "new") == "a\n<!-- t -->\n\nnew\n\n<!-- /t -->\nb"


def test_insert_without_marks_is_refused():
    with pytest.raises(InputError, match="marks"):
        publish.insert("no marks", "t", "new")


# The command, in a repository of its own.


def finished_run(root, mode, *, analysed=False, matrix=False, **values):
    """The files of a finished run, without the run."""
    config = RunConfig(model="conv3", mode=mode, **values).resolved()
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
        made = SubspaceRecord(target=config.target, images=10, curves=(curve,), analysis=analysis, **of)
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
        column = MatrixRecord(target=config.target, results=cells, sources=sources, analysis=analysis, **of)
        checked_json.write_json(directory / run_directory.MATRIX, column.to_json())


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(
        "# Title\n\n<!-- mine -->\n<!-- /mine -->\n\n<!-- other -->\n<!-- /other -->\n"
    )
    return tmp_path


def published(name="mine"):
    return {path.name for path in Path("runs/results").glob(f"{name}*")}


TABLE = {f"mine-{end}" for end, output in publish.OUTPUTS.items() if output.kind == "table"}


def test_table_alone_is_published_with_its_records(repository):
    finished_run(repository / "runs/a", "base")
    finished_run(repository / "runs/a", "div")
    publish.main(Path("runs/a"), "mine", redraw=False)
    assert published() == TABLE | {"mine.json"}
    assert {"mine-table.png", "mine-table.csv", "mine-accuracy.png", "mine-coherence.png"} <= TABLE
    readme = Path("README.md").read_text()
    assert "| T_Div, ours |" in readme and "Commit: 0123abc" in readme
    assert "- Command of T_Base: train base\n- Command of T_Div: train div\n" in readme
    assert "Hours of training, surrogate and static model left out: T_Base 1.5, T_Div 1.5" in readme
    assert "![coherence (Figure 4)](runs/results/mine-coherence.png)" in readme
    assert "[the table as CSV](runs/results/mine-table.csv)" in readme
    assert "<!-- other -->\n<!-- /other -->" in readme, "what is not named stays"
    assert "gaas" not in readme and "sparsity" not in readme


def test_every_kind_that_the_runs_have_is_published(repository):
    finished_run(repository / "runs/a", "base", analysed=True)
    finished_run(repository / "runs/a", "div", analysed=True)
    finished_run(repository / "runs/a", "div", activation="relu")
    publish.main(Path("runs/a"), "mine", redraw=False)
    assert published() == {f"mine-{end}" for end in publish.OUTPUTS if end != "transfer.png"} | {
        *("mine.json", "mine-gaas.json", "mine-sparsity.json"),
    }
    readme = Path("README.md").read_text()
    for line in (
        "- Command of the analysis: figure5 of it\n- Commit of the analysis: fedc321\n",
        "- k in {4}: the paper's 25 is the order of no Hadamard matrix",
        "- Images: the first 10 test images, of which 9 count; seed: 0",
        "- Successful directions of 4, on average, at epsilon 0.3: T_Base 2.1, T_Div 2.1",
        "- T_Div (ReLU), seed 0: 25.00 % and 50.00 %; GAL 1.250 in epoch 1, 1.000 in epoch 2",
        "![orthogonal adversarial directions (Figure 5)](runs/results/mine-gaas.png)",
        "![ReLU against LeakyReLU (section 3.4)](runs/results/mine-sparsity.png)",
        "[records: sparsity](runs/results/mine-sparsity.json)",
    ):
        assert line in readme
    loaded = publish.load("mine")
    assert {kind: len(records) for kind, records in loaded.items()} == {"table": 3, "gaas": 2, "sparsity": 2}
    assert "secret" not in "".join(path.read_text() for path in Path("runs/results").glob("*.json"))


def test_transfer_matrix_is_published_as_picture_records_and_lines(repository):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode, matrix=True)
    publish.main(Path("runs/a"), "mine", redraw=False)
    assert published() == TABLE | {"mine.json", "mine-transfer.json", "mine-transfer.png"}
    readme = Path("README.md").read_text()
    for line in (
        "- Accuracy in percent at epsilon 0.1 / 0.3 on images that fgsm makes on each ensemble; on a",
        "- Images: the first 10 test images; seed: 0. Targets of one seed start from the same weights\n",
        "- On images of T_Base: T_Base 40.0 / 40.0 (its own), T_Div 40.0 / 40.0\n",
        "- Command of the analysis: transfer_matrix of it\n- Commit of the analysis: fedc321\n",
        "![accuracy on the images of each source](runs/results/mine-transfer.png)",
    ):
        assert line in readme
    assert "secret" not in Path("runs/results/mine-transfer.json").read_text()


def test_matrix_of_other_runs_than_those_published_is_refused(repository):
    finished_run(repository / "runs/a", "base", matrix=True)
    finished_run(repository / "runs/a", "div")
    with pytest.raises(InputError, match=r"all finished runs below .*give divtf.transfer_matrix again"):
        publish.main(Path("runs/a"), "mine", redraw=False)
    assert not published()


def test_analysis_of_weights_that_are_gone_is_refused(repository):
    finished_run(repository / "runs/a", "base", analysed=True)
    path = repository / "runs/a/mnist-conv3-base-seed0" / run_directory.RESULTS
    record = json.loads(path.read_text())
    checked_json.write_json(path, record | {"provenance": record["provenance"] | {"weights": "others"}})
    with pytest.raises(InputError, match=r"give divtf.figure5 again"):
        publish.main(Path("runs/a"), "mine", redraw=False)


def test_what_has_no_records_any_more_is_removed(repository):
    for mode in ("base", "div"):
        finished_run(repository / "runs/a", mode, analysed=True)
    finished_run(repository / "runs/b", "base")
    publish.main(Path("runs/a"), "other", redraw=False)
    publish.main(Path("runs/a"), "mine", redraw=False)
    publish.main(Path("runs/b"), "mine", redraw=False)
    assert published() == TABLE | {"mine.json"}
    assert {"other-gaas.png", "other-gaas.json"} <= published("other")


def test_redrawing_makes_all_from_the_records_alone(repository):
    finished_run(repository / "runs/a", "base", analysed=True)
    for name in ("mine", "other"):
        publish.main(Path("runs/a"), name, redraw=False)
    before = {path: path.read_bytes() for path in [Path("README.md"), *Path("runs/results").iterdir()]}
    for path in Path("runs/results").glob("*-table.*"):
        path.unlink()
    Path("runs/results/mine-gaas.png").write_bytes(b"old")
    Path("README.md").write_text(Path("README.md").read_text().replace("Hours", "Days"))
    publish.main(Path("nowhere"), "nothing", redraw=True)
    assert {path: path.read_bytes() for path in before} == before


def test_one_run_of_each_target_and_seed_is_published(repository):
    finished_run(repository / "runs/a", "div")
    finished_run(repository / "runs/a", "div", seed=1)
    assert len(publish.collect(Path("runs/a"))["table"]) == 2
    finished_run(repository / "runs/a/again", "div", seed=1)
    (repository / "runs/a/again/mnist-conv3-div-seed1").rename(repository / "runs/a/twice")
    with pytest.raises(
        InputError, match=r"Expected one run of each .*Received: T_Div, conv3 on mnist, seed 1"
    ):
        publish.collect(Path("runs/a"))


def test_no_runs_are_refused(repository):
    with pytest.raises(InputError, match=r"Expected finished runs below runs/none\. Received: none"):
        publish.collect(Path("runs/none"))


@pytest.mark.parametrize("name", ["mine-gaas", "mine-transfer", "mine-sparsity", "../mine", "", "a b"])
def test_names_that_are_taken_or_no_names_are_refused(repository, name):
    finished_run(repository / "runs/a", "base")
    with pytest.raises(InputError, match="Expected --name of letters, digits"):
        publish.main(Path("runs/a"), name, redraw=False)
    assert not Path("runs/results").exists()


def test_runs_without_attacks_and_with_one_member_have_a_table_only(repository):
    finished_run(repository / "runs/a", "base")
    path = repository / "runs/a/mnist-conv3-base-seed0" / run_directory.RESULTS
    record = json.loads(path.read_text())
    bare = {"results": record["results"][:1], "coherence": [], "pair_cosines": []}
    checked_json.write_json(path, record | bare)
    publish.main(Path("runs/a"), "mine", redraw=False)
    assert published() == {"mine.json", "mine-table.png", "mine-table.csv"}
    assert "coherence.png" not in Path("README.md").read_text()


def test_what_cannot_be_drawn_leaves_all_as_it_was(repository, monkeypatch):
    def fail(records):
        raise OSError("no more")

    finished_run(repository / "runs/a", "base")
    publish.main(Path("runs/a"), "mine", redraw=False)
    before = {path: path.read_bytes() for path in [Path("README.md"), *Path("runs/results").iterdir()]}
    finished_run(repository / "runs/a", "div")
    broken = dataclasses.replace(publish.OUTPUTS["table.csv"], make=fail)
    monkeypatch.setitem(publish.OUTPUTS, "table.csv", broken)
    with pytest.raises(OSError, match="no more"):
        publish.main(Path("runs/a"), "mine", redraw=False)
    assert {path: path.read_bytes() for path in before} == before


def test_redrawing_passes_over_a_name_that_nothing_is_published_of(repository, capsys):
    readme = Path("README.md").read_text()
    publish.main(Path("nowhere"), "nothing", redraw=True)
    assert Path("README.md").read_text() == readme
    assert "other: nothing published yet" in capsys.readouterr().out


def test_without_marks_nothing_is_written(repository):
    finished_run(repository / "runs/a", "base")
    with pytest.raises(InputError, match="marks <!-- new -->"):
        publish.main(Path("runs/a"), "new", redraw=False)
    assert not Path("runs/results").exists()
