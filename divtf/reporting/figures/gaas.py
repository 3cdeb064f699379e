"""Figure 5 as a picture: the adversarial directions that GAAS found."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from divtf.reporting.figures.style import (
    LINES,
    MARKERS,
    STYLE,
    colour_entries,
    panels,
    shared_legend,
    target_style,
)
from divtf.reporting.marks import names_of
from divtf.storage.records import GaasRecord, Record, grouped

ORDERS_NOTE = (
    "No Hadamard matrix of the paper's order 25 exists; the regular ones have order 4u²: k is 4, 16, 36, 64"
)
BUDGETS_NOTE = (
    "The paper gives epsilon for CIFAR-10 only: thirds of its largest, 0.09; elsewhere it is thirds of "
    "the data set's largest"
)


@matplotlib.rc_context(STYLE)
def gaas_figure(records: Iterable[GaasRecord], beside: Sequence[Record] = ()) -> Figure:
    """Probability of finding at least m orthogonal adversarial directions, one panel an epsilon.

    The seeds of a target are put together: the probability is over the images of all of them. `beside` is as
    in `marks.marks`.

    Source: section 4.4, Figure 5.

    Raises:
        ValueError: if there are no records, or if a curve of order k has not k probabilities.
    """
    groups = grouped(records, lambda record: record.subject)
    if not groups:
        raise ValueError("Expected at least one GAAS record. Received: none")
    budgets = {title: _sorted(group, "epsilon") for title, group in groups.items()}
    counts = [(title, len(budgets[title])) for title in groups]
    figure, drawn = panels(counts, size=(3.1, 3.0), columns=3)
    for (title, group), (band, axes_row) in zip(groups.items(), drawn, strict=True):
        by_target, orders = grouped(group, lambda record: record.target), _sorted(group, "order")
        names = names_of(group, beside)
        targets = list(names)
        for epsilon, axes in zip(budgets[title], axes_row, strict=True):
            for target in targets:
                for order in orders:
                    probability = pooled(by_target[target], epsilon, order)
                    _draw_curve(axes, probability, target_style(target, targets)[0], order, orders)
            axes.set(
                title=f"epsilon {epsilon:g}",
                xlabel="m, number of directions",
                ylim=(-0.03, 1.03),
                xscale="log",
            )
            axes.set_xticks(sorted({1, *orders}), [str(tick) for tick in sorted({1, *orders})])
            axes.minorticks_off()
        axes_row[0].set_ylabel("P(at least m of k succeed)")
        shared_legend(band, colour_entries(names) + [_order_entry(order, orders) for order in orders])
    datasets = {record.dataset for group in groups.values() for record in group}
    notes = [ORDERS_NOTE, *([BUDGETS_NOTE] if datasets - {"cifar10"} else [])]
    width = int(19 * figure.get_size_inches()[0])
    lines = [line for note in notes for line in textwrap.wrap(f"{note}.", width)]
    figure.supxlabel("\n".join(lines), fontsize=7, color="#555555")
    return figure


def pooled(records: Sequence[GaasRecord], epsilon: float, order: int) -> np.ndarray:
    """P(at least m of k directions succeed), m = 1..k, over the images of all records; [k], or [0] if none.

    Raises:
        ValueError: if a curve of order k has not k probabilities.
    """
    curves = [c for r in records for c in r.curves if (c["epsilon"], c["order"]) == (epsilon, order)]
    for curve in curves:
        if len(curve["probability"]) != order:
            received = len(curve["probability"])
            raise ValueError(f"Expected {order} probabilities, for m = 1..{order}. Received: {received}")
    images = [curve["images"] for curve in curves]
    return np.average([c["probability"] for c in curves], axis=0, weights=images) if curves else np.array([])


def _sorted(records: Sequence[GaasRecord], entry: str) -> list[Any]:
    return sorted({curve[entry] for record in records for curve in record.curves})


def _draw_curve(axes: Axes, probability: np.ndarray, colour: str, order: int, orders: Sequence[int]) -> None:
    """One curve; the marker at its end is the probability that all k directions succeed."""
    entry = _order_entry(order, orders)
    axes.plot(
        range(1, len(probability) + 1),
        probability,
        color=colour,
        linestyle=entry.get_linestyle(),
        marker=entry.get_marker(),
        markevery=[-1] if len(probability) else [],
    )


def _order_entry(order: int, orders: Sequence[int]) -> Line2D:
    place = orders.index(order)
    style, marker = LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
    return Line2D([], [], color="#555555", linestyle=style, marker=marker, label=f"k = {order}")
