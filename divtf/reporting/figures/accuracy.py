"""Accuracy against epsilon, as a picture."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from divtf.reporting.cells import heading
from divtf.reporting.figures.style import (
    STYLE,
    legend_entry,
    panels,
    points_with_bars,
    shared_legend,
    target_style,
)
from divtf.reporting.marks import marked_tables
from divtf.reporting.tables import Row, Table
from divtf.storage.records import CLEAN, WORST_CASE, Record, TargetRecord


@matplotlib.rc_context(STYLE)
def accuracy_figure(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> Figure:
    """Accuracy against epsilon, clean images at 0: one panel an attack, one line a target.

    Bars are 95 % Wilson intervals where a target has one seed, standard deviations where it has several.
    `beside` is as in `marks.marks`.

    Raises:
        ValueError: if no record holds a result under attack.
    """
    attacked = [table for table in marked_tables(records, beside) if table.columns]
    if not attacked:
        raise ValueError("Expected records with a result under attack. Received: none")
    counts = [(table.title, len(table.columns)) for table in attacked]
    figure, drawn = panels(counts, size=(2.9, 2.5), columns=3)
    for table, (band, axes_row) in zip(attacked, drawn, strict=True):
        step = 0.012 * max(table.epsilons)
        for attack, axes in zip(table.columns, axes_row, strict=True):
            for place, row in enumerate(table.rows):
                _accuracy_line(axes, table, row, attack, shift=step * (place - (len(table.rows) - 1) / 2))
            title = "worst case of all attacks" if attack == WORST_CASE else heading(attack)
            axes.set(title=title, ylim=(-3, 103), xlabel="epsilon")
            _epsilon_ticks(axes, table.epsilons)
        for axes in axes_row[::3]:
            axes.set_ylabel("accuracy, %")
        shared_legend(band, [legend_entry(row, table) for row in table.rows])
    return figure


def _accuracy_line(axes: Axes, table: Table, row: Row, attack: str, shift: float) -> None:
    """One target under one attack; `shift` keeps the bars of the targets apart."""
    places = [(0.0, CLEAN), *((epsilon, attack) for epsilon in table.epsilons)]
    points = [(epsilon, cell) for epsilon, name in places if (cell := row.cell(name, epsilon))]
    if not points:
        return
    x = [epsilon + shift for epsilon, _ in points]
    y, bars = points_with_bars([cell for _, cell in points])
    colour, marker = target_style(row.target, table.targets)
    axes.errorbar(x, y, bars, color=colour, marker=marker, capsize=2, elinewidth=1)


def _epsilon_ticks(axes: Axes, epsilons: Sequence[float]) -> None:
    """A tick at each epsilon and at 0, unless their labels would touch."""
    ticks = [0.0, *epsilons]
    if min(np.diff(ticks)) > 0.08 * ticks[-1]:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
