"""Records of runs made apart put together: more seeds of the same targets, or more targets. No TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from divtf.errors import require
from divtf.storage.records import Record, grouped

Records = Mapping[str, Sequence[Any]]
"""Name of a kind -> its records."""


def pooled(kept: Records, added: Records) -> dict[str, list[Any]]:
    """All records of both; of one run and kind the added one.

    What is kept of a run that was trained anew is left out: it is of other weights.

    Args:
        kept: of earlier runs.
        added: of later ones.

    Returns:
        Name of a kind -> the kept records, then the added ones; kinds without records are left out.
    """
    weights = {record.run: _weights(record) for records in added.values() for record in records}
    both: dict[str, list[Any]] = {}
    for kind in dict.fromkeys((*kept, *added)):
        again = {(record.run, record.table) for record in added.get(kind, ())}
        both[kind] = [
            record
            for record in kept.get(kind, ())
            if (record.run, record.table) not in again
            and weights.get(record.run, _weights(record)) == _weights(record)
        ]
        both[kind] += added.get(kind, ())
    return {kind: records for kind, records in both.items() if records}


def _weights(record: Record) -> str | None:
    return record.provenance.get("weights")


def require_alike(records: Sequence[Record]) -> None:
    """Refuse records of one kind whose tables would say of some what is true of others alone.

    Raises:
        InputError: if targets of a table were not tried alike, or seeds of a target not trained alike.
    """
    for table, targets in grouped(records, lambda record: record.table).items():
        _require_same(f"all of {table} tried alike", targets, lambda record: record.table_conditions())
        for target, seeds in grouped(targets, lambda record: record.target).items():
            _require_same(f"all seeds of {target}, {table} alike", seeds, lambda record: record.conditions())


def _require_same(
    expected: str, records: Sequence[Record], conditions_of: Callable[[Record], Mapping[str, Any]]
) -> None:
    first, *others = records
    wanted = conditions_of(first)
    for other in others:
        received = conditions_of(other)
        differ = [name for name in dict.fromkeys((*wanted, *received)) if _differ(name, wanted, received)]
        require(
            not differ,
            f"{expected}, as {first.run}: {_told(wanted, differ)}",
            f"{other.run}: {_told(received, differ)}",
        )


def _differ(name: str, *conditions: Mapping[str, Any]) -> bool:
    """Whether they are known to differ; what an older record does not tell is None."""
    one, other = (each.get(name, "none") for each in conditions)
    return None not in (one, other) and one != other


def _told(conditions: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first few of the named conditions, in words."""
    more = f"; {len(names) - 3} more" if len(names) > 3 else ""
    return "; ".join(f"{name} {conditions.get(name, 'none')!s:.120}" for name in names[:3]) + more
