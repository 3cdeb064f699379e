"""The commands for evaluations: flags, files, and what they say."""

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from absl import flags

from divtf.commands import command_line, config_flags, evaluate, publish_pages, table2
from divtf.errors import InputError
from divtf.pipeline import experiment, finished
from divtf.pipeline.protocols import PROTOCOLS, Protocol, Trial
from divtf.reporting import report
from divtf.reporting.evaluation import evaluation_markdown, evaluation_text
from divtf.storage import checked_json, run_directory
from divtf.storage.evaluations import EvaluationRecord

ROOT = Path(__file__).resolve().parents[2]
SMALL = Protocol("strong", ("plain",), (Trial("fgsm"),), (Trial("pgd", {"steps": 2}),), 0, 0, False, 12)

pytestmark = pytest.mark.usefixtures("tiny_world")
needs_art = pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="needs the extra `attacks`")


def parsed(*arguments, table=False):
    """Fresh flags of a command."""
    values = flags.FlagValues()
    if table:
        config_flags.define_flags(values)
        table2.define_flags(values)
    else:
        evaluate.define_flags(values)
        config_flags.define_flags(values, names=("data_dir", "stored_as"))
    assert command_line.parse(["command", *arguments], values) == ["command"]
    return values


@pytest.fixture
def small(monkeypatch):
    """The protocol `strong`, with next to nothing."""
    monkeypatch.setitem(PROTOCOLS, "strong", SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_world):
    """The root of a finished run."""
    root = tmp_path_factory.mktemp("runs")
    budget = {"epochs": 1, "attacks": ("fgsm",), "epsilons": (0.1,), "batch_size": 24}
    experiment.run(tiny.config(mode="base", run_dir=str(root / "base"), **budget))
    return root


def own_value(name, key):
    return getattr(PROTOCOLS[name], key)


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], {}),
        (["--surrogates=plain"], {"surrogates": ("plain",)}),
        (["--surrogates=plain5,div+noise, other"], {"surrogates": ("plain5", "div+noise", "other")}),
        (["--images=7"], {"images": 7}),
        (["--queries=0"], {"queries": 0}),
        (["--queries=20", "--query_images=3"], {"queries": 20, "query_images": 3}),
        (["--stored_as=uint8"], {"stored_as": "uint8"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_is_not_given_is_the_protocols(name, arguments, changes):
    protocol = evaluate.protocol_from_flags(name, parsed(*arguments))
    assert protocol == dataclasses.replace(PROTOCOLS[name], **changes)
    # What is its own value is no change.
    assert protocol.changed == {key: changes[key] for key in changes if changes[key] != own_value(name, key)}


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol=strnog"], "did you mean strong?"),
        (["--protocol="], "--protocol as one of"),
        (["--protocol=strong", "--surrogates=plain,plain"], "--surrogates as distinct values, at least one"),
        (["--protocol=strong", "--surrogates="], "--surrogates as distinct values, at least one"),
        (["--protocol=strong", "--queries=1"], "queries of 0, or of at least 2"),
        (["--protocol=strong", "--stored_as=png"], "stored_as as one of"),
    ],
)
def test_wrong_flags_are_refused(table, arguments, words):
    if not table:
        name, rest = arguments[0].removeprefix("--protocol="), arguments[1:]
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        if table:
            table2.table_from_flags(parsed(*arguments, table=True))
        else:
            evaluate.protocol_from_flags(name, parsed(*rest))


