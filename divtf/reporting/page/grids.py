"""Tables of a page: Table 2, what a protocol leaves, comparisons, classes, checks, and any grid of texts."""

import math
from collections.abc import Mapping, Sequence

from divtf.reporting import comparison
from divtf.reporting.cells import heading, percent, signed, spread
from divtf.reporting.classes import class_counts
from divtf.reporting.evaluation import left_head, left_lines
from divtf.reporting.markdown import plain
from divtf.reporting.marks import MASKED, name_of
from divtf.reporting.page.elements import Cell, Grid, Line
from divtf.reporting.tables import Cell as Measured
from divtf.reporting.tables import Row, Table
from divtf.storage.evaluations import ComparisonRecord, EvaluationRecord
from divtf.storage.records import CLEAN, Record, TargetRecord


def table_grid(table: Table) -> Grid:
    """Table 2: a line for each target and epsilon; the paper's figures wait to be asked for."""
    names = [CLEAN, *table.columns]
    lines = []
    for row in table.rows:
        for epsilon in table.epsilons or (0.0,):
            strongest = row.strongest(table.attacks, epsilon) if epsilon else frozenset()
            cells = [_table_cell(table, row, name, epsilon, name in strongest) for name in names]
            saturated = row.saturated(epsilon) if epsilon else None
            last = text_cell("-" if saturated is None else f"{saturated:.1f}")
            lines.append(Line((Cell(row.name), _epsilon_cell(epsilon), *cells, last), row.target))
    head = ("target", "epsilon", *map(heading, names), "saturated, %")
    return Grid(f"Accuracy in percent, {table.title}", head, tuple(lines))


def _table_cell(table: Table, row: Row, attack: str, epsilon: float, strong: bool) -> Cell:
    at = 0.0 if attack == CLEAN else epsilon
    published, difference = table.paper_accuracy(row.target, attack, at), table.difference(row, attack, at)
    paper = "" if published is None or difference is None else f"{published:.1f}, {signed(difference)}"
    return measured_cell(row.cell(attack, at), strong=strong, paper=paper)


def measured_cell(cell: Measured | None, *, mark: str = "", strong: bool = False, paper: str = "") -> Cell:
    """An accuracy and its uncertainty; what was not measured is sorted last."""
    key = -1.0 if cell is None else cell.accuracy
    return Cell(percent(cell) + (mark if cell else ""), spread(cell), key, strong, paper)


def text_cell(text: str) -> Cell:
    """A text, sorted as a number where it is one."""
    try:
        number = float(text)
    except ValueError:
        return Cell(text, key=-1.0 if text == "-" else None)
    return Cell(text, key=number if math.isfinite(number) else None)


def _epsilon_cell(epsilon: float) -> Cell:
    return Cell(f"{epsilon:g}", key=epsilon) if epsilon else text_cell("-")


def text_grid(caption: str, grid: Sequence[Sequence[str]], names: Mapping[str, str] | None = None) -> Grid:
    """A grid of texts, its head first; lines that begin with the name of a target are that target's.

    Args:
        caption: what it is.
        grid: of Markdown.
        names: target -> its name, as its lines have it; None where lines are no target's.
    """
    head, *lines = grid
    targets = {name: target for target, name in (names or {}).items()}
    made = [Line(tuple(map(text_cell, map(plain, line))), targets.get(line[0], "")) for line in lines]
    return Grid(caption, tuple(head), tuple(made))


def evaluation_grid(table: Table, records: Sequence[EvaluationRecord]) -> Grid:
    """What a protocol leaves of each target: a line for each target and epsilon."""
    lines = []
    for row, epsilon, found, worst in left_lines(table, records):
        mark = "".join(row.marks)
        cells = [*(measured_cell(cell, mark=mark) for cell in found), text_cell(worst)]
        lines.append(Line((Cell(row.target), _epsilon_cell(epsilon), *cells), row.target))
    caption = f"What is left under protocol {records[0].tried_by}, in percent"
    return Grid(caption, tuple(left_head(table)), tuple(lines))


def comparison_grid(table: Table, records: Sequence[ComparisonRecord]) -> Grid:
    """Defences of one model and data set beside a reference, by surrogate and in all, with their cost."""
    reference = records[0].reference
    lines = []
    for row, epsilon, found, last in comparison.comparison_lines(table, records):
        cells = [*map(measured_cell, found), *map(text_cell, last)]
        lines.append(Line((Cell(row.name), _epsilon_cell(epsilon), *cells), row.target))
    head = tuple(comparison.comparison_head(table, reference))
    return Grid(f"What is left of each, in percent, beside {reference}", head, tuple(lines))


def class_grids(records: Sequence[TargetRecord], beside: Sequence[Record] = ()) -> list[Grid]:
    """Accuracy class by class, a table for each target and seed that tells of its classes."""
    grids = []
    for record in records:
        heads, rows = class_counts(record)
        lines = [
            Line((Cell(name), *(_count_cell(right, total) for right, total in counts)), record.target)
            for name, counts in rows
        ]
        if lines:
            name = f"{name_of([record], beside)}, seed {record.seed}"
            caption = f"{name}: percent of images of each class, worst first"
            grids.append(Grid(caption, ("class", *heads), tuple(lines)))
    return grids


def _count_cell(right: int, total: int) -> Cell:
    if not total:
        return text_cell("-")
    return Cell(f"{100 * right / total:.1f}", f"of {total}", right / total)


def check_grids(records: Sequence[EvaluationRecord]) -> list[Grid]:
    """Signs of masked gradients, a table for each target and seed that was looked at."""
    return [
        Grid(
            f"{record.target}, seed {record.seed}, at epsilon {min(record.epsilons):g} if no other is named",
            ("looked for", "passed", "what was found"),
            tuple(
                Line(
                    (
                        Cell(record.check_name(check)),
                        Cell("yes" if check["passed"] else f"no {MASKED}", strong=not check["passed"]),
                        Cell(check["sentence"]),
                    ),
                    record.target,
                )
                for check in record.checks
            ),
        )
        for record in records
        if record.checks
    ]
