"""Table 2 as plain text, for the console."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from divtf.reporting import captions
from divtf.reporting.cells import heading, percent, spread
from divtf.reporting.marks import marked_tables
from divtf.reporting.tables import Row, Table
from divtf.storage.records import CLEAN, Record, TargetRecord

WIDTH = 118


def table_text(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> str:
    """Table 2 for the console: plain text, aligned, one block for each model and dataset.

    Args:
        records: targets in any order; several seeds of a target become one row.
        beside: as in `marks.marks`.

    Returns:
        Accuracies in percent, a `*` after the strongest attack of a row and epsilon, below them the 95 %
        Wilson intervals (a single seed) or standard deviations (several), and the gain of T_Div over T_Base.

    Source: section 4.2, Table 2.
    """
    return "\n\n".join(_text_block(table) for table in marked_tables(records, beside))


def _text_block(table: Table) -> str:
    return "\n".join(table_lines(table, [captions.measure(table), *captions.notes(table, captions.commits)]))


def table_lines(table: Table, notes: Sequence[str]) -> list[str]:
    """The lines of one table: title, header, rows, and below them the notes."""
    rows = [line for row in table.rows for line in _text_lines(table, row)]
    lines = aligned([["target", CLEAN, *map(heading, table.columns)], *rows])
    rule = "-" * max(map(len, lines))
    wrapped = [line for note in notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]
    return [f"{table.title}: {captions.quantity(table)}", rule, lines[0], rule, *lines[1:], rule, *wrapped]


def _text_lines(table: Table, row: Row) -> Iterator[list[str]]:
    """The accuracies of a target, then a line of intervals for each epsilon."""
    clean = row.cell(CLEAN, 0.0)
    strongest = {epsilon: row.strongest(table.attacks, epsilon) for epsilon in table.epsilons}

    def number(name: str, epsilon: float) -> str:
        cell = row.cell(name, epsilon)
        return f"{percent(cell):>5}{'*' if name in strongest[epsilon] else ' '}"

    yield [
        row.name,
        f"{percent(clean):>5}",
        *("/".join(number(name, epsilon) for epsilon in table.epsilons) for name in table.columns),
    ]
    for index, epsilon in enumerate(table.epsilons or (0.0,)):
        cells = [row.cell(name, epsilon) for name in table.columns]
        label = f"  at {epsilon:g}" if epsilon else ""
        yield [label, spread(clean) if index == 0 else "", *map(spread, cells)]


def aligned(grid: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose columns are as wide as what they hold."""
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in grid]
