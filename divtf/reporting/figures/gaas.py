"""Figure 5 as a picture. Like `divtf.plots`, it touches no global state and imports no TensorFlow."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from divtf.data.paper import TARGETS
from divtf.reporting.figures.style import LINES, MARKERS, STYLE, look, panels, shared_legend
from divtf.reporting.tables import in_order
from divtf.storage.records import SubspaceRecord, grouped

ORDERS_NOTE = (
    "No Hadamard matrix of the paper's order 25 exists; the regular ones have order 4u²: k is 4, 16, 36, 64"
)
BUDGETS_NOTE = (
    "The paper gives epsilon for CIFAR-10 only: thirds of its largest, 0.09; elsewhere it is thirds of "
    "the data set's largest"
)


@matplotlib.rc_context(STYLE)
def gaas_figure(records: Iterable[SubspaceRecord]) -> Figure:
    """Probability of finding at least m orthogonal adversarial directions, one panel an epsilon.

    The seeds of a target are put together: the probability is over the images of all of them.

    Source: section 4.4, Figure 5.

    Raises:
        ValueError: if there are no records, or if a curve of order k has not k probabilities.
    """
    found = list(records)
    if not found:
        raise ValueError("Expected at least one GAAS record. Received: none")
    groups = grouped(found, lambda record: record.subject)
    budgets = {title: _sorted(group, "epsilon") for title, group in groups.items()}
    counts = [(title, len(budgets[title])) for title in groups]
    figure, drawn = panels(counts, size=(3.1, 3.0), columns=3)
    for (title, group), (band, axes_row) in zip(groups.items(), drawn, strict=True):
        by_target, orders = grouped(group, lambda record: record.target), _sorted(group, "order")
        targets = in_order(by_target, TARGETS)
        for epsilon, axes in zip(budgets[title], axes_row, strict=True):
            for target in targets:
                for order in orders:
                    found_at = pooled(by_target[target], epsilon, order)
                    _draw_curve(axes, found_at, look(target, targets)[0], order, orders)
            axes.set(
                title=f"epsilon {epsilon:g}",
                xlabel="m, number of directions",
                ylim=(-0.03, 1.03),
                xscale="log",
            )
            axes.set_xticks(sorted({1, *orders}), [str(tick) for tick in sorted({1, *orders})])
            axes.minorticks_off()
        axes_row[0].set_ylabel("P(at least m of k succeed)")
        handles = [Line2D([], [], color=look(target, targets)[0], label=target) for target in targets]
        shared_legend(band, handles + [_order_handle(order, orders) for order in orders])
    notes = [ORDERS_NOTE, *([BUDGETS_NOTE] if any(r.dataset != "cifar10" for r in found) else [])]
    width = int(19 * figure.get_size_inches()[0])
    lines = [line for note in notes for line in textwrap.wrap(f"{note}.", width)]
    figure.supxlabel("\n".join(lines), fontsize=7, color="#555555")
    return figure


def pooled(records: Sequence[SubspaceRecord], epsilon: float, order: int) -> np.ndarray:
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


def _sorted(records: Sequence[SubspaceRecord], entry: str) -> list[Any]:
    return sorted({curve[entry] for record in records for curve in record.curves})


def _draw_curve(axes: Axes, probability: np.ndarray, colour: str, order: int, orders: Sequence[int]) -> None:
    """One curve; the marker at its end is the probability that all k directions succeed."""
    handle = _order_handle(order, orders)
    axes.plot(
        range(1, len(probability) + 1),
        probability,
        color=colour,
        linestyle=handle.get_linestyle(),
        marker=handle.get_marker(),
        markevery=[-1] if len(probability) else [],
    )


def _order_handle(order: int, orders: Sequence[int]) -> Line2D:
    place = orders.index(order)
    style, marker = LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
    return Line2D([], [], color="#555555", linestyle=style, marker=marker, label=f"k = {order}")
