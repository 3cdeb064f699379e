"""Plots of a table's records: the paper's Figure 4 and two more, as `matplotlib.figure.Figure`s.

Nothing here touches pyplot or its global state, and nothing imports TensorFlow.
"""

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from divtf.paper import TARGETS
from divtf.records import CLEAN, WORST_CASE, TargetRecord
from divtf.tables import Row, Table, tables

# Okabe and Ito's colours, apart for colour-blind readers too; the paper's targets keep theirs everywhere.
COLOURS = ("#D55E00", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":")
DPI = 150
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


def png(figure: Figure) -> bytes:
    """The picture as a PNG file; equal figures give equal bytes, as no date or version is written into it."""
    content = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def look(target: str, targets: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a target of a picture; those of Table 2 have the same in all pictures."""
    known = (*TARGETS, *(name for name in targets if name not in TARGETS))
    place = known.index(target) % len(COLOURS)
    return COLOURS[place], MARKERS[place]


@matplotlib.rc_context(STYLE)
def coherence_figure(records: Iterable[TargetRecord]) -> Figure:
    """Histograms of coherence over clean test images, all targets of a model in one panel, seeds pooled.

    Source: section 4.3, Figure 4; coherence is Eq. 7, the largest cosine of two members' gradients.

    Raises:
        ValueError: if no record holds coherence values.
    """
    found = _tables_with(records, "coherence")
    figure, drawn = panels([(table.title, 1) for table in found], size=(6.4, 3.4), columns=1)
    for table, (_, [axes]) in zip(found, drawn, strict=True):
        bins = np.linspace(_lowest_coherence(table), 1.0, 49).tolist()
        for row in table.rows:
            values = np.concatenate([record.coherence for record in row.records])
            colour, _ = look(row.target, table.targets)
            label = f"{row.target}, mean {values.mean():.2f}"
            axes.hist(values, bins, density=True, histtype="stepfilled", color=colour, alpha=0.22)
            axes.hist(values, bins, density=True, histtype="step", color=colour, linewidth=1.4, label=label)
            axes.axvline(values.mean(), color=colour, linestyle="--", linewidth=1.2)
        axes.set(
            xlabel="coherence of the input gradients (Eq. 7)", ylabel="density", xlim=(bins[0], bins[-1])
        )
        handles = [Line2D([], [], color=look(row.target, table.targets)[0]) for row in table.rows]
        axes.legend(handles, axes.get_legend_handles_labels()[1], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def pair_cosine_figure(records: Iterable[TargetRecord]) -> Figure:
    """Heat maps of the members' mean pair cosines (Eq. 6), one panel a target, the mean over its seeds.

    Raises:
        ValueError: if no record holds pair cosines, or if they differ in shape between the seeds of a target.
    """
    found = _tables_with(records, "pair_cosines")
    figure, drawn = panels([(table.title, len(table.rows)) for table in found], size=(2.6, 2.8), columns=4)
    for table, (_, axes_row) in zip(found, drawn, strict=True):
        for row, axes in zip(table.rows, axes_row, strict=True):
            cosines = _mean_pair_cosines(row)
            image = axes.imshow(cosines, cmap="PuOr_r", vmin=-1, vmax=1)
            for (i, j), value in np.ndenumerate(cosines):
                tone = "white" if abs(value) > 0.6 else "black"
                axes.text(
                    j, i, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", color=tone, fontsize=7.5
                )
            ticks = range(len(cosines))
            axes.set(title=row.target, xlabel="member", xticks=ticks, yticks=ticks)
            axes.set(
                xticklabels=[str(tick + 1) for tick in ticks], yticklabels=[str(tick + 1) for tick in ticks]
            )
            axes.tick_params(length=0)
        figure.colorbar(image, ax=axes_row, shrink=0.7, label="mean cosine", ticks=[-1, 0, 1])
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_figure(records: Iterable[TargetRecord]) -> Figure:
    """Accuracy against epsilon, clean images at 0: one panel an attack, one line a target.

    Bars are 95 % Wilson intervals where a target has one seed, standard deviations where it has several.

    Raises:
        ValueError: if no record holds a result under attack.
    """
    found = [table for table in tables(records) if table.columns]
    if not found:
        raise ValueError("Expected records with a result under attack. Received: none")
    figure, drawn = panels([(table.title, len(table.columns)) for table in found], size=(2.9, 2.5), columns=3)
    for table, (band, axes_row) in zip(found, drawn, strict=True):
        step = 0.012 * max(table.epsilons)
        for attack, axes in zip(table.columns, axes_row, strict=True):
            for place, row in enumerate(table.rows):
                _accuracy_line(axes, table, row, attack, shift=step * (place - (len(table.rows) - 1) / 2))
            title = "worst case of all attacks" if attack == WORST_CASE else attack
            axes.set(title=title, ylim=(-3, 103), xlabel="epsilon")
            _epsilon_ticks(axes, table.epsilons)
        for axes in axes_row[::3]:
            axes.set_ylabel("accuracy, %")
        shared_legend(band, [_handle(row.target, table) for row in table.rows])
    return figure


def _tables_with(records: Iterable[TargetRecord], field: str) -> list[Table]:
    found = [record for record in records if getattr(record, field)]
    if not found:
        raise ValueError(f"Expected records with {field}. Received: none")
    return tables(found)


def panels(
    groups: Sequence[tuple[str, int]], *, size: tuple[float, float], columns: int
) -> tuple[Figure, list[tuple[SubFigure, list[Axes]]]]:
    """One titled band for each group, with as many panels of `size` inches as it asks for."""
    heights = [math.ceil(count / columns) for _, count in groups]
    across = max(min(count, columns) for _, count in groups)
    extra = 0.55 * len(groups)
    figure = Figure(figsize=(size[0] * across + 0.6, size[1] * sum(heights) + extra), layout="constrained")
    bands = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    found = []
    for band, (title, count), height in zip(bands, groups, heights, strict=True):
        grid = band.add_gridspec(height, across)
        axes = [band.add_subplot(grid[place // columns, place % columns]) for place in range(count)]
        found.append((band, axes))
        band.suptitle(title, fontsize=10.5, fontweight="bold")
    return figure, found


def shared_legend(band: SubFigure, handles: Sequence[Line2D]) -> None:
    """One legend below all panels of the band."""
    band.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8))


def _handle(target: str, table: Table) -> Line2D:
    colour, marker = look(target, table.targets)
    return Line2D([], [], color=colour, marker=marker, label=target)


def _lowest_coherence(table: Table) -> float:
    """Left end of the bins: N vectors have a coherence of at least -1/(N-1)."""
    members = [len(record.pair_cosines) for record in table.records]
    bounds = [-1 / (count - 1) if count > 1 else -1.0 for count in members]
    return min(*bounds, *(min(record.coherence) for record in table.records))


def _mean_pair_cosines(row: Row) -> np.ndarray:
    matrices = [np.array(record.pair_cosines) for record in row.records]
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) > 1:
        raise ValueError(
            f"Expected pair cosines of one shape for all seeds of {row.target}. Received: {shapes}"
        )
    return np.mean(matrices, axis=0)


def _accuracy_line(axes: Axes, table: Table, row: Row, attack: str, shift: float) -> None:
    """One target under one attack; `shift` keeps the bars of the targets apart."""
    places = [(0.0, CLEAN), *((epsilon, attack) for epsilon in table.epsilons)]
    points = [(epsilon, cell) for epsilon, name in places if (cell := row.cell(name, epsilon))]
    if not points:
        return
    x = [epsilon + shift for epsilon, _ in points]
    y = np.array([cell.accuracy for _, cell in points])
    low, high = np.array([cell.bounds for _, cell in points]).T
    colour, marker = look(row.target, table.targets)
    # Rounding can put a bound 1e-14 on the wrong side of its accuracy, which errorbar refuses.
    bars = np.maximum([y - low, high - y], 0)
    axes.errorbar(x, y, bars, color=colour, marker=marker, capsize=2, elinewidth=1)


def _epsilon_ticks(axes: Axes, epsilons: Sequence[float]) -> None:
    """A tick at each epsilon and at 0, unless their labels would touch."""
    ticks = [0.0, *epsilons]
    if min(np.diff(ticks)) > 0.08 * ticks[-1]:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
