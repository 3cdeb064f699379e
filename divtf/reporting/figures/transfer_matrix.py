"""A transfer matrix as a picture."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from divtf.reporting.figures.style import STYLE, panels
from divtf.reporting.marks import names_of
from divtf.reporting.transfer_matrix import TransferMatrix
from divtf.storage.records import Record, TransferMatrixRecord, attacks, epsilons, grouped


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def transfer_matrix_figure(records: Iterable[TransferMatrixRecord], beside: Sequence[Record] = ()) -> Figure:
    """Heat maps of accuracy, one panel an epsilon: sources in the rows, targets in the columns.

    `beside` is as in `marks.marks`: it marks the targets, whose figures these are.

    Raises:
        ValueError: if there are no records.
    """
    groups = grouped(records, lambda record: record.subject)
    if not groups:
        raise ValueError("Expected at least one record of a transfer matrix. Received: none")
    budgets = {title: epsilons(group) for title, group in groups.items()}
    widest = max(len(TransferMatrix(group).sources) for group in groups.values())
    size = (1.4 + 0.62 * widest, 1.2 + 0.36 * widest)
    figure, drawn = panels([(title, len(budgets[title])) for title in groups], size=size, columns=2)
    for (title, group), (_, axes_row) in zip(groups.items(), drawn, strict=True):
        for epsilon, axes in zip(budgets[title], axes_row, strict=True):
            _draw(axes, TransferMatrix(group), epsilon, names_of(group, beside))
        for axes in axes_row[::2]:
            axes.set_ylabel("images made on")
        under = ", ".join(attacks(group))
        figure.colorbar(axes_row[0].images[0], ax=axes_row, shrink=0.7, label=f"accuracy under {under}, %")
    return figure


def _draw(axes: Axes, matrix: TransferMatrix, epsilon: float, names: Mapping[str, str]) -> None:
    """One panel; the numbers in bold are a target's on its own images."""
    rows, columns = matrix.sources, matrix.targets
    values = np.array([[matrix.accuracy(row, column, epsilon) for column in columns] for row in rows])
    axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            tone, weight = "black" if value > 60 else "white", "bold" if rows[i] == columns[j] else "normal"
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=tone, weight=weight, fontsize=7.5)
    axes.set_xticks(range(len(columns)), [names[column] for column in columns], rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set(title=f"epsilon {epsilon:g}", xlabel="accuracy of")
    axes.tick_params(length=0)
