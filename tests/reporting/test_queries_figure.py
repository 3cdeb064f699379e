"""Accuracy against queries: the curve by hand and by counting, and the picture's lines."""

import dataclasses

import numpy as np
import pytest
from evaluation_records import IMAGES, record, trial

from divtf.reporting.figures.queries import queries_figure, query_curve
from divtf.reporting.figures.style import target_style
from divtf.reporting.page.charts import query_charts
from divtf.reporting.page.specs import series_styles
from divtf.storage.evaluations import QUERY, TRANSFER


def asked(target, taken, *, queries=9, epsilon=0.1, seed=0, count=None, more=()):
    """A record of Square on the first `count` images: those not in `taken` are wrong when clean."""
    count = len(taken) if count is None else count
    numbers = range(len(taken))
    fooled = {number for number in numbers if taken[number] <= queries}
    told = {"attack": "square", "queries": queries, "gradients": 0, "queries_taken": tuple(taken)}
    made = trial(QUERY, fooled, tried=numbers, epsilon=epsilon, **told)
    wrong = range(len(taken), count)
    return record(target, [made, *more], wrong=wrong, query_images=count, seed=seed)


def test_curve_by_hand():
    """Of five images one is wrong, two fall to queries 1 and 4, two stand after 9."""
    counts, accuracy = query_curve([asked("T_Div", [4, 10, 1, 10], count=5)], 0.1)
    assert counts.tolist() == [0, 1, 4, 9]
    assert accuracy.tolist() == [80, 60, 40, 40]


def test_curve_of_all_seeds_is_counted_image_by_image(rng):
    records = []
    for seed, right in enumerate((6, 0, 8, 3)):
        taken = [int(count) for count in rng.integers(1, 11, right)]
        records.append(asked("T_Div", taken, seed=seed, count=8))
    taken = [count for made in records for t in made.trials for count in t.queries_taken]
    counts, accuracy = query_curve(records, 0.1)
    assert (counts[0], counts[-1]) == (0, 9)
    known = dict(zip(counts, accuracy, strict=True))
    for allowed in range(10):
        left = 100 * sum(count > allowed for count in taken) / 32
        place = max(count for count in counts if count <= allowed)
        assert known[place] == pytest.approx(left), allowed


def test_others_than_the_first_images_do_not_count():
    """They were asked for where they had withstood all else, so they would flatter the target."""
    told = {"attack": "square", "queries": 9, "gradients": 0}
    made = trial(QUERY, {1, 6}, tried=[0, 1, 2, 6, 7], queries_taken=(10, 4, 10, 2, 10), **told)
    counts, accuracy = query_curve([record("T_Div", [made], wrong={3}, query_images=4)], 0.1)
    assert (counts.tolist(), accuracy.tolist()) == ([0, 4, 9], [75, 50, 50])


def test_a_target_that_is_never_right_is_at_zero():
    counts, accuracy = query_curve([asked("T_Base", [], count=4)], 0.1)
    assert (counts.tolist(), accuracy.tolist()) == ([0, 9], [0, 0])


def test_other_epsilons_and_kinds_do_not_count():
    others = [
        trial(TRANSFER, {0}, surrogate="plain"),
        trial(QUERY, {0}, epsilon=0.3, queries=99, queries_taken=(50,) * IMAGES),
    ]
    alone, among = (query_curve([asked("T_Div", [4, 10], more=more)], 0.1) for more in ([], others))
    np.testing.assert_array_equal(alone, among)


def test_picture_has_a_line_for_each_target():
    records = [asked("T_Div", [4, 10, 10]), asked("T_Base", [1, 2, 10]), asked("T_Base", [3, 3, 3], seed=1)]
    figure = queries_figure(records)
    (band,) = figure.subfigs
    (axes,) = band.axes
    assert band.get_suptitle() == "conv3 on mnist" and axes.get_title() == "epsilon 0.1"
    assert axes.get_ylabel() == "accuracy on the first 3, %"
    lines = axes.get_lines()
    assert [line.get_color() for line in lines] == [
        target_style(name, ["T_Base", "T_Div"])[0] for name in ("T_Base", "T_Div")
    ]
    for line, name in zip(lines, ("T_Base", "T_Div"), strict=True):
        counts, accuracy = query_curve([r for r in records if r.target == name], 0.1)
        assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == (
            counts.tolist(),
            accuracy.tolist(),
        )
        # A query that fools counts from itself on.
        assert line.get_drawstyle() == "steps-post"
    (legend,) = band.legends
    assert [text.get_text() for text in legend.get_texts()] == ["T_Base", "T_Div"]


def test_a_failed_check_is_a_mark_in_the_picture_and_in_the_chart_of_the_page():
    failed = dataclasses.replace(asked("T_Base", [1, 2, 10]), checks=({"passed": False},))
    records = [failed, asked("T_Div", [4, 10, 10])]
    (band,) = queries_figure(records).subfigs
    assert [text.get_text() for text in band.legends[0].get_texts()] == ["T_Base †", "T_Div"]
    (chart,) = query_charts(records, series_styles(["T_Base", "T_Div"]))
    assert "T_Base †, T_Div" in chart.words
    told = [point["words"] for point in chart.spec["data"]["values"]]
    assert {words.split(",")[0] for words in told} == {"T_Base †", "T_Div"}


def test_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="Expected records of attacks by queries"):
        queries_figure([record("T_Div", [trial(TRANSFER, {0}, surrogate="plain")])])
