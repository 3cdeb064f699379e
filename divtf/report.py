"""Report: records -> tables in text and Markdown, and a folder that holds them with the plots and data.

This module reads records only and imports no TensorFlow, so that any machine can make a report.
"""

import dataclasses
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from divtf import files, paper
from divtf.captions import budgets, coherence, commits, gain, hours, measure, provenance, quantity, signed
from divtf.plots import accuracy_figure, coherence_figure, pair_cosine_figure, png
from divtf.records import CLEAN, WORST_CASE, TargetRecord
from divtf.table_data import table_csv, table_json
from divtf.table_picture import table_figure
from divtf.tables import Cell, Row, Table, tables

__all__ = [
    "accuracy_figure",
    "coherence_figure",
    "pair_cosine_figure",
    "table_csv",
    "table_figure",
    "table_json",
    "table_markdown",
    "table_text",
    "write_report",
]

REPORT = "report.md"
WIDTH = 118
READING = """\
## How to read this

- An accuracy under attack is that of the target on images made on a *surrogate*: an ensemble trained apart.
  It tells how well attacks transfer. It is no white-box robustness: an attacker who has the target's own
  gradients is a stronger one, and is not measured here.
- The worst case counts an image as correct only if the target withstands every attack of that epsilon on
  it; it is never above the strongest single attack, which is what bold marks.
- *Saturated* is the share of images for which the loss of every surrogate member is below 1e-7. Softmax's own
  gradient is partly rounding noise there in single precision. Attacks here take logits relative to the true
  class, which keeps the direction down to losses near 1e-38; figures of attacks that do not may differ by
  points where this share is large.
- A Wilson interval covers the choice of test images only. What another training run would give shows in the
  standard deviation over seeds, where there are several.
- Coherence is the largest cosine similarity between the input gradients of two members (Eq. 7): low means
  that what fools one member need not fool another. It is measured on clean test images.
"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot of a report: its title, what draws it, and whether records hold values for it."""

    title: str
    draw: Callable[[Sequence[TargetRecord]], Any]
    has_values: Callable[[Sequence[TargetRecord]], bool]


# In the order of the report.
PICTURES = {
    "accuracy": Picture(
        "Accuracy against epsilon",
        accuracy_figure,
        lambda records: any(table.columns for table in tables(records)),
    ),
    "coherence": Picture(
        "Distribution of coherence (paper, Figure 4)",
        coherence_figure,
        lambda records: any(record.coherence for record in records),
    ),
    "pair_cosines": Picture(
        "Mean cosine similarity of the members' input gradients (Eq. 6)",
        pair_cosine_figure,
        lambda records: any(record.pair_cosines for record in records),
    ),
}


def table_text(records: Iterable[TargetRecord]) -> str:
    """Table 2 for the console: plain text, aligned, one block for each model and dataset.

    Args:
        records: targets in any order; several seeds of a target become one row.

    Returns:
        Accuracies in percent, a `*` after the strongest attack of a row and epsilon, below them the 95 %
        Wilson intervals (a single seed) or standard deviations (several), and the gain of T_Div over T_Base.

    Source: section 4.2, Table 2.
    """
    return "\n\n".join(_text_block(table) for table in tables(records))


def table_markdown(records: Iterable[TargetRecord], *, against_paper: bool = False) -> str:
    """Table 2 as GitHub Markdown, one table for each model and dataset, with a caption.

    Args:
        records: targets in any order; several seeds of a target become one row.
        against_paper: below each target add the paper's accuracies and the difference, ours less the paper's,
            in points.

    Source: section 4.2, Table 2.
    """
    return "\n\n".join(_markdown_block(table, against_paper) for table in tables(records)) + "\n"


def write_report(
    directory: pathlib.Path, records: Iterable[TargetRecord], *, against_paper: bool = False
) -> dict[str, pathlib.Path]:
    """Writes report.md, table.csv, table.json and the pictures; each file appears whole or not at all.

    Args:
        directory: where to write; made if it is not there.
        records: what to report. Plots that they hold nothing for are left out.
        against_paper: as in `table_markdown` and `table_figure`.

    Returns:
        The files by name: "report", "table", "data", "picture", and "accuracy", "coherence", "pair_cosines"
        where drawn.
    """
    records = list(records)
    plots = {name: png(plot.draw(records)) for name, plot in PICTURES.items() if plot.has_values(records)}
    names = {"report": REPORT, "table": "table.csv", "data": "table.json", "picture": "table.png"}
    contents = {
        "table": table_csv(records).encode(),
        "data": table_json(records).encode(),
        "picture": png(table_figure(records, against_paper=against_paper)),
        **plots,
        # Last: where it is, all that it shows is.
        "report": _report(records, list(plots), against_paper).encode(),
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = pathlib.Path(directory) / names.get(name, f"{name}.png")
        files.write_file(paths[name], content)
    return paths


def _text_block(table: Table) -> str:
    rows = [line for row in table.rows for line in _text_lines(table, row)]
    lines = _aligned([["target", CLEAN, *map(_heading, table.columns)], *rows])
    rule = "-" * max(map(len, lines))
    records = table.records
    notes = [
        measure(table),
        *budgets(records),
        *commits(records),
        *hours(records),
        *coherence(table),
        *gain(table),
    ]
    wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes]
    return "\n".join([f"{table.title}: {quantity(table)}", rule, lines[0], rule, *lines[1:], rule, *wrapped])


