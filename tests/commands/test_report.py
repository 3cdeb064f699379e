"""The command for pages: which directories it takes, what it makes, and one line for what it cannot."""

import dataclasses
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import page_records
import pytest
from logged import logged

from divtf.commands import command_line, report
from divtf.pipeline import results
from divtf.pipeline.config import RunConfig
from divtf.reporting.page import writing
from divtf.reporting.published import KINDS
from divtf.storage import checked_json, run_directory

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"error: Expected [^\n]+\. Received: [^\n]+\n")
MODES = {"T_Base": "base", "T_Div": "div"}


@pytest.fixture(scope="module", autouse=True)
def library():
    """Pages without the charting library, which takes seconds and is looked at elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "charting_library", lambda: "")
        yield


def a_run(directory, target="T_Div", **analyses):
    """A finished run in a directory, and analyses: name of a file -> record."""
    directory.mkdir(parents=True)
    config = RunConfig(model="conv3", mode=MODES[target], run_dir=str(directory))
    checked_json.write_json(directory / run_directory.CONFIG, config.identity())
    record = page_records.table_record(target)
    checked_json.write_checked(directory / run_directory.RESULTS, record.to_json())
    for name, each in analyses.items():
        file = {"evaluation": run_directory.evaluation("strong")}.get(name, f"{name}.json")
        checked_json.write_checked(directory / file, each.to_json())
    return directory


def a_table(root, reference=""):
    for place, target in enumerate(MODES):
        a_run(root / target, target, evaluation=page_records.EVALUATIONS[place])
    (root / "table.json").write_text("[]")
    if reference:
        records = [dataclasses.replace(record, reference=reference) for record in page_records.COMPARED]
        checked_json.write_json(root / run_directory.COMPARISON, [record.to_json() for record in records])
    return root


def published(root, **records):
    root.mkdir(parents=True)
    for name, group in (records or {"table": page_records.TABLE}).items():
        checked_json.write_json(root / KINDS[name].file, [record.to_json() for record in group])
    return root


def command(*arguments):
    """What `python -m divtf.report` does with these arguments, in this process; the exit code."""
    return command_line.execute(lambda _: report.main(list(map(str, arguments))), lambda _: None, ["report"])


def refused(capsys, *arguments):
    """The one line that the command answers with."""
    code, errors = command(*arguments), capsys.readouterr().err
    assert code == 2 and LINE.fullmatch(errors), errors
    return errors


def test_the_page_of_a_run_has_what_lies_beside_its_results(tmp_path, capsys):
    directory = a_run(
        tmp_path / "run",
        gaas=page_records.GAAS[1],
        transfer=page_records.MATRIX[1],
        examples=page_records.EXAMPLES[0],
    )
    assert command(directory) == 0
    assert capsys.readouterr().out == f"  page           {directory / 'report.html'}\n"
    text = (directory / "report.html").read_text()
    for title in ("(GAAS)", "Accuracy on the images of each ensemble", "Images</h3>", "T_Div keeps 80.0"):
        assert title in text
    assert "Configuration of each run, every field" in text


def test_the_page_of_a_table_has_all_runs_below_it(tmp_path):
    root = a_table(tmp_path / "table")
    assert command(root) == 0
    text = (root / "report.html").read_text()
    assert (
        "Under everything that protocol strong tries, T_Div keeps 50.0" in text and "Side by side" not in text
    )


def test_the_page_of_a_comparison_stands_beside_its_reference(tmp_path):
    root = a_table(tmp_path / "compared", reference="T_Div")
    assert command(root) == 0
    assert "What is left of each, in percent, beside T_Div" in (root / "report.html").read_text()


def test_made_again_a_page_is_the_same(tmp_path):
    root = a_table(tmp_path / "table")
    assert command(root) == 0
    first = (root / "report.html").read_bytes()
    (root / "report.html").write_text("other")
    assert command(root) == 0
    assert (root / "report.html").read_bytes() == first


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "runs/results").glob("*/")))
def test_every_published_result_makes_a_page(name, tmp_path):
    for file in (ROOT / "runs/results" / name).glob("*.json"):
        (tmp_path / file.name).symlink_to(file)
    assert command(tmp_path) == 0
    assert len((tmp_path / "report.html").read_text()) > 10_000


class TestIndex:
    def test_lists_every_result_and_makes_its_page(self, tmp_path, capsys):
        a_run(tmp_path / "alone", "T_Base")
        a_table(tmp_path / "table")
        published(tmp_path / "deep" / "er")
        published(tmp_path / "shared-models" / "x")
        assert command(tmp_path) == 0
        assert capsys.readouterr().out == f"  index          {tmp_path / 'index.html'}\n"
        text = (tmp_path / "index.html").read_text()
        links = re.findall(r'<h2><a href="([^"]+)">([^<]+)</a>', text)
        assert sorted(links) == [(f"{name}/report.html", name) for name in ("alone", "deep/er", "table")]
        assert all((tmp_path / link).is_file() for link, _ in links)
        assert not (tmp_path / "table" / "T_Div" / "report.html").exists(), "runs of a table are on its page"
        assert "members 2, epochs 4, training images 60</p>" in text
        assert "One seed; REDUCED: less than the paper&#39;s budget." in text
        (legend,) = re.findall(r'<h2><a href="table/.+?(<ul class="legend.+?</ul>)', text, re.DOTALL)
        assert re.findall(r"</svg> ([^<]+)</li>", legend) == ["T_Base †", "T_Div"]
        for stroke in re.findall(r'style="color:([^"]+)"', legend):
            assert f'style="stroke:{stroke}"' in text, "the picture has the legend's colours"
        assert (
            'aria-label="Accuracy against epsilon. T_Base: 90.0 % at 0, 40.0 % at 0.1, 10.0 % at 0.3.' in text
        )

    def test_the_date_is_the_records_if_they_have_one(self, tmp_path):
        a_run(tmp_path / "one")
        record = page_records.table_record("T_Div")
        dated = type(record)(**{**vars(record), "provenance": {"date": "2025-03-04T23:00:00+00:00"}})
        published(tmp_path / "two", table=[dated])
        assert command(tmp_path) == 0
        text = (tmp_path / "index.html").read_text()
        assert "date not recorded · " in text and "2025-03-04 · " in text

    def test_names_stay_text(self, tmp_path):
        name = "<img src=x onerror=alert(1)> & \"q\" 'r' %2e"
        record = page_records.table_record("T_Div")
        hostile = type(record)(**{**vars(record), "target": page_records.HOSTILE})
        published(tmp_path / name, table=[hostile])
        assert command(tmp_path) == 0
        text = (tmp_path / "index.html").read_text()
        assert "<img src=x" not in text and text.count("<script>") == 1
        (link,) = re.findall(r'<h2><a href="([^"]+)">', text)
        assert link.startswith("%3Cimg%20src%3Dx%20onerror")
        data = re.search(r'data-defence="([^"]+)"', text).group(1)
        assert json.loads(html.unescape(data)) == [page_records.HOSTILE]

    def test_a_result_that_cannot_be_read_is_told_and_left_out(self, tmp_path):
        a_run(tmp_path / "good")
        bad = a_run(tmp_path / "bad")
        (bad / run_directory.RESULTS).write_text("{")
        with logged() as lines:
            assert command(tmp_path) == 0
        (line,) = lines
        assert re.fullmatch(rf"{bad} is left out: Expected JSON in {bad}/results\.json\. Received: .+", line)
        text = (tmp_path / "index.html").read_text()
        assert "good/report.html" in text and "bad" not in text

    def test_only_such_results_are_none(self, tmp_path, capsys):
        bad = a_run(tmp_path / "bad")
        (bad / run_directory.RESULTS).write_text("{")
        assert "results below" in refused(capsys, tmp_path)


class TestBadInput:
    @pytest.mark.parametrize("arguments", [(), ("a", "b")])
    def test_one_directory_is_asked_for(self, arguments, capsys):
        assert "Expected one directory." in refused(capsys, *arguments)

    def test_no_directory(self, tmp_path, capsys):
        assert "Expected a directory of results" in refused(capsys, tmp_path / "none")
        (tmp_path / "file").write_text("")
        assert "which is none" in refused(capsys, tmp_path / "file")

    def test_nothing_below(self, tmp_path, capsys):
        assert f"Expected results below {tmp_path}. Received: none" in refused(capsys, tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[:-40],
            lambda text: text.replace('"correct": 9', '"correct": 8', 1),
            lambda text: "[]",
            lambda text: "{}",
            lambda text: '{"schema": 2}',
        ],
    )
    def test_damaged_results(self, damage, tmp_path, capsys):
        directory = a_run(tmp_path / "run")
        path = directory / run_directory.RESULTS
        changed = damage(path.read_text())
        assert changed != path.read_text()
        path.write_text(changed)
        assert str(path) in refused(capsys, directory)
        assert not (directory / "report.html").exists()

    @pytest.mark.parametrize(
        "file", ["evaluation-strong.json", "gaas.json", "transfer.json", "examples.json"]
    )
    @pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}', '{"schema": 1}'])
    def test_damaged_analyses(self, file, text, tmp_path, capsys):
        directory = a_run(tmp_path / "run")
        (directory / file).write_text(text)
        assert str(directory / file) in refused(capsys, directory)

    def test_an_analysis_of_other_weights(self, tmp_path, capsys):
        other = page_records.gaas_record("T_Div", 1)
        stale = type(other)(**{**vars(other), "provenance": {"weights": "others"}})
        directory = a_run(tmp_path / "run", gaas=stale)
        assert "one of others: make it again" in refused(capsys, directory)

    def test_a_missing_or_damaged_configuration(self, tmp_path, capsys):
        directory = a_run(tmp_path / "run")
        (directory / run_directory.CONFIG).write_text("{")
        assert str(directory / run_directory.CONFIG) in refused(capsys, directory)
        (directory / run_directory.CONFIG).unlink()
        assert str(directory / run_directory.CONFIG) in refused(capsys, directory)

    @pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"schema": 7}]', "[null]"])
    def test_damaged_published_records(self, text, tmp_path, capsys):
        root = published(tmp_path / "result")
        (root / "evaluation.json").write_text(text)
        assert str(root / "evaluation.json") in refused(capsys, root)

    @pytest.mark.parametrize("values", [3, {}, [3], [{"reference": "T_Div"}]])
    def test_a_damaged_comparison(self, values, tmp_path, capsys):
        root = a_table(tmp_path / "table", reference="T_Div")
        checked_json.write_json(root / run_directory.COMPARISON, values)
        assert run_directory.COMPARISON in refused(capsys, root)

    def test_two_runs_of_the_same(self, tmp_path, capsys):
        root = a_table(tmp_path / "table")
        a_run(root / "again", "T_Div")
        assert "one run of each target" in refused(capsys, root)

    @pytest.mark.parametrize("name", ["report.html", "index.html"])
    def test_a_place_that_cannot_be_written(self, name, tmp_path, capsys):
        directory = a_run(tmp_path / "run")
        (tmp_path / name).mkdir()
        (directory / name).mkdir()
        where = directory if name == "report.html" else tmp_path
        told = refused(capsys, where)
        assert f"Expected a usable file or directory {where / name}. Received: Is a directory" in told


def test_a_page_that_cannot_be_made_loses_no_result(tmp_path):
    """One line of warning, and the run goes on."""
    directory = a_run(tmp_path / "run")
    (directory / "report.html").mkdir()
    with logged() as lines:
        assert results.try_page(directory) is None
    (line,) = [line for line in lines if "report.html" in line]
    assert line.startswith("no report.html: ") and f"python -m divtf.report {directory} tries again" in line


def test_the_command_itself(tmp_path):
    directory = a_run(tmp_path / "run")
    call = [sys.executable, "-m", "divtf.report"]
    done = subprocess.run([*call, str(directory)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "vega" in (directory / "report.html").read_text()
    done = subprocess.run([*call, "none"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and LINE.fullmatch(done.stderr)
