"""The marks of a target at its figures, in every output of a result, whichever record tells of them."""

import csv
import dataclasses
import functools
import html
import json
import re
from pathlib import Path

import page_records
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from divtf.reporting import plain_text, published, report
from divtf.reporting.evaluation import evaluation_text
from divtf.reporting.figures import style
from divtf.reporting.marks import marks, name_of, names_of
from divtf.reporting.page import index, writing
from divtf.reporting.page.content import Result, finding
from divtf.reporting.table_data import CSV_FIELDS, table_csv, table_json

LEAK = {"model": "plain", "attack": "fgsm", "epsilon": 0.1, "total": 99, "right": 90, "right clean": 50} | {
    "only attacked": 40,
    "only clean": 0,
}


def unchecked(record, protocol="transfer"):
    """What a protocol without checks finds on the same target."""
    return dataclasses.replace(record, protocol=protocol, checks=(), detection={})


def of_both(records):
    """Records of T_Div, and the same of T_Base."""
    return [*records, *(dataclasses.replace(each, **page_records.common("T_Base")) for each in records)]


# Of T_Base a check failed: its record of protocol strong tells of it, and nothing else. T_Div leaks labels:
# that of the table tells of it.
MARKS = {"T_Base": "†", "T_Div": "‡"}
STRONG, TRANSFER = page_records.EVALUATIONS, list(map(unchecked, page_records.EVALUATIONS))
TABLE = [page_records.TABLE[0], dataclasses.replace(page_records.TABLE[1], on_static_models=(LEAK,))]
RECORDS = page_records.RECORDS | {
    "table": TABLE,
    "evaluation": [*STRONG, *TRANSFER],
    "comparison": [unchecked(record, "dverge") for record in page_records.COMPARED],
    "sparsity": of_both(page_records.SPARSITY),
    "examples": of_both(page_records.EXAMPLES),
}


