"""Section 3.4 as a picture: the ReLU ablation."""

import math
import statistics
from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from divtf.reporting.figures.style import STYLE, panels, shared_legend, target_style
from divtf.reporting.marks import names_of
from divtf.storage.records import Record, SparsityRecord, grouped

SHARES = {"zero_entries": "zero entries", "zero_products": "zero product terms"}


@matplotlib.rc_context(STYLE)
def sparsity_figure(records: Iterable[SparsityRecord], beside: Sequence[Record] = ()) -> Figure:
    """Shares of zeros as bars, and GAL by epoch, one colour a target; the mean over a target's seeds.

    `beside` is as in `marks.marks`.

    Source: section 3.4, Figure 3.

    Raises:
        ValueError: if there are no records.
    """
    groups = grouped(records, lambda record: record.subject)
    if not groups:
        raise ValueError("Expected at least one sparsity record. Received: none")
    figure, drawn = panels([(title, 2) for title in groups], size=(4.0, 3.0), columns=2)
    for group, (band, (bars, curves)) in zip(groups.values(), drawn, strict=True):
        by_target = grouped(group, lambda record: record.target)
        names, handles = names_of(group, beside), []
        targets = list(names)
        for place, target in enumerate(targets):
            colour, marker = target_style(target, targets)
            _draw_bars(bars, by_target[target], colour, place - (len(targets) - 1) / 2, 0.8 / len(targets))
            gal = mean_gal(by_target[target])
            curves.plot(range(1, len(gal) + 1), gal, color=colour, marker=marker)
            handles.append(Line2D([], [], color=colour, marker=marker, label=names[target]))
        _label(bars, curves, group)
        shared_legend(band, handles)
    return figure


def mean_gal(records: Sequence[SparsityRecord]) -> list[float]:
    """GAL of each epoch, the mean over the records that trained as long."""
    epochs = max(len(record.gal) for record in records)
    return [
        statistics.fmean(record.gal[epoch] for record in records if epoch < len(record.gal))
        for epoch in range(epochs)
    ]


def _draw_bars(
    axes: Axes, records: Sequence[SparsityRecord], colour: str, offset: float, width: float
) -> None:
    shares = [100 * statistics.fmean(getattr(record, name) for record in records) for name in SHARES]
    places = [group + offset * width for group in range(len(SHARES))]
    axes.bar_label(axes.bar(places, shares, width, color=colour), fmt="%.2f", padding=1)


def _label(bars: Axes, curves: Axes, records: Sequence[SparsityRecord]) -> None:
    bars.set(ylabel="share, %", title="exact zeros in the input gradients")
    bars.set_xticks(range(len(SHARES)), list(SHARES.values()))
    bars.grid(axis="x", visible=False)
    # All shares may be 0: an axis of a tenth of a per cent then shows that as well as any.
    bars.set_ylim(0, max(0.1, 1.12 * bars.get_ylim()[1]))
    curves.set(xlabel="epoch", ylabel="GAL (Eq. 8)", title="GAL over training")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    for count in sorted({record.budget["members"] for record in records if "members" in record.budget}):
        level = math.log(count * (count - 1) / 2)
        curves.axhline(level, color="#555555", linestyle=":", linewidth=1)
        curves.annotate(
            f"{count} orthogonal gradients",
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color="#555555",
        )
