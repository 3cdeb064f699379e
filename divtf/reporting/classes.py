"""Accuracy class by class, for records that know their classes' names."""

import dataclasses
from collections.abc import Sequence

from divtf.reporting.marks import name_of
from divtf.storage.records import CLEAN, WORST_CASE, Record, TargetRecord, TransferResult, epsilons

# More classes than these are not read one by one: the ones that fare worst are shown.
_SHOWN = 30


@dataclasses.dataclass(frozen=True)
class _Class:
    """How one class fares: its name, and (correct, total) in each column of the table."""

    name: str
    counts: tuple[tuple[int, int], ...]

    @property
    def accuracies(self) -> list[float]:
        """From the last column, the strongest attack, to clean images; a class without images comes last."""
        return [correct / total if total else 2.0 for correct, total in reversed(self.counts)]

    @property
    def line(self) -> str:
        """The class as a line of Markdown."""
        cells = [f"{100 * c / n:.1f} <sub>of {n}</sub>" if n else "-" for c, n in self.counts]
        return f"| {' | '.join([self.name.replace('|', '&#124;'), *cells])} |"


def has_classes(records: Sequence[TargetRecord]) -> bool:
    """Whether some record tells of its classes."""
    return any(_columns(record) for record in records)


def class_counts(record: TargetRecord) -> tuple[list[str], list[tuple[str, tuple[tuple[int, int], ...]]]]:
    """Names of the columns, clean and worst case, and (class, its (correct, total) in each), worst first.

    Both are empty where a record does not tell of its classes. Of many classes the worst ones are given.
    """
    columns = _columns(record)
    if not columns:
        return [], []
    return _heads(columns), [(row.name, row.counts) for row in _worst_first(record, columns)[:_SHOWN]]


def classes_markdown(records: Sequence[TargetRecord], beside: Sequence[Record] = ()) -> str:
    """A table for each target and seed that tells of its classes: clean images, and the worst case.

    `beside` is as in `marks.marks`.
    """
    return "\n\n".join(_block(record, name_of([record], beside)) for record in records if _columns(record))


def _columns(record: TargetRecord) -> list[TransferResult]:
    """The results that are shown: clean and worst case, as far as classes were counted."""
    places = [(CLEAN, 0.0), *((WORST_CASE, epsilon) for epsilon in epsilons([record]))]
    results = [record.result(*place) for place in places]
    return [result for result in results if result and result.total_by_class and record.class_names]


def _heads(columns: Sequence[TransferResult]) -> list[str]:
    return [CLEAN if result.attack == CLEAN else f"worst case at {result.epsilon:g}" for result in columns]


def _block(record: TargetRecord, name: str) -> str:
    columns = _columns(record)
    worst_first = _worst_first(record, columns)
    lines = [
        f"### {record.subject}, {name}, seed {record.seed}: percent of images, worst first\n",
        f"| {' | '.join(['class', *_heads(columns)])} |",
        f"| {' | '.join(['---', *['---:'] * len(columns)])} |",
        *(row.line for row in worst_first[:_SHOWN]),
    ]
    if len(worst_first) > _SHOWN:
        lines.append(f"\n{len(worst_first) - _SHOWN} classes that fare better are left out.")
    return "\n".join(lines)


def _worst_first(record: TargetRecord, columns: Sequence[TransferResult]) -> list[_Class]:
    counts = [_counts(result, len(record.class_names)) for result in columns]
    rows = [_Class(*row) for row in zip(record.class_names, zip(*counts, strict=True), strict=True)]
    return sorted(rows, key=lambda row: row.accuracies)


def _counts(result: TransferResult, classes: int) -> list[tuple[int, int]]:
    """(correct, total) of each class; images of the last ones may not have been tried."""
    pairs = list(zip(result.correct_by_class, result.total_by_class, strict=True))
    return pairs + [(0, 0)] * (classes - len(pairs))
