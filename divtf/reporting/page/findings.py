"""The finding of a result in one sentence, with its intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from divtf.reporting import leaking
from divtf.reporting.comparison import comparison_tables
from divtf.reporting.evaluation import evaluation_table
from divtf.reporting.marks import MASKED, marked_tables
from divtf.reporting.paired import differences, in_words
from divtf.reporting.tables import Cell, Row, Table
from divtf.storage.evaluations import ComparisonRecord, EvaluationRecord
from divtf.storage.records import CLEAN, WORST_CASE, Record, TargetRecord, is_weak

_PLAIN = "T_Base"
# A line does not end before the sign.
_PERCENT = "\N{NO-BREAK SPACE}%"

_BUDGETS = {
    True: "REDUCED: less than the paper's budget",
    False: "the paper's budget",
    None: "a budget of its own: the paper has none for this model",
}


def table_finding(records: Sequence[TargetRecord]) -> str:
    """What is left of the target that fares best, and of T_Base, of one model and data set.

    Where T_Base is the best itself, or is not there, it is the next best that is set beside.

    Args:
        records: of one model and data set, at least one.
    """
    (table,) = marked_tables(records)
    if not table.attacks:
        return _sentence(table, CLEAN, (0.0,), "on clean images", _PLAIN)
    count = f"all {len(table.attacks)} attacks" if len(table.attacks) > 1 else table.attacks[0]
    column = table.worst_cases[0] if table.worst_cases else table.attacks[-1]
    what = f"under {count} from a surrogate" if table.worst_cases else f"under {column} from a surrogate"
    return _sentence(table, column, table.epsilons, what, _PLAIN)


def evaluation_finding(records: Sequence[EvaluationRecord], beside: Sequence[Record] = ()) -> str:
    """The same, under everything that a protocol tries; `beside` as in `marks.marks`."""
    table = evaluation_table(records, beside)
    what = f"under everything that protocol {records[0].tried_by} tries"
    return _sentence(table, WORST_CASE, table.epsilons, what, _PLAIN)


def comparison_finding(records: Sequence[ComparisonRecord], beside: Sequence[Record] = ()) -> str:
    """The same, beside the reference of a comparison; `beside` as in `marks.marks`."""
    (table,) = comparison_tables(records, beside)
    what = f"under everything that protocol {records[0].tried_by} tries"
    return _sentence(table, WORST_CASE, table.epsilons, what, records[0].reference)


def caveats(records: Mapping[str, Sequence[Any]]) -> str:
    """What belongs beside the finding, as "One seed; REDUCED: less than the paper's budget.".

    Args:
        records: kind -> its records, of one model and data set.
    """
    everything = [record for group in records.values() for record in group]
    scored = [record for kind in ("table", "comparison") for record in records.get(kind, ())]
    checked = [record for kind in ("evaluation", "comparison") for record in records.get(kind, ())]
    masked = [record for record in checked if record.is_masked]
    leaking_ones = [record for record in scored if leaking.leaks(record)]
    unknown = [record for record in scored if leaking.unexamined(record)]
    seeds = {record.seed for record in everything}
    budgets = dict.fromkeys(
        _BUDGETS[record.budget["reduced"]] for record in everything if "reduced" in record.budget
    )
    parts = [
        *(["one seed"] if len(seeds) == 1 else []),
        *budgets,
        *(
            f"{name} {leaking.MARK} leaks labels: what it keeps under attack may tell nothing of robustness"
            for name in _targets(leaking_ones)
        ),
        *(
            [f"these records hold no test for label leaking of {', '.join(_targets(unknown))}"]
            if unknown
            else []
        ),
        *(f"{name} {MASKED} shows signs of masked gradients" for name in _targets(masked)),
        *(
            f"the surrogate gets far more clean images wrong than {name}: a weak attacker"
            for name in _targets(list(filter(_has_weak_surrogate, records.get("table", ()))))
        ),
    ]
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _has_weak_surrogate(record: TargetRecord) -> bool:
    clean = record.result(CLEAN, 0.0)
    told = [result.surrogate_settings.get("clean accuracy") for result in record.results]
    return clean is not None and any(is_weak(each, clean.accuracy) for each in told if each is not None)


def _targets(records: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(record.target for record in records))


def _sentence(table: Table, column: str, epsilons: Sequence[float], what: str, reference: str) -> str:
    """As "Under ..., T_Div keeps 57.0 % (95 % interval 50.1 to 63.7) of 200 images right at epsilon 0.1"."""
    first = epsilons[0]
    measured = [row for row in table.rows if row.cell(column, first)]
    if not measured:
        return "Nothing was measured."
    best, *others = sorted(measured, key=lambda row: -_accuracy(row, column, first))
    beside = next((row for row in others if row.target == reference), others[0] if others else None)
    rows = [best, beside] if beside else [best]
    cells = [(row.name, cell) for row in rows if (cell := row.cell(column, first))]
    (name, cell), *rest = cells
    at = f" at epsilon {first:g}" if first else ""
    said = f"{what}, {name} keeps {in_percent(cell, True)} of {cell.results[0].total} images right{at}"
    said += "".join(f", {other} {in_percent(found)}" for other, found in rest)
    said += _tests(table, best, beside, column, first) if beside else ""
    for epsilon in epsilons[1:]:
        left = [f"{row.name} {in_percent(cell)}" for row in rows if (cell := row.cell(column, epsilon))]
        said += f"; at {epsilon:g}, {' and '.join(left)}" if left else ""
    return f"{said[0].upper()}{said[1:]}."


def _accuracy(row: Row, column: str, epsilon: float) -> float:
    cell = row.cell(column, epsilon)
    return cell.accuracy if cell else -1.0


def in_percent(cell: Cell, named: bool = False) -> str:
    """Accuracy and uncertainty, as "86.5 % (81.1 to 90.6)" of one seed, "86.5 % (± 1.2)" of several.

    Args:
        cell: what was measured.
        named: whether to say what the uncertainty is.
    """
    if cell.deviation is not None:
        over = f" over {len(cell.results)} seeds" if named else ""
        return f"{cell.accuracy:.1f}{_PERCENT} (± {cell.deviation:.1f}{over})"
    low, high = cell.bounds
    return (
        f"{cell.accuracy:.1f}{_PERCENT} ({f'95{_PERCENT} interval ' if named else ''}{low:.1f} to {high:.1f})"
    )


def _tests(table: Table, ours: Row, theirs: Row, column: str, epsilon: float) -> str:
    found = differences(table, ours.target, theirs.target, column, epsilon)
    if not found:
        return ""
    return f" (exact McNemar {', '.join(in_words(each.p_value) for each in found)})"
