"""Comparisons from records made by hand: every figure worked out here, or by SciPy."""

import csv
import json
import statistics

import numpy as np
import pytest
import scipy.stats
from evaluation_records import IMAGES, record, trial

from divtf.reporting.comparison import (
    cell_of,
    comparison_columns,
    comparison_csv,
    comparison_markdown,
    comparison_tables,
    comparison_text,
)
from divtf.reporting.figures.comparison import comparison_figure
from divtf.storage.evaluations import QUERY, TRANSFER, WHITE_BOX, ComparisonRecord
from divtf.storage.records import CLEAN, WORST_CASE, TargetRecord, TransferResult

FAILED = {"name": "gradients", "passed": False, "figure": 0.5, "sentence": "Half of them are zero."}
LEAK = {"model": "plain", "attack": "fgsm", "epsilon": 0.1, "total": 99, "right": 90, "right clean": 50} | {
    "only attacked": 40,
    "only clean": 0,
}
# Numbers of the images that each attacker fools: of the reference, and of another target.
OURS = {"plain": {0, 1}, "div": {1, 2}, "white": {3}, "square": {4}}
THEIRS = {"plain": {0, 1, 2, 3, 4}, "div": {2, 5}, "white": {6}, "square": set()}


def trials(fooled):
    return [
        trial(TRANSFER, fooled["plain"], surrogate="plain"),
        trial(TRANSFER, fooled["div"], surrogate="div"),
        trial(WHITE_BOX, fooled["white"]),
        trial(QUERY, fooled["square"], tried=range(6), attack="square", gradients=0, queries=9),
    ]


def evaluation(target, fooled, **told):
    return record(target, trials(fooled), query_images=6, **told)


def run(target, seed=0, hours=0.5, coherence=(0.2, 0.4), **told):
    clean = TransferResult(target, "", CLEAN, 0.0, 8, 8)
    provenance = {"command": "train it", "hours": hours}
    return TargetRecord(
        target, "conv3", "mnist", seed, (clean,), coherence=coherence, provenance=provenance, **told
    )


RUNS = [run("T_Ens+Div"), run("T_Div", hours=0.25, coherence=(-0.5,), on_static_models=(LEAK,))]
EVALUATIONS = [evaluation("T_Ens+Div", OURS), evaluation("T_Div", THEIRS, wrong={7}, checks=(FAILED,))]


def compared(runs, evaluations):
    pairs = zip(runs, evaluations, strict=True)
    return [ComparisonRecord.of(run, evaluation, "T_Ens+Div") for run, evaluation in pairs]


COMPARED = compared(RUNS, EVALUATIONS)


def left(*sets, of=IMAGES, wrong=frozenset()):
    return 100 * (of - len(set().union(*sets, wrong) & set(range(of)))) / of


def values(records):
    lines = csv.DictReader(comparison_csv(records).splitlines())
    return {(line["target"], line["column"]): line for line in lines}


def test_columns_are_what_is_left_by_surrogate_by_kind_and_in_all():
    found = values(COMPARED)
    for target, sets, wrong in (("T_Ens+Div", OURS, set()), ("T_Div", THEIRS, {7})):
        expected = {
            CLEAN: left(wrong=wrong),
            "on plain": left(sets["plain"], wrong=wrong),
            "on div": left(sets["div"], wrong=wrong),
            TRANSFER: left(sets["plain"], sets["div"], wrong=wrong),
            WHITE_BOX: left(sets["white"], wrong=wrong),
            QUERY: left(sets["square"], of=6, wrong=wrong),
            WORST_CASE: left(*sets.values(), wrong=wrong),
        }
        assert {column for name, column in found if name == target} == set(expected)
        for column, accuracy in expected.items():
            assert float(found[target, column]["accuracy"]) == pytest.approx(accuracy), column
    assert float(found["T_Div", WORST_CASE]["hours"]) == 0.25
    assert float(found["T_Ens+Div", WORST_CASE]["coherence"]) == pytest.approx(0.3)


def test_own_surrogates_are_all_but_those_that_are_trained_as_another_target():
    fooled = {"plain": {0}, "same as T_Ens+Div": {1, 2}, "same as T_Div": {3, 4, 5}}
    tried = [trial(TRANSFER, numbers, surrogate=name) for name, numbers in fooled.items()]
    found = values(compared(RUNS, [record("T_Ens+Div", tried), record("T_Div", tried)]))
    own = {name: float(found[name, "on own surrogates"]["accuracy"]) for name in ("T_Ens+Div", "T_Div")}
    assert own == {"T_Ens+Div": left({0, 1, 2}), "T_Div": left({0, 3, 4, 5})}
    assert float(found["T_Div", "on own surrogates"]["difference"]) == own["T_Div"] - own["T_Ens+Div"]
    assert float(found["T_Div", WORST_CASE]["accuracy"]) == left({0, 1, 2, 3, 4, 5})


