"""Coherence over test images, as a picture: the paper's Figure 4."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from divtf.reporting.figures.style import STYLE, panels, tables_with, target_style
from divtf.reporting.tables import Table
from divtf.storage.records import Record, TargetRecord


@matplotlib.rc_context(STYLE)
def coherence_figure(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> Figure:
    """Histograms of coherence over clean test images, all targets of a model in one panel, seeds pooled.

    `beside` is as in `marks.marks`.

    Source: section 4.3, Figure 4; coherence is Eq. 7, the largest cosine of two members' gradients.

    Raises:
        ValueError: if no record holds coherence values.
    """
    measured = tables_with(records, "coherence", beside)
    figure, drawn = panels([(table.title, 1) for table in measured], size=(6.4, 3.4), columns=1)
    for table, (_, [axes]) in zip(measured, drawn, strict=True):
        bins = coherence_bins(table)
        for row in table.rows:
            values = np.concatenate([record.coherence for record in row.records])
            colour, _ = target_style(row.target, table.targets)
            label = f"{row.name}, mean {values.mean():.2f}"
            axes.hist(values, bins, density=True, histtype="stepfilled", color=colour, alpha=0.22)
            axes.hist(values, bins, density=True, histtype="step", color=colour, linewidth=1.4, label=label)
            axes.axvline(values.mean(), color=colour, linestyle="--", linewidth=1.2)
        axes.set(
            xlabel="coherence of the input gradients (Eq. 7)", ylabel="density", xlim=(bins[0], bins[-1])
        )
        handles = [Line2D([], [], color=target_style(row.target, table.targets)[0]) for row in table.rows]
        axes.legend(handles, axes.get_legend_handles_labels()[1], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def coherence_bins(table: Table) -> list[float]:
    """The edges of the bins, the same for all targets of a table, up to 1."""
    return np.linspace(_lowest_coherence(table), 1.0, 49).tolist()


def _lowest_coherence(table: Table) -> float:
    """Left end of the bins: N vectors have a coherence of at least -1/(N-1)."""
    members = [len(record.pair_cosines) for record in table.records]
    bounds = [-1 / (count - 1) if count > 1 else -1.0 for count in members]
    return min(*bounds, *(min(record.coherence) for record in table.records))
