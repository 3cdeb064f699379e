"""Table 2's command with several seeds: its files against NumPy."""

import csv
import json
import re

import numpy as np
import pytest
import tiny
from absl import flags
from logged import logged

from divtf.commands import command_line, config_flags, table2
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.storage import run_directory
from divtf.storage.records import CLEAN, WORST_CASE

SEEDS, ATTACKS, EPSILONS = (0, 1, 2), ("fgsm", "rfgsm"), (0.1, 0.3)


pytestmark = pytest.mark.usefixtures("tiny_world")


def parsed(*arguments):
    values = flags.FlagValues()
    config_flags.define_flags(values)
    table2.define_flags(values)
    command_line.parse(["command", "--models=tiny", "--num_members=2", *arguments], values)
    return table2.configs_from_flags(values)


def parts(root):
    return parsed(
        *("--modes=base", "--seeds=0,1,2", "--batch_size=24", "--learning_rate=0.01"),
        *(f"--attacks={','.join(ATTACKS)}", f"--run_dir={root}"),
    )


def test_one_label_for_several_modes_is_refused():
    """They would share a run directory, of which the second would be refused once the first is trained."""
    with pytest.raises(InputError, match=r"^Expected --label for a single target .* Received: --label=foo$"):
        parsed("--modes=base,div", "--label=foo")
    (first, second) = parsed("--modes=base", "--label=foo", "--seeds=0,1")
    assert (first.target, second.target) == ("foo", "foo") and first.run_dir != second.run_dir


def a_run_of_other_epochs(directory, config):
    with run_directory.open_run(directory, config.identity() | {"epochs": 99}, resume=False):
        pass


def a_file(directory, config):
    directory.write_text("mine")


def other_files(directory, config):
    directory.mkdir()
    (directory / "mine.txt").write_text("mine")


@pytest.mark.parametrize(
    ("taken_by", "received"),
    [
        (a_run_of_other_epochs, r".* with epochs=99 there, 2 here"),
        (a_file, r".*, which is a file"),
        (other_files, r".*, which holds other files"),
    ],
)
def test_directory_of_something_else_is_refused_before_anything_is_trained(taken_by, received, tmp_path):
    *earlier, last = parts(tmp_path)
    taken_by(tmp_path / last.name, last)
    with pytest.raises(InputError, match=rf"^Expected .* Received: {received}$"):
        table2.main([*earlier, last])
    assert [path.name for path in tmp_path.iterdir()] == [last.name]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("table2")
    table2.main(parts(root))
    return root


@pytest.fixture(scope="module")
def accuracies(root):
    """(target, attack, epsilon) -> accuracy in percent of each seed, from the files of the runs."""
    found = {}
    for seed in SEEDS:
        results = json.loads((root / f"stripes-tiny-base-seed{seed}" / run_directory.RESULTS).read_text())
        for result in results["results"]:
            key = "T_Base", result["attack"], result["epsilon"]
            found.setdefault(key, []).append(100 * result["correct"] / result["total"])
    assert len(found) == 1 + 3 * 2 and {len(values) for values in found.values()} == {3}
    assert any(np.std(values) > 0 for values in found.values())
    return found


def strongest(accuracies, target, attack, epsilon):
    """Whether the attack has the lowest mean of the attacks on that target at that epsilon."""
    if attack in (CLEAN, WORST_CASE):
        return False
    means = {name: np.mean(accuracies[target, name, epsilon]) for name in ATTACKS}
    return bool(np.isclose(means[attack], min(means.values())))


def test_json_has_mean_deviation_and_strongest_attack(root, accuracies):
    [table] = json.loads((root / "table.json").read_text())
    assert [(row["target"], row["seeds"]) for row in table["rows"]] == [("T_Base", [0, 1, 2])]
    cells = {
        (row["target"], cell["attack"], cell["epsilon"]): cell
        for row in table["rows"]
        for cell in row["cells"]
    }
    assert cells.keys() == accuracies.keys()
    for key, values in accuracies.items():
        cell, mean, deviation = cells[key], np.mean(values), np.std(values, ddof=1)
        assert (cell["accuracy"], cell["deviation"]) == pytest.approx((mean, deviation))
        assert (cell["low"], cell["high"]) == pytest.approx((mean - deviation, mean + deviation))
        assert (cell["seeds"], cell["strongest"]) == (3, strongest(accuracies, *key))


def test_csv_has_every_seed_beside_mean_and_deviation(root, accuracies):
    with (root / "table.csv").open() as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 3 * len(accuracies)
    for line in lines:
        key = line["target"], line["attack"], float(line["epsilon"])
        values = accuracies[key]
        assert 100 * float(line["accuracy"]) == pytest.approx(values[SEEDS.index(int(line["seed"]))])
        assert 100 * float(line["mean"]) == pytest.approx(np.mean(values), abs=1e-4)
        assert 100 * float(line["deviation"]) == pytest.approx(np.std(values, ddof=1), abs=1e-4)
        assert line["strongest"] == str(int(strongest(accuracies, *key)))


def test_markdown_has_mean_and_deviation_with_the_strongest_in_bold(root, accuracies):
    text = (root / "report.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    header, _, *body = rows
    assert header[:5] == ["target", "clean", *ATTACKS, "worst case"]
    assert [row[0] for row in body] == ["T_Base"]
    for row in body:
        for name, cell in zip(["clean", *ATTACKS, WORST_CASE], row[1:5], strict=True):
            numbers, spreads = re.fullmatch(r"(.*)<br><sub>(.*)</sub>", cell).groups()
            epsilons = (0.0,) if name == "clean" else EPSILONS
            for number, spread, epsilon in zip(
                numbers.split(" / "), spreads.split(" / "), epsilons, strict=True
            ):
                values = accuracies[row[0], name, epsilon]
                mark = "**" if strongest(accuracies, row[0], name, epsilon) else ""
                assert number == f"{mark}{np.mean(values):.1f}{mark}"
                assert spread == f"±{np.std(values, ddof=1):.1f} n=3"
    assert "seeds: 0, 1, 2" in text and "standard deviation over n seeds" in text
    assert "REDUCED" in text and re.search(r"Hours of training, .*T_Base [\d.e-]+ \(3 seeds\)", text)


def test_picture_is_written(root):
    assert (root / "table.png").read_bytes().startswith(b"\x89PNG")


def test_second_call_trains_attacks_and_loads_nothing(root, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("done again")

    monkeypatch.setattr(Ensemble, "fit", fail)
    monkeypatch.setattr(AdversarialSets, "_make", fail)
    monkeypatch.setattr(tiny, "load", fail)
    monkeypatch.setattr("divtf.pipeline.experiment.load_dataset", fail)
    names = ("report.md", "report.html", "table.csv", "table.json", "table.png")
    before = {name: (root / name).read_bytes() for name in names}
    kept = {path: path.stat().st_mtime_ns for path in root.glob("stripes-*/report.md")}
    assert len(kept) == 3
    with logged() as lines:
        table2.main(parts(root))
    assert {name: (root / name).read_bytes() for name in names} == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "reports that are there stay"
    assert sum("finished before" in line for line in lines) == 3


def test_report_that_was_lost_is_written_again(root):
    directory = root / "stripes-tiny-base-seed0"
    before = (directory / "report.md").read_bytes()
    (directory / "report.md").unlink()
    table2.main(parts(root)[:1])
    assert (directory / "report.md").read_bytes() == before
