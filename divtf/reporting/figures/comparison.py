"""Defences side by side, as a picture: what is left of each, by surrogate, by kind of attacker and in all."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from divtf.reporting.comparison import cell_of, column_heading, comparison_columns, comparison_tables
from divtf.reporting.figures.style import STYLE, look, panels, points_with_bars, shared_legend
from divtf.reporting.tables import Table
from divtf.storage.evaluations import ComparisonRecord
from divtf.storage.records import CLEAN, Record

_ROW, _ENTRY = 0.38, 0.11
"""Inches from one target to the next, and that an entry of the legend, of two beside each other, takes."""


@matplotlib.rc_context(STYLE)
def comparison_figure(records: Sequence[ComparisonRecord], beside: Sequence[Record] = ()) -> Figure:
    """What is left of each target: one panel an epsilon, one line a target, one marker a column of the table.

    Bars are 95 % Wilson intervals where a target has one seed, standard deviations where it has several.
    `beside` is as in `marks.marks`.
    """
    compared = comparison_tables(records, beside)
    entries = max(1 + len(comparison_columns(table)) for table in compared)
    height = 0.9 + _ENTRY * entries + _ROW * max(len(table.rows) for table in compared)
    counts = [(table.title, len(table.epsilons)) for table in compared]
    figure, drawn = panels(counts, size=(3.6, height), columns=2)
    for table, (band, axes_row) in zip(compared, drawn, strict=True):
        columns = (CLEAN, *comparison_columns(table))
        for epsilon, axes in zip(table.epsilons, axes_row, strict=True):
            for place, column in enumerate(columns):
                shift = 0.6 * (place / (len(columns) - 1) - 0.5)
                _column(axes, table, column, epsilon, shift, look(place))
            axes.set(title=f"epsilon {epsilon:g}", xlabel="accuracy, %", xlim=(-3, 103))
            axes.set_yticks(range(len(table.rows)), [""] * len(table.rows))
            axes.set_ylim(len(table.rows) - 0.5, -0.5)
        for axes in axes_row[::2]:
            axes.set_yticklabels([row.name for row in table.rows])
        shared_legend(band, [_entry(column, place) for place, column in enumerate(columns)])
    return figure


def _column(
    axes: Axes, table: Table, column: str, epsilon: float, shift: float, style: tuple[str, str]
) -> None:
    """One marker a target, all of them beside its line by as much."""
    cells = {place: cell_of(row, column, epsilon) for place, row in enumerate(table.rows)}
    known = {place: cell for place, cell in cells.items() if cell}
    if known:
        x, bars = points_with_bars(list(known.values()))
        y = np.array(list(known)) + shift
        colour, marker = style
        axes.errorbar(x, y, xerr=bars, color=colour, marker=marker, linestyle="none", capsize=0, elinewidth=1)


def _entry(column: str, place: int) -> Line2D:
    colour, marker = look(place)
    return Line2D([], [], color=colour, marker=marker, linestyle="none", label=column_heading(column))
