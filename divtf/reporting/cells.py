"""How numbers of a table are written."""

from divtf.reporting.tables import Cell
from divtf.storage.records import WORST_CASE


def percent(cell: Cell | None) -> str:
    """The accuracy of a cell, "-" if it was not measured."""
    return "-" if cell is None else f"{cell.accuracy:.1f}"


def spread(cell: Cell | None) -> str:
    """The uncertainty of a cell, "" if it was not measured."""
    return "" if cell is None else cell.spread


def signed(points: float) -> str:
    """A difference with its sign, to a tenth; never "-0.0"."""
    return f"{round(points, 1) + 0.0:+.1f}"


def signed_range(interval: tuple[float, float]) -> str:
    """The bounds of a difference, as "-0.1 to +1.3"."""
    return " to ".join(map(signed, interval))


def heading(name: str) -> str:
    """What stands above the column of an attack."""
    return name.replace(WORST_CASE, "worst case")
