"""The guides build without a warning, their Python runs, and the API's page has all public names."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import divtf

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_docs_build_without_a_warning(tmp_path):
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*sphinx, "-c", "docs", ".", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'url=docs/index.html"' in (tmp_path / "index.html").read_text()
    assert 'href="../benchmarks/results/exactness.html"' in (tmp_path / "docs" / "members.html").read_text()
    assert 'href="../docs/machines.html"' in (tmp_path / "flags" / "README.html").read_text()
    page = (tmp_path / "docs" / "api.html").read_text()
    for name in ("divtf.Ensemble.fit", "divtf.export_model", "divtf.TransferResult.interval"):
        assert f'id="{name}"' in page
    text = re.sub(r"<[^>]+>", "", page)
    assert "divtf.Ensemble(members, objective=None" in text


def test_every_public_name_is_on_the_api_page_once():
    names = re.findall(r"^\.\. \w+:: divtf\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(set(divtf.__all__) - {"__version__"})


def test_every_guide_is_in_the_index():
    listed = set(re.findall(r"^(\w+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert listed == {path.stem for path in DOCS.glob("*.md")} - {"index"}


@pytest.mark.parametrize("guide", ["objectives", "evaluating", "threat_models", "adding_attacks"])
def test_python_of_a_guide_runs(guide):
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / f"{guide}.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) >= 2
    names = {}
    for block in blocks:
        exec(compile(block, f"{guide}.md", "exec"), names)
    if guide == "objectives":
        x, y = np.zeros([4, 28, 28, 1], "float32"), np.arange(4)
        names["ensemble"].compile("sgd")
        assert {"diversity", "loss"} <= set(names["ensemble"].train_on_batch(x, y, return_dict=True))
    elif guide == "evaluating":
        assert names["attack"].name == "mirrored"
        assert [result.surrogate == "" for result in names["transferred"]].count(True) == 1
    elif guide == "threat_models":
        assert names["attack"].threat.epsilon == 8
    else:
        assert [result.attack for result in names["results"]] == ["clean", "hidden", "worst_case"]
        assert names["recipe"].pieces[0].cost == 5


# Fenced commands of every page that tells how to use the package.
PAGES = [ROOT / "README.md", ROOT / "flags" / "README.md", ROOT / "runs" / "README.md", *DOCS.glob("*.md")]


def command_lines():
    """(page, command line) of every shell block, continued lines joined."""
    for page in sorted(PAGES):
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield page.name, words


def doors():
    """The flags of every command of divtf in the pages, by its door; those in a table's cells too."""
    found = {}
    for page, words in command_lines():
        if words[:2] == ["python", "-m"] and words[2].startswith("divtf."):
            found.setdefault(words[2].removeprefix("divtf."), []).append((page, words[3:]))
    for page in PAGES:
        for door, rest in re.findall(r"`divtf\.(\w+) (--[^`]+)`", page.read_text()):
            found.setdefault(door, []).append((page.name, rest.split()))
    return found


@pytest.mark.parametrize("door", sorted(doors()))
def test_commands_of_the_guides_have_flags_that_there_are(door):
    """Each door's flags are declared as the command does, and take each page's values; nothing is run.

    Of them all, `report` alone takes an argument that is no flag: its directory.
    """
    script = f"""
import json, sys
from absl import flags
from divtf.commands import command_line, {door}

command_line.run = lambda main, read=None: None
command_line.run_with_arguments = lambda main: None
{door}.launch()
for page, arguments in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    left = command_line.parse(["divtf", *arguments])
    assert len(left) == 1 + ({door!r} == "report"), (page, left)
"""
    lines = doors()[door]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (lines, done.stderr)


def test_other_commands_of_the_guides_are_there():
    """Targets of make, examples, benchmarks and extras that pages name."""
    targets = set(re.findall(r"^([a-z]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    kinds = set()
    for page, words in command_lines():
        if words[0] == "make":
            assert words[1] in targets, (page, words)
        elif words[0] == "python" and words[1] == "-m":
            assert (ROOT / Path(*words[2].split("."))).with_suffix(".py").is_file(), (page, words)
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), (page, words)
            options = re.findall(r'add_argument\(\s*"(--\w+)"', (ROOT / words[1]).read_text())
            assert {word.split("=")[0] for word in words[2:]} <= set(options), (page, words)
        kinds.add(words[0])
    assert {"make", "python", "tensorboard"} <= kinds


def published(result, target, epsilon, kind):
    """A result's accuracy in per cent: "strongest" attack or "worst_case"; of an evaluation a column."""
    directory = ROOT / "runs" / "results" / result
    columns = {"transfer": 2, "everything": 5}
    if kind in columns:
        row = rf"^\| {re.escape(target)} \| {epsilon} \|(.*)\|$"
        cells = re.search(row, (directory / "README.md").read_text(), re.MULTILINE)[1].split("|")
        return float(cells[columns[kind]].split()[0].rstrip("†‡"))
    (record,) = [
        each for each in json.loads((directory / "table.json").read_text()) if each["target"] == target
    ]
    of_epsilon = [each for each in record["results"] if each["epsilon"] == float(epsilon)]
    worst = [each["attack"] == "worst_case" for each in of_epsilon]
    chosen = [
        each for each, is_worst in zip(of_epsilon, worst, strict=True) if is_worst == (kind != "strongest")
    ]
    return min(100 * each["correct"] / each["total"] for each in chosen)


def test_figures_of_the_guide_to_numbers_are_those_of_the_results():
    text = (DOCS / "numbers.md").read_text()
    marked = re.findall(r"<!-- (\w+) (\S+) ([\d.]+)(?: (\w+))? -->([\d.]+) %", text)
    for result, target, epsilon, kind, shown in marked:
        assert f"{published(result, target, epsilon, kind or 'strongest'):.1f}" == shown, (result, target)
    assert len(marked) == len(re.findall(r"\d %", text)) > 0, "every percentage has its mark"
    for interval in re.findall(r"\[\d+\.\d-[\d.]+\]", text):
        assert interval in (ROOT / "runs" / "results" / "demo" / "README.md").read_text()
