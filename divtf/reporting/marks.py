"""The marks of targets whose figures may tell little of their robustness, by all records of a result."""

import dataclasses
from collections.abc import Iterable, Sequence

from divtf.data.paper import TARGETS
from divtf.reporting import leaking
from divtf.reporting.tables import Row, Table, in_order, tables
from divtf.storage.evaluations import ComparisonRecord, EvaluationRecord
from divtf.storage.records import Record, TargetRecord, grouped

MASKED = "†"
"""The mark of a target that shows signs of masked gradients."""
LEAKING = leaking.MARK


def marks(own: Sequence[Record], beside: Iterable[Record] = ()) -> tuple[str, ...]:
    """The marks of a target: `MASKED` where a check of it failed, `LEAKING` where it leaks labels.

    Args:
        own: records of the target, of any kind, of one seed or several.
        beside: others of the same result, of any kind and target: those of the same weights count too.
    """
    known = [*own, *(other for other in beside if any(_is_of_same(record, other) for record in own))]
    is_masked = any(isinstance(record, EvaluationRecord) and record.is_masked for record in known)
    leaks = any(
        isinstance(record, TargetRecord | ComparisonRecord) and leaking.leaks(record) for record in known
    )
    return (MASKED,) * is_masked + (LEAKING,) * leaks


def _is_of_same(record: Record, other: Record) -> bool:
    """Whether two records are of one target, and of the same weights as far as both tell these."""
    weights = {each.provenance.get("weights") for each in (record, other)} - {None}
    return record.run == other.run and len(weights) <= 1


def name_of(own: Sequence[Record], beside: Iterable[Record] = ()) -> str:
    """A target's name with its marks: what is written wherever its figures stand; arguments as in `marks`."""
    return " ".join([own[0].target, *marks(own, beside)])


def names_of(records: Iterable[Record], beside: Sequence[Record] = ()) -> dict[str, str]:
    """Target -> its name with its marks, in the paper's order; of one model and data set."""
    groups = grouped(records, lambda record: record.target)
    return {target: name_of(groups[target], beside) for target in in_order(groups, TARGETS)}


def marked_tables(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> list[Table]:
    """`tables`, whose rows have their marks; `beside` as in `marks`, errors as in `tables`."""

    def marked(row: Row) -> Row:
        return dataclasses.replace(row, marks=marks(row.records, beside))

    return [dataclasses.replace(table, rows=tuple(map(marked, table.rows))) for table in tables(records)]
