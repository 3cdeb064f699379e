"""Defences side by side, as a picture: what is left of each, by surrogate, by kind of attacker and in all."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from divtf.reporting.comparison import cell_of, column_heading, comparison_columns, comparison_tables, marks
from divtf.reporting.figures.style import STYLE, panels, points_with_bars, shared_legend, target_style
from divtf.reporting.tables import Table
from divtf.storage.evaluations import ComparisonRecord
from divtf.storage.records import CLEAN

_ROW = 0.32
"""Inches from one column of the table to the next, which are lines here."""


@matplotlib.rc_context(STYLE)
def comparison_figure(records: Sequence[ComparisonRecord]) -> Figure:
    """What is left of each target: one panel an epsilon, one line a column of the table, clean images first.

    Bars are 95 % Wilson intervals where a target has one seed, standard deviations where it has several.
    """
    compared = comparison_tables(records)
    height = 0.7 + _ROW * max(1 + len(comparison_columns(table)) for table in compared)
    counts = [(table.title, len(table.epsilons)) for table in compared]
    figure, drawn = panels(counts, size=(3.6, height), columns=2)
    for table, (band, axes_row) in zip(compared, drawn, strict=True):
        columns = (CLEAN, *comparison_columns(table))
        for epsilon, axes in zip(table.epsilons, axes_row, strict=True):
            _targets(axes, table, columns, epsilon)
            axes.set(title=f"epsilon {epsilon:g}", xlabel="accuracy, %", xlim=(-3, 103))
            axes.set_yticks(range(len(columns)), [""] * len(columns))
            axes.invert_yaxis()
        for axes in axes_row[::2]:
            axes.set_yticklabels([column_heading(column) for column in columns])
        shared_legend(band, _legend(records, table))
    return figure


def _targets(axes: Axes, table: Table, columns: Sequence[str], epsilon: float) -> None:
    """One marker a target and column, those of a column apart by a little."""
    shifts = np.linspace(-0.2, 0.2, len(table.rows)) if len(table.rows) > 1 else [0.0]
    for row, shift in zip(table.rows, shifts, strict=True):
        cells = {place: cell_of(row, column, epsilon) for place, column in enumerate(columns)}
        known = {place: cell for place, cell in cells.items() if cell}
        x, bars = points_with_bars(list(known.values()))
        colour, marker = target_style(row.target, table.targets)
        y = [place + shift for place in known]
        axes.errorbar(x, y, xerr=bars, color=colour, marker=marker, linestyle="none", capsize=2, elinewidth=1)


def _legend(records: Sequence[ComparisonRecord], table: Table) -> list[Line2D]:
    entries = []
    for row in table.rows:
        colour, marker = target_style(row.target, table.targets)
        label = row.target + marks(records, table, row)
        entries.append(Line2D([], [], color=colour, marker=marker, linestyle="none", label=label))
    return entries
