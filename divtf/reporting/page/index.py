"""The index of results: finding, small picture, date and budget of each, and what they are chosen by."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divtf.data.paper import TARGETS
from divtf.reporting.entries import entry
from divtf.reporting.evaluation import evaluation_table
from divtf.reporting.marks import marked_tables, names_of
from divtf.reporting.page.content import Result, finding
from divtf.reporting.page.findings import caveats
from divtf.reporting.page.specs import Looks, styles
from divtf.reporting.page.writing import render
from divtf.reporting.tables import Row, Table, in_order
from divtf.storage import files
from divtf.storage.records import CLEAN, WORST_CASE

INDEX = "index.html"
_BUDGET = ("members", "epochs", "training images", "attacked images")
# Of a small picture, in its own units.
_WIDTH, _HEIGHT, _EDGE = 240, 120, 8


@dataclasses.dataclass(frozen=True)
class Stroke:
    """A target's line in a small picture: its colour, its dash, its points, and what it shows in words."""

    colour: str
    dash: str
    points: str
    words: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """A result in the index.

    Attributes:
        title: its name.
        href: its page, seen from the index; "" where it has none.
        findings: (model and data set, the sentence, what belongs beside it) of each table.
        date: when it was made, as 2026-11-26; "" where that is not known.
        budget: in words.
        choices: "model", "dataset", "defence" -> those that are in it.
        strokes: of its small picture, accuracy against epsilon of its first table.
        looks: name, with its marks -> the style of each defence, as in the picture and on the page.
    """

    title: str
    href: str
    findings: Sequence[tuple[str, str, str]]
    date: str
    budget: str
    choices: Mapping[str, Sequence[str]]
    strokes: Sequence[Stroke]
    looks: Looks


def entry_of(result: Result, title: str, href: str, date: str) -> Entry:
    """What the index says of a result."""
    records = [record for group in result.records.values() for record in group]
    of = {subject: result.of(subject) for subject in result.subjects}
    findings = [(subject, finding(found), caveats(found)) for subject, found in of.items()]
    choices = {
        "model": [record.model for record in records],
        "dataset": [record.dataset for record in records],
        "defence": [record.target for record in records],
    }
    distinct = {name: list(dict.fromkeys(values)) for name, values in choices.items()}
    looks = styles(in_order(distinct["defence"], TARGETS))
    strokes = _strokes(next(iter(of.values())), looks)
    names = names_of(records, records)
    written = {names[target]: style for target, style in looks.items()}
    return Entry(title, href, findings, date, _budget(records), distinct, strokes, written)


def _budget(records: Sequence[Any]) -> str:
    """The entries of the budgets that tell most, with all their values where targets differ."""
    parts = []
    for name in _BUDGET:
        values = dict.fromkeys(record.budget[name] for record in records if name in record.budget)
        if values:
            parts.append("; ".join(entry(name, value) for value in values))
    return ", ".join(parts) or "not recorded"


def _strokes(of: Mapping[str, Sequence[Any]], looks: Looks) -> list[Stroke]:
    """Accuracy against epsilon: what is left under everything, else the worst case of the table."""
    evaluations, targets = of.get("evaluation", ()), of.get("table", ())
    beside = [record for group in of.values() for record in group]
    if evaluations:
        first = [record for record in evaluations if record.table == evaluations[0].table]
        table = evaluation_table(first, beside)
        column = WORST_CASE
    elif targets:
        (table,) = marked_tables(targets, beside)
        column = table.worst_cases[0] if table.worst_cases else next(iter(table.attacks), CLEAN)
    else:
        return []
    strokes = []
    for row in table.rows:
        places, words = _places(table, row, column)
        dash = " ".join(map(str, looks[row.target].dash)) if looks[row.target].dash[1] else "none"
        strokes.append(Stroke(looks[row.target].colour, dash, places, f"{row.name}: {words}"))
    return strokes


def _places(table: Table, row: Row, column: str) -> tuple[str, str]:
    widest = max(table.epsilons, default=1.0)
    points, words = [], []
    for epsilon, name in [(0.0, CLEAN), *((epsilon, column) for epsilon in table.epsilons)]:
        if cell := row.cell(name, epsilon):
            x = _EDGE + (_WIDTH - 2 * _EDGE) * epsilon / widest
            y = _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * cell.accuracy / 100
            points.append(f"{x:.1f},{y:.1f}")
            words.append(f"{cell.accuracy:.1f} % at {epsilon:g}")
    return " ".join(points), ", ".join(words)


def write_index(root: Path, entries: Sequence[Entry]) -> Path:
    """Write the index of a directory, the newest result first; returns its path.

    Raises:
        OSError: if it cannot be written.
    """
    newest_first = sorted(entries, key=lambda each: (each.date, each.title), reverse=True)
    choices = {
        name: sorted({value for each in entries for value in each.choices[name]})
        for name in ("model", "dataset", "defence")
    }
    path = root / INDEX
    values = {"title": root.resolve().name, "entries": newest_first, "choices": choices}
    files.write_file(path, render("index.html", **values))
    return path
