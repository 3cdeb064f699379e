"""The finding of a result in one sentence, with its intervals."""

from collections.abc import Sequence

from divtf.reporting.comparison import comparison_tables
from divtf.reporting.evaluation import as_target_record
from divtf.reporting.paired import differences, in_words
from divtf.reporting.tables import Cell, Row, Table, tables
from divtf.storage.evaluations import EvaluationRecord
from divtf.storage.records import CLEAN, WORST_CASE, TargetRecord

_PLAIN = "T_Base"


def table_finding(records: Sequence[TargetRecord], reference: str = _PLAIN) -> str:
    """What is left of the target that fares best, and of the reference, of one model and data set.

    Args:
        records: of one model and data set, at least one.
        reference: the target that it is set beside; where it is the best itself, or there is none of the
            name, that is the next best.
    """
    (table,) = tables(records)
    if not table.attacks:
        return _sentence(table, CLEAN, (0.0,), "on clean images", reference)
    count = f"all {len(table.attacks)} attacks" if len(table.attacks) > 1 else table.attacks[0]
    column = table.worst_cases[0] if table.worst_cases else table.attacks[-1]
    what = f"under {count} of a surrogate" if table.worst_cases else f"under {column} of a surrogate"
    return _sentence(table, column, table.epsilons, what, reference)


def evaluation_finding(records: Sequence[EvaluationRecord], reference: str = _PLAIN) -> str:
    """The same, under everything that a protocol tries."""
    (table,) = tables(map(as_target_record, records))
    what = f"under all that protocol {records[0].protocol} tries"
    return _sentence(table, WORST_CASE, table.epsilons, what, reference)


def comparison_finding(records: Sequence[EvaluationRecord], reference: str) -> str:
    """The same, beside the reference of a comparison."""
    (table,) = comparison_tables(records)
    what = f"under all that protocol {records[0].protocol} tries"
    return _sentence(table, WORST_CASE, table.epsilons, what, reference)


def _sentence(table: Table, column: str, epsilons: Sequence[float], what: str, reference: str) -> str:
    first = epsilons[0]
    measured = [row for row in table.rows if row.cell(column, first)]
    if not measured:
        return "Nothing was measured."
    best, *others = sorted(measured, key=lambda row: -_accuracy(row, column, first))
    beside = next((row for row in others if row.target == reference), others[0] if others else None)
    images = best.cell(column, first).results[0].total  # type: ignore[union-attr]
    kind = "" if column == CLEAN else " attacked"
    said = f"{best.target} classifies {_left(best, column, epsilons)} of {images}{kind} images right {what}"
    if beside is None:
        return f"{said}; {_intervals(table)}."
    said += f", {beside.target} {_left(beside, column, epsilons)}"
    tests = _tests(table, best, beside, column, first)
    return f"{said}; {_intervals(table)}{tests}."


def _accuracy(row: Row, column: str, epsilon: float) -> float:
    cell = row.cell(column, epsilon)
    return cell.accuracy if cell else -1.0


def _left(row: Row, column: str, epsilons: Sequence[float]) -> str:
    """As "86.5 % (81.1 to 90.6) at epsilon 0.1 and 1.0 % (0.3 to 3.6) at 0.3"."""
    cells = [(epsilon, cell) for epsilon in epsilons if (cell := row.cell(column, epsilon))]
    parts = []
    for epsilon, cell in cells:
        named = "epsilon " if not parts else ""
        parts.append(f"{in_percent(cell)} at {named}{epsilon:g}" if epsilon else in_percent(cell))
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def in_percent(cell: Cell) -> str:
    """Accuracy and uncertainty, as "86.5 % (81.1 to 90.6)" of one seed, "86.5 % (± 1.2)" of several."""
    if cell.deviation is not None:
        return f"{cell.accuracy:.1f} % (± {cell.deviation:.1f})"
    low, high = cell.bounds
    return f"{cell.accuracy:.1f} % ({low:.1f} to {high:.1f})"


def _intervals(table: Table) -> str:
    counts = {len(row.records) for row in table.rows}
    several = f"± is the deviation over {max(counts)} seeds" if max(counts) > 1 else ""
    single = "intervals are Wilson's, 95 %" if min(counts) == 1 else ""
    return ", ".join(filter(None, [single, several]))


def _tests(table: Table, ours: Row, theirs: Row, column: str, epsilon: float) -> str:
    found = differences(table, ours.target, theirs.target, column, epsilon)
    if not found:
        return ""
    at = f" at {epsilon:g}" if epsilon else ""
    return f", exact McNemar{at} {', '.join(in_words(each.p_value) for each in found)}"
