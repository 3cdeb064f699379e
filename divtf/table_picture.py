"""Table 2 as a picture. Like `divtf.plots`, it touches no global state and imports no TensorFlow."""

from collections.abc import Iterable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from divtf.plots import STYLE
from divtf.records import CLEAN, WORST_CASE, TargetRecord
from divtf.tables import Row, Table, tables


@matplotlib.rc_context(STYLE)
def table_figure(records: Iterable[TargetRecord]) -> Figure:
    """Table 2 as a picture: accuracies, intervals below them in small, the strongest attacks in bold.

    Source: section 4.2, Table 2.
    """
    found = tables(records)
    columns = max(len(table.columns) for table in found)
    budgets = max(1, *(len(table.epsilons) for table in found))
    width, lines = 0.75 * budgets + 0.35, sum(2 + len(table.rows) for table in found)
    left = 1.3 + 0.08 * max(len(target) for table in found for target in table.targets)
    figure = Figure(figsize=(left + width * columns, 0.44 * lines + 0.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-left, width * columns), ylim=(lines, 0))
    axes.axis("off")
    line = 0.0
    for table in found:
        _draw_table(axes, table, line, left, width)
        line += 2 + len(table.rows)
    return figure


def _draw_table(axes: Axes, table: Table, top: float, left: float, width: float) -> None:
    """Title and header on two lines from `top`, then a line for each target."""
    budgets = " / ".join(f"{epsilon:g}" for epsilon in table.epsilons)
    title = f"{table.title}, accuracy in percent{f' at epsilon {budgets}' if budgets else ''}"
    axes.text(0.1 - left, top + 0.55, title, va="center", fontweight="bold")
    names = [CLEAN, *("worst case" if name == WORST_CASE else name for name in table.columns)]
    centres = [-0.55, *(width * (place + 0.5) for place in range(len(table.columns)))]
    for name, centre in zip(names, centres, strict=True):
        axes.text(centre, top + 1.5, name, ha="center", va="center")
    for line in (top + 1.05, top + 1.95, top + 1.95 + len(table.rows)):
        axes.axhline(line, color="black", linewidth=0.8)
    for place, row in enumerate(table.rows):
        middle = top + 2.45 + place
        axes.text(0.1 - left, middle - 0.12, row.target, va="center")
        for name, centre in zip((CLEAN, *table.columns), centres, strict=True):
            numbers, spreads = _cell_texts(table, row, name)
            axes.text(centre, middle - 0.16, numbers, ha="center", va="center")
            axes.text(centre, middle + 0.22, spreads, ha="center", va="center", fontsize=6.5, color="#555555")


def _cell_texts(table: Table, row: Row, name: str) -> tuple[str, str]:
    numbers, spreads = [], []
    for epsilon in (0.0,) if name == CLEAN else table.epsilons:
        cell = row.cell(name, epsilon)
        number = "-" if cell is None else f"{cell.accuracy:.1f}"
        bold = cell is not None and name != CLEAN and name in row.strongest(table.attacks, epsilon)
        numbers.append(rf"$\mathbf{{{number}}}$" if bold else number)
        spreads.append("" if cell is None else cell.spread)
    return " / ".join(numbers), "  ".join(spreads)