def drawn(figure):
    """Every text of a picture, in place of the picture."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(Text)).encode()


BESIDE = [record for group in RECORDS.values() for record in group]
PUBLISHED = {kind: RECORDS[kind] for kind in published.KINDS}


def output(file, patch):
    patch.setattr(published, "OUTPUTS", {file: published.OUTPUTS[file]})
    return published.contents(PUBLISHED)[file].decode()


def written(name, patch):
    shown = {key: picture for key, picture in report.PICTURES.items() if key == name}
    patch.setattr(report, "PICTURES", shown)
    return report.write_report(Path("report"), TABLE, BESIDE)[name].read_text()


def seen(text):
    """What a page shows: its text without tags, and what charts tell of their points."""
    specs = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    told = [point["words"] for spec in specs for point in json.loads(spec)["data"]["values"]]
    text = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    return html.unescape("\n".join([re.sub(r"<[^>]*>", "", re.sub(r"</[^>]*>", "\n", text)), *told]))


def page(_):
    """Without what names targets and gives no figures: switches, checks, how it was made, sources."""
    text = re.sub(r"<fieldset.*?</fieldset>", "", writing.page(Result("t", RECORDS)), flags=re.DOTALL)
    without = ("signs of masked gradients</h3>", "How it was made</h3>", "How to read this</h2>")
    parts = [part for part in re.split(r"(?=<h[23] )", text) if not any(name in part for name in without)]
    matrix = r'(<table class="heat"><caption>epsilon.*?</thead>).*?</table>'
    return seen(re.sub(matrix, r"\1", "".join(parts), flags=re.DOTALL))


def index_entry(records, _):
    entry = index.entry_of(Result("t", records), "t", "", "")
    told = [*(stroke.words for stroke in entry.strokes), *(finding for _, finding, _ in entry.findings)]
    return "\n".join([*entry.looks, *told])


# Name -> what gives its text.
OUTPUTS = {
    **{file: functools.partial(output, file) for file in published.OUTPUTS},
    **{
        f"report, {name}": functools.partial(written, name)
        for name in ("report", "data", "picture", "table", *report.PICTURES)
    },
    **{
        f"README, {kind}": lambda _, kind=kind: published.section({kind: RECORDS[kind]}, BESIDE)
        for kind in published.KINDS
    },
    "README": lambda _: published.section(PUBLISHED),
    "README of a protocol": lambda _: published.section({"evaluation": TRANSFER}, BESIDE),
    "main page": lambda _: published.demo_section(PUBLISHED, "d"),
    "index of what is published": lambda _: published.index_section({"r": PUBLISHED}, {"r": "R"}),
    "table, console": lambda _: plain_text.table_text(TABLE, BESIDE),
    "evaluation, console": lambda _: evaluation_text(TRANSFER, BESIDE),
    "finding of an evaluation": lambda _: finding({kind: RECORDS[kind] for kind in ("evaluation", "table")}),
    "page": page,
    "index of pages": functools.partial(index_entry, RECORDS),
    "index of pages, comparison": functools.partial(
        index_entry, {"table": TABLE, "comparison": page_records.COMPARED}
    ),
}
NAME = r"T_(?:Base|Div)"
# Where a target is named, and none of its figures stands.
NO_FIGURES = [
    r"T_Div also trains on noisy images, and so for twice as many steps as\s+T_Base",
    r"(?m)^.*\b(Budget|Command|Commit|Hours|train|Surrogate)\b.*$",
    rf"{NAME}, (paper|difference)",
    rf"{NAME}, seed 0 \| passed",
    rf"On images of {NAME}|beside {NAME}|Against {NAME}|† {NAME}:",
    rf"images made on\n(\n{NAME})+",
    rf"{NAME} on test images of its\s+own static models",
]


# They have the marks beside the name.
DATA = ("table.csv", "comparison.csv", "report, table", "report, data")


@pytest.fixture
def patch(monkeypatch, tmp_path):
    """Pictures are their texts."""
    monkeypatch.setattr(style, "png", drawn)
    monkeypatch.setattr(report, "png", drawn)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name not in DATA])
def test_every_output_has_a_targets_mark_at_its_figures(name, patch):
    """And no other mark. Where each figure has it, the name has none."""
    text = OUTPUTS[name](patch)
    for pattern in NO_FIGURES:
        text = re.sub(pattern, "", text)
    for target, mark in MARKS.items():
        at_figures = rf"{target}(?=[ |\n]+([\d.]+[ |\n]+)?[\d.]+{mark}(?![†‡]))"
        left, count = re.subn(rf"{at_figures}|{re.escape(target)} {mark}(?! ?[†‡])", "", text)
        assert count and re.findall(rf"{target}.{{0,40}}", left) == []


@pytest.mark.parametrize("name", DATA)
def test_data_has_the_mark_beside_the_name(name, patch):
    text = OUTPUTS[name](patch)
    if name == "report, data":
        (table,) = json.loads(text)
        found = {row["target"]: row["marks"] for row in table["rows"]}
        assert any(line.startswith("T_Div ‡ over T_Base †, points") for line in table["caption"])
    else:
        found = {line["target"]: line["marks"] for line in csv.DictReader(text.splitlines())}
    assert found == MARKS


def test_data_without_marks_is_as_it_was():
    assert table_csv(page_records.TABLE, TRANSFER).splitlines()[0] == ",".join(CSV_FIELDS)
    (table,) = json.loads(table_json(page_records.TABLE, TRANSFER))
    assert all(set(row) == {"target", "seeds", "cells"} for row in table["rows"])


def changed(record, **changes):
    return dataclasses.replace(record, **changes)


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ([], ""),
        ([STRONG[0]], "†"),
        ([TRANSFER[0]], ""),
        ([STRONG[1], TRANSFER[0], STRONG[0]], "†"),
        ([changed(STRONG[0], provenance={"weights": "others"})], ""),
        ([changed(STRONG[0], provenance={})], "†"),  # Older records do not tell.
        ([changed(STRONG[0], seed=1)], ""),
        ([changed(STRONG[0], target="T_Div")], ""),
        ([changed(STRONG[0], model="conv4")], ""),
        ([changed(page_records.TABLE[0], on_static_models=(LEAK,))], "‡"),
        ([changed(unchecked(page_records.COMPARED[0]), on_static_models=(LEAK,)), STRONG[0]], "† ‡"),
    ],
)
def test_what_is_known_of_the_same_weights_marks_them(beside, expected):
    for own in (page_records.TABLE[0], TRANSFER[0], page_records.GAAS[0], page_records.EXAMPLES[0]):
        own = changed(own, **page_records.common("T_Base"))
        assert " ".join(marks([own], beside)) == expected
        assert name_of([own], beside) == f"T_Base {expected}".strip()


def test_a_mark_of_one_seed_is_that_of_all():
    seeds = [changed(page_records.TABLE[0], seed=seed) for seed in (0, 1)]
    others = [changed(page_records.TABLE[1], seed=1)]
    assert names_of([*others, *seeds], STRONG) == {"T_Base": "T_Base †", "T_Div": "T_Div"}


@pytest.mark.parametrize("name", ["README, table", "main page", "table, console"])
def test_a_mark_is_explained_where_no_checks_are(name, patch):
    words = " ".join(OUTPUTS[name](patch).split())
    assert "† T_Base: an evaluation has found signs of masked gradients, by which attacks may look" in words


def test_a_mark_without_checks_of_its_own_protocol_is_explained():
    told = "- † T_Base: an evaluation has found signs of masked gradients, by which attacks may look weaker"
    assert told in published.section({"evaluation": TRANSFER}, STRONG)
    assert "†" not in published.section({"evaluation": TRANSFER})
    assert told not in published.section({"evaluation": STRONG})