@pytest.mark.parametrize(
    "argument", ["--images=0", "--images=many", "--queries=-1", "--query_images=0", "--images=1.5"]
)
@pytest.mark.parametrize("table", [False, True])
def test_numbers_out_of_range_cannot_be_parsed(argument, table, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(argument, table=table)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: Expected flags as --help lists them.")


def test_table_has_no_protocol_but_the_papers_unless_it_is_given():
    assert table2.table_from_flags(parsed(table=True))[2] is None
    assert table2.table_from_flags(parsed("--protocol=paper", table=True))[2] is None


@needs_art
def test_table_passes_its_protocol_on():
    arguments = ["--protocol=strong", "--surrogates=plain,noise", "--images=9", "--stored_as=jpeg"]
    configs, cluster, protocol = table2.table_from_flags(parsed(*arguments, table=True))
    given = {"surrogates": ("plain", "noise"), "images": 9, "stored_as": "jpeg"}
    assert protocol == dataclasses.replace(PROTOCOLS["strong"], **given)
    assert cluster is None and {config.stored_as for config in configs} == {"jpeg"}


@pytest.mark.parametrize("option", ["--surrogates=plain", "--images=9", "--queries=9", "--query_images=9"])
def test_table_takes_no_options_of_a_protocol_without_one(option):
    with pytest.raises(InputError, match=f"another --protocol than paper beside {option.split('=')[0]}"):
        table2.table_from_flags(parsed(option, table=True))


@needs_art
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--surrogates=plane"], "Received: plane"),
        (["--surrogates=none.keras"], "that are there"),
        (["--surrogates=other,conv4"], "other and conv4, which are the same ensemble"),
        (["--surrogates=plain4", "--seeds=0,1104"], "Expected a surrogate_seed S"),
        (["--max_test_examples=100", "--images=150"], "at most 100 images, as there are"),
    ],
)
def test_table_refuses_an_impossible_protocol_before_it_trains(arguments, words):
    with pytest.raises(InputError, match=words):
        table2.table_from_flags(parsed("--protocol=strong", *arguments, table=True))


@needs_art
def test_fewer_test_images_than_a_protocol_usually_attacks_are_all_attacked():
    strong = PROTOCOLS["strong"]
    assert [strong.images_of(count) for count in (40, 200, 300)] == [40, 200, 200]
    table2.table_from_flags(parsed("--protocol=strong", "--max_test_examples=40", table=True))


def test_transfer_is_what_strong_tries_by_transfer_with_a_surrogate_trained_as_each_target():
    strong, transfer = PROTOCOLS["strong"], PROTOCOLS["transfer"]
    assert transfer.transfer == strong.transfer and transfer.surrogates == (*strong.surrogates, "same")
    assert not (transfer.white_box or transfer.queries or transfer.checks)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_needs_art_says_so(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None)
    if name != "dverge":
        needed = rf"what --protocol={name} needs: pip install 'divtf\[attacks\]'"
        with pytest.raises(InputError, match=needed):
            evaluate.require_possible(PROTOCOLS[name], [])
    else:
        evaluate.require_possible(PROTOCOLS[name], [])


