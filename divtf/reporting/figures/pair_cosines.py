"""Mean cosines of the members' input gradients, as a picture."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from divtf.reporting.figures.style import STYLE, panels, tables_with
from divtf.reporting.tables import Row
from divtf.storage.records import Record, TargetRecord


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def pair_cosine_figure(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> Figure:
    """Heat maps of the members' mean pair cosines (Eq. 6), one panel a target, the mean over its seeds.

    `beside` is as in `marks.marks`.

    Raises:
        ValueError: if no record holds pair cosines, or if they differ in shape between the seeds of a target.
    """
    measured = tables_with(records, "pair_cosines", beside)
    counts = [(table.title, len(table.rows)) for table in measured]
    figure, drawn = panels(counts, size=(2.6, 2.8), columns=4)
    for table, (_, axes_row) in zip(measured, drawn, strict=True):
        for row, axes in zip(table.rows, axes_row, strict=True):
            cosines = mean_pair_cosines(row)
            image = axes.imshow(cosines, cmap="PuOr_r", vmin=-1, vmax=1)
            for (i, j), value in np.ndenumerate(cosines):
                tone = "white" if abs(value) > 0.6 else "black"
                axes.text(
                    j, i, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", color=tone, fontsize=7.5
                )
            ticks = range(len(cosines))
            axes.set(title=row.name, xlabel="member", xticks=ticks, yticks=ticks)
            axes.set(
                xticklabels=[str(tick + 1) for tick in ticks], yticklabels=[str(tick + 1) for tick in ticks]
            )
            axes.tick_params(length=0)
        figure.colorbar(image, ax=axes_row, shrink=0.7, label="mean cosine", ticks=[-1, 0, 1])
    return figure


def mean_pair_cosines(row: Row) -> np.ndarray:
    """Mean over the seeds of a target, [N, N].

    Raises:
        ValueError: if they differ in shape.
    """
    matrices = [np.array(record.pair_cosines) for record in row.records]
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) > 1:
        raise ValueError(
            f"Expected pair cosines of one shape for all seeds of {row.target}. Received: {shapes}"
        )
    return np.mean(matrices, axis=0)