def _text_lines(table: Table, row: Row) -> Iterator[list[str]]:
    """The accuracies of a target, then a line of intervals for each epsilon."""
    clean = row.cell(CLEAN, 0.0)
    strongest = {epsilon: row.strongest(table.attacks, epsilon) for epsilon in table.epsilons}

    def number(name: str, epsilon: float) -> str:
        cell = row.cell(name, epsilon)
        return f"{_percent(cell):>5}{'*' if name in strongest[epsilon] else ' '}"

    yield [
        row.target,
        f"{_percent(clean):>5}",
        *("/".join(number(name, epsilon) for epsilon in table.epsilons) for name in table.columns),
    ]
    for index, epsilon in enumerate(table.epsilons or (0.0,)):
        cells = [row.cell(name, epsilon) for name in table.columns]
        label = f"  at {epsilon:g}" if epsilon else ""
        yield [label, _spread(clean) if index == 0 else "", *map(_spread, cells)]


def _aligned(grid: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in grid]


def _markdown_block(table: Table, against_paper: bool) -> str:
    header = ["target", CLEAN, *map(_heading, table.columns), "saturated, %"]
    rows = [line for row in table.rows for line in _markdown_lines(table, row, against_paper)]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    notes = [f"{quantity(table)[0].upper()}{quantity(table)[1:]}", measure(table, "**bold**")]
    if against_paper and paper.is_paper_dataset(table.model, table.dataset):
        published = f"{table.model} on {paper.DATASETS[table.model]}"
        notes += [
            f"Paper: Table 2, {published}, all test images; difference: ours less the paper's, in points"
        ]
    records = table.records
    notes += [*budgets(records), *provenance(records), *hours(records), *coherence(table), *gain(table)]
    caption = "\n".join(f"- {note}" for note in notes)
    return "\n".join([f"### {table.title}", "", *(f"| {' | '.join(line)} |" for line in lines), "", caption])


def _markdown_lines(table: Table, row: Row, against_paper: bool) -> Iterator[list[str]]:
    strongest = {epsilon: row.strongest(table.attacks, epsilon) for epsilon in table.epsilons}

    def ours(name: str, epsilon: float) -> str:
        number = _percent(row.cell(name, epsilon))
        return f"**{number}**" if name in strongest.get(epsilon, ()) else number

    def published(name: str, epsilon: float) -> str:
        value = table.paper_accuracy(row.target, name, epsilon)
        return "-" if value is None else f"{value:.1f}"

    def difference(name: str, epsilon: float) -> str:
        value = table.difference(row, name, epsilon)
        return "-" if value is None else signed(value)

    def line(label: str, show: Callable[[str, float], str], small: bool, last: str) -> list[str]:
        cells = []
        for name, epsilons in [(CLEAN, (0.0,)), *((name, table.epsilons) for name in table.columns)]:
            text = " / ".join(show(name, epsilon) for epsilon in epsilons)
            spreads = " / ".join(_spread(row.cell(name, epsilon)) for epsilon in epsilons)
            cells.append(f"{text}<br><sub>{spreads}</sub>" if small else text)
        return [label, *cells, last]

    shares = [row.saturated(epsilon) for epsilon in table.epsilons]
    saturated = " / ".join("-" if share is None else f"{share:.1f}" for share in shares)
    beside = against_paper and table.paper_accuracy(row.target, CLEAN, 0.0) is not None
    yield line(f"{row.target}, ours" if beside else row.target, ours, True, saturated or "-")
    if beside:
        yield line(f"{row.target}, paper", published, False, "")
        yield line(f"{row.target}, difference", difference, False, "")


def _percent(cell: Cell | None) -> str:
    return "-" if cell is None else f"{cell.accuracy:.1f}"


def _spread(cell: Cell | None) -> str:
    return "" if cell is None else cell.spread


def _heading(name: str) -> str:
    return "worst case" if name == WORST_CASE else name


def _report(records: Sequence[TargetRecord], pictures: Sequence[str], against_paper: bool) -> str:
    commands = dict.fromkeys(str(record.provenance.get("command") or "not recorded") for record in records)
    parts = ["# Transfer robustness", "Made by:", "```\n" + "\n".join(commands) + "\n```"]
    parts += ["## Accuracy under transfer attacks (paper, Table 2)"]
    parts += [table_markdown(records, against_paper=against_paper).rstrip()]
    parts += [f"## {PICTURES[name].title}\n\n![{PICTURES[name].title}]({name}.png)" for name in pictures]
    return "\n\n".join([*parts, READING])