def test_table_is_evaluated_once_it_is_there(runs, small, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(evaluate, "main", lambda *given: calls.append(given))
    root = shutil.copytree(runs, tmp_path / "root")
    config = dataclasses.replace(finished.read_config(root / "base"), run_dir=str(root / "base"), resume=True)
    table2.main([config])
    assert calls == []
    table2.main([config], None, SMALL)
    assert calls == [(root, SMALL, None, [root / "base"])], "whatever else lies there"
    assert (root / "table.png").exists()


def test_report_is_written_and_printed(runs, small, tmp_path, capsys):
    root = shutil.copytree(runs, tmp_path / "root")
    (record,) = evaluate.main(root, SMALL)
    directory = root / "evaluation-strong"
    assert {path.name for path in directory.iterdir()} == {"README.md", "evaluation.json"}
    (written,) = json.loads((directory / "evaluation.json").read_text())
    assert EvaluationRecord.from_json(written).trials == record.trials
    assert written["analysis"]["command"]
    readme = (directory / "README.md").read_text()
    assert readme.startswith("# Evaluation\n\n### tiny on stripes, protocol strong: what is left\n")
    assert evaluation_markdown([record]) in readme
    printed = capsys.readouterr().out
    assert evaluation_text([record]) in printed
    assert f"report         {directory / 'README.md'}" in printed
    page = directory.parent / "report.html"
    assert f"page           {page}" in printed
    assert "Under everything that protocol strong tries" in page.read_text()
    (collected,) = evaluate.collect(root, "strong")
    assert collected.trials == record.trials
    assert evaluate.collect(root, "dverge") == []
    assert publish_pages.collect(root)["evaluation"][0].trials == record.trials
    # The report is no run.
    assert finished.directories(root) == [root / "base"]


@pytest.mark.parametrize(("changes", "marked"), [({}, True), ({"provenance": {"weights": "others"}}, False)])
def test_a_check_that_failed_by_another_protocol_marks_its_target_in_all_reports(
    runs, small, tmp_path, capsys, changes, marked
):
    """And one of weights that are gone does not."""
    root = shutil.copytree(runs, tmp_path / "root")
    (record,) = evaluate.main(root, SMALL)
    assert not (root / "report.md").exists(), "where there is no table there is no report of it"
    failed = {"name": "gradients", "passed": False, "figure": 0.5, "sentence": "Half of them are zero."}
    other = dataclasses.replace(record, protocol="dverge", checks=(failed,), **changes)
    file = root / "base" / run_directory.evaluation("dverge")
    checked_json.write_checked(file, other.to_json())
    report.write_report(root, [finished.read_record(root / "base")], against_paper=True)
    before = (root / "table.csv").read_text()
    capsys.readouterr()
    evaluate.main(root, SMALL)
    readme, table = ((root / name).read_text() for name in ("evaluation-strong/README.md", "report.md"))
    assert ("† <sub>" in readme) == ("| T_Base † |" in table) == ("† [" in capsys.readouterr().out) == marked
    assert ((root / "table.csv").read_text() != before) == marked


def test_a_report_keeps_targets_and_marks_that_are_not_evaluated_now(runs, small, tmp_path):
    """As of other comparisons in the same directory."""
    root = shutil.copytree(runs, tmp_path / "root")
    (record,) = evaluate.main(root, SMALL)
    shutil.copytree(root / "base", root / "again")
    config = checked_json.read_json(root / "again" / run_directory.CONFIG)
    checked_json.write_json(root / "again" / run_directory.CONFIG, config | {"label": "T_Other"})
    failed = {"name": "gradients", "passed": False, "figure": 0.5, "sentence": "Half of them are zero."}
    checked_json.write_checked(
        root / "again" / run_directory.evaluation("strong"),
        dataclasses.replace(record, target="T_Other", checks=(failed,)).to_json(),
    )
    report.write_report(root, [finished.read_record(root / "base")], against_paper=True)
    evaluate.main(root, SMALL, paths=[root / "base"])
    table = (root / "report.md").read_text()
    assert "| T_Base |" in table and "| T_Other † |" in table


@needs_art
def test_pictures_are_written_where_there_is_something_to_draw(runs, tmp_path):
    root = shutil.copytree(runs, tmp_path / "root")
    evaluate.main(root, dataclasses.replace(SMALL, queries=3, query_images=4))
    names = {path.name for path in (root / "evaluation-strong").iterdir()}
    assert names == {"README.md", "evaluation.json", "queries.png"}
    assert (root / "evaluation-strong" / "queries.png").read_bytes().startswith(b"\x89PNG")


def test_no_runs_are_refused(tmp_path):
    with pytest.raises(InputError, match=f"Expected finished runs below {tmp_path}. Received: none"):
        evaluate.main(tmp_path, SMALL)


def test_a_run_in_the_place_of_its_directory_is_told(runs):
    (first, *_) = finished.directories(runs)
    with pytest.raises(InputError, match=f"Received: a run itself: {runs} holds it"):
        evaluate.main(first, SMALL)


def test_two_runs_of_one_target_are_refused(runs, tmp_path):
    root = shutil.copytree(runs, tmp_path / "root")
    shutil.copytree(root / "base", root / "again")
    with pytest.raises(InputError, match="Expected one run of each target, model, data set and seed"):
        evaluate.main(root, SMALL)


def test_runs_of_other_epsilons_are_refused_before_anything_is_done(runs, small, tmp_path, monkeypatch):
    """Those below the root; and those that would be trained together."""
    root = shutil.copytree(runs, tmp_path / "root")
    budget = {"epochs": 1, "attacks": ("fgsm",), "batch_size": 24}
    other = tiny.config(mode="base", seed=1, run_dir=str(root / "other"), epsilons=(0.2,), **budget)
    alike = dataclasses.replace(other, epsilons=(0.1,))
    base = finished.read_config(root / "base")
    evaluate.require_possible(SMALL, [base, alike])
    words = r"one model and data set with the same epsilons, as .* has \(0\.\d,\)\. Received: epsilons="
    with pytest.raises(InputError, match=words):
        evaluate.require_possible(SMALL, [base, other])
    experiment.run(other)
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError, match=words) as refused:
        evaluate.main(root, SMALL)
    assert "\n" not in str(refused.value)
    assert sorted(root.rglob("*")) == before


