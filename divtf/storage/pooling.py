"""Records of runs made apart put together: more seeds of the same targets, or more targets. No TensorFlow."""

from collections.abc import Mapping, Sequence
from typing import Any

from divtf.errors import require
from divtf.storage.records import Record, grouped

Records = Mapping[str, Sequence[Any]]
"""Name of a kind -> its records."""


def pooled(kept: Records, added: Records) -> dict[str, list[Any]]:
    """All records of both, but those kept of a run that is among the added ones.

    Args:
        kept: of earlier runs; what is kept of a run that was made anew is of other weights.
        added: of later ones.

    Returns:
        Name of a kind -> the kept records, then the added ones.

    Raises:
        InputError: if seeds of a target were not trained and tried alike, which one row would hide.
    """
    again = {_run_of(record) for records in added.values() for record in records}
    both = {
        kind: [
            *(record for record in kept.get(kind, ()) if _run_of(record) not in again),
            *added.get(kind, ()),
        ]
        for kind in {**kept, **added}
    }
    for records in both.values():
        _require_alike(records)
    return {kind: records for kind, records in both.items() if records}


def _run_of(record: Record) -> tuple[str, str, int]:
    return record.target, record.subject, record.seed


def _require_alike(records: Sequence[Record]) -> None:
    """Refuse records of one target that differ in their conditions."""
    for name, seeds in grouped(records, lambda record: f"{record.target}, {record.subject}").items():
        first, *others = seeds
        expected = first.conditions()
        for other in others:
            received = other.conditions()
            differ = [key for key in {**expected, **received} if expected.get(key) != received.get(key)]
            require(
                not differ,
                f"all seeds of {name} alike, as seed {first.seed}: {_told(expected, differ)}",
                f"seed {other.seed}: {_told(received, differ)}",
            )


def _told(conditions: Mapping[str, Any], keys: Sequence[str]) -> str:
    return "; ".join(f"{key} {conditions.get(key)!s:.120}" for key in keys)