def test_difference_is_paired_with_the_reference():
    ours, theirs = set().union(*OURS.values()), set().union(*THEIRS.values()) | {7}
    worse, better = len(theirs - ours), len(ours - theirs)
    line = values(COMPARED)["T_Div", WORST_CASE]
    assert float(line["difference"]) == pytest.approx(100 * (better - worse) / IMAGES)
    p = scipy.stats.binomtest(better, better + worse).pvalue
    assert float(line["p"]) == pytest.approx(p)
    row = next(text for text in comparison_markdown(COMPARED).splitlines() if "| T_Div" in text)
    assert f"| {100 * (better - worse) / IMAGES:+.1f}, p = {p:.2g} |" in row
    by_transfer = values(COMPARED)["T_Div", TRANSFER]
    shown = f"{float(by_transfer['difference']):+.1f}, p = {float(by_transfer['p']):.2g}"
    assert f"| {shown} |" in row.partition("p = ")[2] and by_transfer != line
    # The reference is not compared with itself.
    assert values(COMPARED)["T_Ens+Div", WORST_CASE]["difference"] in ("", "0.0")


def test_several_seeds_give_mean_and_deviation_of_the_paired_difference():
    runs = [run(target, seed) for target in ("T_Ens+Div", "T_Div") for seed in (0, 1)]
    evaluations = [
        evaluation("T_Ens+Div", OURS),
        evaluation("T_Ens+Div", THEIRS, seed=1),
        evaluation("T_Div", THEIRS),
        evaluation("T_Div", OURS, seed=1),
    ]
    (ours, theirs) = (left(*OURS.values()), left(*THEIRS.values()))
    differences = [theirs - ours, ours - theirs]
    line = values(compared(runs, evaluations))["T_Div", WORST_CASE]
    assert (line["seeds"], float(line["difference"])) == ("2", statistics.fmean(differences))
    assert float(line["deviation"]) == pytest.approx(statistics.stdev([theirs, ours]))
    ours, theirs = set().union(*OURS.values()), set().union(*THEIRS.values())
    p = scipy.stats.binomtest(len(ours - theirs), len(ours ^ theirs)).pvalue
    assert [float(each) for each in line["p"].split("; ")] == pytest.approx([p, p])
    text = comparison_markdown(compared(runs, evaluations))
    assert f"+0.0 ±{statistics.stdev(differences):.1f} n=2" in text


def test_marks_and_notes_say_what_stands_behind():
    text = comparison_markdown(COMPARED)
    assert "| T_Div † ‡ |" in text and "| T_Ens+Div |" in text
    for told in (
        "the first 8 test images",
        "in the column query the first 6",
        "Surrogate plain: seed 1",
        "Command: train it",
    ):
        assert told in text
    assert "secret" not in text
    lines = values(COMPARED)
    assert (lines["T_Div", CLEAN]["marks"], lines["T_Ens+Div", CLEAN]["marks"]) == ("† ‡", "")
    (unasked,) = compared(RUNS[1:], [record("T_Div", trials(THEIRS)[:-1], query_images=0)])
    assert "the first 8 test images. An image" in comparison_markdown([unasked])


def test_records_travel_as_json_without_detection():
    found = {"curves": [], "clean": {"images": 8}}
    (whole,) = compared(RUNS[1:], [evaluation("T_Div", THEIRS, checks=(FAILED,), detection=found)])
    again = ComparisonRecord.from_json(json.loads(json.dumps(whole.to_json())))
    assert again.detection == {} and again.reference == "T_Ens+Div"
    assert (again.coherence, again.on_static_models) == ((-0.5,), (LEAK,))
    assert comparison_csv([again]) == comparison_csv([whole])
    assert comparison_markdown([again]) == comparison_markdown([whole])


def test_console_has_the_tables_alone():
    text = comparison_text(COMPARED)
    assert text.startswith("conv3 on mnist: what is left, %\n") and len(text.splitlines()) == 4


def test_picture_has_every_cell_and_its_bars():
    """One panel; in every column a marker at the accuracy of each target, with its interval."""
    (band,) = comparison_figure(COMPARED).subfigs
    (axes,) = band.axes
    assert (band.get_suptitle(), axes.get_title()) == ("conv3 on mnist", "epsilon 0.1")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["T_Div † ‡", "T_Ens+Div"]
    columns = [text.get_text() for text in band.legends[0].get_texts()]
    assert columns == [CLEAN, "on plain", "on div", TRANSFER, WHITE_BOX, QUERY, "everything"]
    (table,) = comparison_tables(COMPARED)
    for drawn, name in zip(axes.containers, (CLEAN, *comparison_columns(table)), strict=True):
        markers, _, (bars,) = drawn.lines
        cells = [cell_of(row, name, 0.1) for row in table.rows]
        assert markers.get_xdata() == pytest.approx([cell.accuracy for cell in cells])
        assert [round(place) for place in markers.get_ydata()] == [0, 1]
        ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
        assert np.array(ends) == pytest.approx(np.array([cell.bounds for cell in cells]))
