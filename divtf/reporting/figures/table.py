"""Table 2 as a picture."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from divtf.reporting.captions import budgets, measure, quantity
from divtf.reporting.cells import heading, signed
from divtf.reporting.figures.style import STYLE
from divtf.reporting.marks import marked_tables
from divtf.reporting.tables import Row, Table
from divtf.storage.records import CLEAN, Record, TargetRecord

# Heights in units of one line of the table.
_HEAD, _NOTE = 2.0, 0.42
_INCHES = 0.44
# Room for title and caption of a table without attacks, in inches.
_NARROWEST = 6.4
_FAINT = "#555555"


@matplotlib.rc_context(STYLE)
def table_figure(
    records: Iterable[TargetRecord], beside: Sequence[Record] = (), *, against_paper: bool = False
) -> Figure:
    """Table 2 as a picture: accuracies, intervals below them in small, the strongest attacks in bold.

    Args:
        records: targets in any order; several seeds of a target become one row.
        beside: as in `marks.marks`.
        against_paper: below each target add the paper's accuracies and the difference, ours less the paper's,
            in points.

    Source: section 4.2, Table 2.
    """
    parts = marked_tables(records, beside)
    columns = max(len(table.columns) for table in parts)
    epsilons = max(1, *(len(table.epsilons) for table in parts))
    width = 0.75 * epsilons + 0.35
    left = 1.3 + 0.08 * max(len(row.name) for table in parts for row in table.rows)
    if against_paper:
        left += 0.55
    across = max(left + width * columns, _NARROWEST)
    notes = [_notes(table, int(19 * across)) for table in parts]
    heights = [_HEAD + _height(table, against_paper) for table in parts]
    total = sum(heights) + _NOTE * sum(len(lines) + 1 for lines in notes)
    figure = Figure(figsize=(across, _INCHES * total), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-left, across - left), ylim=(total, 0))
    axes.axis("off")
    top = 0.0
    for table, height, lines in zip(parts, heights, notes, strict=True):
        _draw_table(axes, table, top, left, width, against_paper)
        for place, line in enumerate(lines):
            below = top + height + 0.3 + _NOTE * place
            axes.text(0.1 - left, below, line, va="center", fontsize=6.5, color=_FAINT)
        top += height + _NOTE * (len(lines) + 1)
    return figure


def _notes(table: Table, characters: int) -> list[str]:
    notes = [measure(table, "bold"), *budgets(table.records)]
    return [line for note in notes for line in textwrap.wrap(note, characters)]


def _lines(table: Table, row: Row, against_paper: bool) -> list[str]:
    """What is written of a target: "ours", and below it, where the paper has it, "paper" and "difference"."""
    beside = against_paper and table.paper_accuracy(row.target, CLEAN, 0.0) is not None
    return ["ours", "paper", "difference"] if beside else ["ours"]


def _height(table: Table, against_paper: bool) -> float:
    return sum(1 + 0.5 * (len(_lines(table, row, against_paper)) - 1) for row in table.rows)


def _draw_table(axes: Axes, table: Table, top: float, left: float, width: float, against_paper: bool) -> None:
    """Title and header on two lines from `top`, then the lines of each target."""
    axes.text(0.1 - left, top + 0.55, f"{table.title}, {quantity(table)}", va="center", fontweight="bold")
    names = [CLEAN, *map(heading, table.columns)]
    centres = [-0.55, *(width * (place + 0.5) for place in range(len(table.columns)))]
    for name, centre in zip(names, centres, strict=True):
        axes.text(centre, top + 1.5, name, ha="center", va="center")
    for line in (top + 1.05, top + 1.95, top + 1.95 + _height(table, against_paper)):
        axes.axhline(line, color="black", linewidth=0.8)
    middle = top + 2.45
    for row in table.rows:
        ours, *others = _lines(table, row, against_paper)
        label = f"{row.name}, {ours}" if others else row.name
        axes.text(0.1 - left, middle - 0.12, label, va="center")
        for name, centre in zip((CLEAN, *table.columns), centres, strict=True):
            numbers, spreads = _cell_texts(table, row, name)
            axes.text(centre, middle - 0.16, numbers, ha="center", va="center")
            axes.text(centre, middle + 0.22, spreads, ha="center", va="center", fontsize=6.5, color=_FAINT)
        for place, label in enumerate(others):
            level = middle + 0.62 + 0.5 * place
            axes.text(0.1 - left, level, f"{row.target}, {label}", va="center", fontsize=8, color=_FAINT)
            for name, centre in zip((CLEAN, *table.columns), centres, strict=True):
                text = " / ".join(_other_texts(table, row, name, label))
                axes.text(centre, level, text, ha="center", va="center", fontsize=8, color=_FAINT)
        middle += 1 + 0.5 * len(others)


def _epsilons(table: Table, name: str) -> tuple[float, ...]:
    return (0.0,) if name == CLEAN else table.epsilons


def _other_texts(table: Table, row: Row, name: str, label: str) -> Iterator[str]:
    for epsilon in _epsilons(table, name):
        if label == "paper":
            value = table.paper_accuracy(row.target, name, epsilon)
            yield "-" if value is None else f"{value:.1f}"
        else:
            value = table.difference(row, name, epsilon)
            yield "-" if value is None else signed(value)


def _cell_texts(table: Table, row: Row, name: str) -> tuple[str, str]:
    numbers, spreads = [], []
    for epsilon in _epsilons(table, name):
        cell = row.cell(name, epsilon)
        number = "-" if cell is None else f"{cell.accuracy:.1f}"
        bold = cell is not None and name != CLEAN and name in row.strongest(table.attacks, epsilon)
        numbers.append(rf"$\mathbf{{{number}}}$" if bold else number)
        spreads.append("" if cell is None else cell.spread)
    return " / ".join(numbers), "  ".join(spreads)
