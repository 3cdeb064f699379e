"""What all pictures share: colours, markers, panels, legends.

Nothing here touches pyplot or its global state, and nothing imports TensorFlow.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from divtf.data.paper import TARGETS
from divtf.reporting.marks import marked_tables
from divtf.reporting.tables import Cell, Row, Table
from divtf.storage.records import Record, TargetRecord

# Okabe and Ito's colours, apart for colour-blind readers too; the paper's targets keep theirs everywhere.
COLOURS = ("#D55E00", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":")
DPI = 150
# Inches that an entry of a legend takes beside its text, and a letter of it.
_ENTRY, _LETTER = 0.5, 0.078
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


def target_style(target: str, targets: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a target of a picture; those of Table 2 have the same in all pictures.

    Others have what is left in turn, that of those which are not there too: up to 7 differ in both.
    """
    if target in TARGETS:
        return look(TARGETS.index(target))
    others = [name for name in targets if name not in TARGETS]
    left = [place for place, name in enumerate(TARGETS) if name not in targets]
    first, second = range(len(TARGETS), len(COLOURS)), range(len(COLOURS), len(COLOURS) + len(others))
    return look([*first, *left, *second][others.index(target)])


def look(place: int) -> tuple[str, str]:
    """Colour and marker of the thing of that place; of two things one differs at least, of 49."""
    rounds, place = divmod(place, len(COLOURS))
    return COLOURS[place], MARKERS[(place + rounds) % len(MARKERS)]


def tables_with(records: Iterable[TargetRecord], field: str, beside: Sequence[Record] = ()) -> list[Table]:
    """The tables of the records that hold something in a field; `beside` as in `marks.marks`.

    Raises:
        ValueError: if none does.
    """
    with_field = [record for record in records if getattr(record, field)]
    if not with_field:
        raise ValueError(f"Expected records with {field}. Received: none")
    return marked_tables(with_field, beside)


def panels(
    groups: Sequence[tuple[str, int]], *, size: tuple[float, float], columns: int
) -> tuple[Figure, list[tuple[SubFigure, list[Axes]]]]:
    """One titled band for each group, with as many panels of `size` inches as it asks for."""
    heights = [math.ceil(count / columns) for _, count in groups]
    across = max(min(count, columns) for _, count in groups)
    extra = 0.55 * len(groups)
    figure = Figure(figsize=(size[0] * across + 0.6, size[1] * sum(heights) + extra), layout="constrained")
    bands = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    drawn = []
    for band, (title, count), height in zip(bands, groups, heights, strict=True):
        grid = band.add_gridspec(height, across)
        axes = [band.add_subplot(grid[place // columns, place % columns]) for place in range(count)]
        drawn.append((band, axes))
        band.suptitle(title, fontsize=10.5, fontweight="bold")
    return figure, drawn


def shared_legend(band: SubFigure, handles: Sequence[Line2D]) -> None:
    """One legend below all panels of the band, in as many columns as are sure to fit."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    width = band.bbox.width / band.get_dpi()
    fitting = int(width / (_ENTRY + _LETTER * longest))
    band.legend(handles=handles, loc="outside lower center", ncols=max(1, min(len(handles), 8, fitting)))


def points_with_bars(cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of cells in percent [n], and how far their bars reach below and above it [2, n]."""
    accuracy = np.array([cell.accuracy for cell in cells])
    low, high = np.array([cell.bounds for cell in cells]).T
    # Rounding can put a bound 1e-14 on the wrong side of its accuracy, which errorbar refuses.
    return accuracy, np.maximum([accuracy - low, high - accuracy], 0)


def colour_entries(names: Mapping[str, str]) -> list[Line2D]:
    """The entries of targets in a legend that has their colours alone, from target -> its name."""
    colours = {target: target_style(target, list(names))[0] for target in names}
    return [Line2D([], [], color=colours[target], label=name) for target, name in names.items()]


def legend_entry(row: Row, table: Table) -> Line2D:
    """The entry of a target in a legend."""
    colour, marker = target_style(row.target, table.targets)
    return Line2D([], [], color=colour, marker=marker, label=row.name)