def test_seeds_are_evaluated_together(runs, tmp_path):
    root = shutil.copytree(runs, tmp_path / "root")
    budget = {"epochs": 1, "attacks": ("fgsm",), "epsilons": (0.1,), "batch_size": 24}
    experiment.run(tiny.config(mode="base", seed=1, run_dir=str(root / "again"), **budget))
    assert [record.seed for record in evaluate.main(root, SMALL)] == [0, 1]


COMMAND = (
    "import sys, pytest, tiny; tiny.register(pytest.MonkeyPatch());"
    "from divtf.commands import evaluate; from divtf.pipeline import protocols as p;"
    "p.PROTOCOLS['strong'] = p.Protocol('strong', ('plain',), (p.Trial('fgsm'),),"
    "(p.Trial('pgd', {'steps': 2}),), images=12); evaluate.launch()"
)


def test_command_in_a_process_of_its_own(runs, tmp_path):
    root = shutil.copytree(runs, tmp_path / "root")
    done = [
        subprocess.run(
            [sys.executable, "-c", COMMAND, f"--runs={root}", *arguments],
            cwd=ROOT / "tests",
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            check=False,
        )
        for arguments in ([], ["--surrogates=plane"], ["--images=25"])
    ]
    assert [one.returncode for one in done] == [0, 2, 2], done[0].stderr
    assert "protocol strong" in done[0].stdout and "T_Base" in done[0].stdout
    assert finished.read_evaluation(root / "base", "strong").images == 12
    # TensorFlow, which the tiny model needs, has remarks of its own.
    plane, images = (one.stderr.splitlines()[-1] for one in done[1:])
    assert plane.startswith("error: Expected surrogates among ") and plane.endswith("Received: plane")
    assert images == "error: Expected at most 24 images, as there are. Received: images=25"


@pytest.mark.slow
def test_all_checks_are_in_the_report(runs, tmp_path):
    """A minute: the checks try a dozen attacks."""
    root = shutil.copytree(runs, tmp_path / "root")
    (record,) = evaluate.main(root, dataclasses.replace(SMALL, checks=True))
    names = [check["name"] for check in record.checks]
    assert len(names) == 9 and names[0] == "gradients" and names[-1] == "other losses"
    readme = (root / "evaluation-strong" / "README.md").read_text()
    for check in record.checks:
        assert check["sentence"] in readme
    assert "#### Detection" in readme and (root / "evaluation-strong" / "roc.png").exists()


@pytest.mark.parametrize("door", ["evaluate", "table2"])
def test_help_lists_the_options(door):
    command = [sys.executable, "-m", f"divtf.{door}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    text = "".join(done.stdout.split())
    for name in ("protocol", "surrogates", "images", "queries", "query_images", "stored_as", "data_dir"):
        assert f"--{name}:" in text
    assert (
        "<strong|transfer|dverge>" in text if door == "evaluate" else "<paper|strong|transfer|dverge>" in text
    )
