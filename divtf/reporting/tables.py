"""Tables: records grouped by model and dataset, the seeds of a target put together in one row.

Values only: `markdown`, `plain_text`, `table_data` and `figures` write and draw them.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

from divtf.data import paper
from divtf.reporting.labels import attack_of, is_worst_case, labelled
from divtf.storage.records import (
    CLEAN,
    WORST_CASE,
    TargetRecord,
    TransferResult,
    attacks,
    epsilons,
    grouped,
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Accuracy of one target under one attack at one epsilon (paper, Table 2: one number).

    Attributes:
        results: one result for each seed, at least one.
    """

    results: tuple[TransferResult, ...]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the seeds, in percent."""
        return 100 * statistics.fmean(result.accuracy for result in self.results)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (n - 1), in points; None for a single seed."""
        if len(self.results) == 1:
            return None
        return 100 * statistics.stdev(result.accuracy for result in self.results)

    @property
    def bounds(self) -> tuple[float, float]:
        """In percent: the 95 % Wilson interval of a single seed; of several, mean -+ deviation."""
        if self.deviation is None:
            low, high = self.results[0].interval
            return 100 * low, 100 * high
        return self.accuracy - self.deviation, self.accuracy + self.deviation

    @property
    def spread(self) -> str:
        """The uncertainty in words: "[49.0-94.3]" of a single seed, "±1.2 n=3" of several."""
        if self.deviation is None:
            low, high = self.bounds
            return f"[{low:.1f}-{high:.1f}]"
        return f"±{self.deviation:.1f} n={len(self.results)}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One target of a table.

    Attributes:
        target: its name.
        records: one for each seed.
        marks: what its figures must not stand without, as `marks.marks` tells it; `tables` knows of none.
    """

    target: str
    records: tuple[TargetRecord, ...]
    marks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The target with its marks: what is written wherever its figures stand."""
        return " ".join([self.target, *self.marks])

    def cell(self, attack: str, epsilon: float) -> Cell | None:
        """What was measured for that attack at that epsilon, or None."""
        results = tuple(result for record in self.records if (result := record.result(attack, epsilon)))
        return Cell(results) if results else None

    def strongest(self, names: Iterable[str], epsilon: float) -> frozenset[str]:
        """The attacks that leave the lowest accuracy at that epsilon: the paper's bold, all of a tie."""
        accuracies = {name: cell.accuracy for name in names if (cell := self.cell(name, epsilon))}
        lowest = min(accuracies.values(), default=math.nan)
        return frozenset(
            name for name, value in accuracies.items() if math.isclose(value, lowest, abs_tol=1e-9)
        )

    def only(self, attack: str, epsilon: float) -> int | None:
        """Images of all seeds that only this attack of that epsilon fools; None where that is not known."""
        pairs = [(record, record.result(attack, epsilon)) for record in self.records]
        counts = [only_fooled(record, result) for record, result in pairs if result]
        known = [count for count in counts if count is not None]
        return sum(known) if known and len(known) == len(counts) else None

    def saturated(self, epsilon: float) -> float | None:
        """Largest share of saturated images over attacks and seeds at that epsilon, in percent."""
        results = [result for record in self.records for result in record.results]
        shares = [
            result.saturated for result in results if math.isclose(result.epsilon, epsilon, abs_tol=1e-9)
        ]
        return 100 * max(shares) if shares else None


@dataclasses.dataclass(frozen=True)
class Table:
    """All targets of one model on one dataset.

    Attributes:
        model, dataset: registry names.
        rows: the targets, the paper's first and in its order.
        attacks: the attacks measured, the paper's first and in its order. Where results of one differ in its
            settings, each has a label that tells them, as "pgd_cw, steps 5", here and in the records.
        epsilons: l_inf budgets, ascending, without the clean 0.
    """

    model: str
    dataset: str
    rows: tuple[Row, ...]
    attacks: tuple[str, ...]
    epsilons: tuple[float, ...]

    @property
    def title(self) -> str:
        """Model and dataset, as "conv3 on mnist"."""
        return f"{self.model} on {self.dataset}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets of the rows."""
        return tuple(row.target for row in self.rows)

    @property
    def names(self) -> dict[str, str]:
        """Target -> its name with its marks."""
        return {row.target: row.name for row in self.rows}

    @property
    def records(self) -> tuple[TargetRecord, ...]:
        """The records of all rows."""
        return tuple(record for row in self.rows for record in row.records)

    @property
    def columns(self) -> tuple[str, ...]:
        """The attacks, and the worst case over them where it was measured."""
        return (*self.attacks, *self.worst_cases)

    @property
    def worst_cases(self) -> tuple[str, ...]:
        """The worst case where it was measured; several where images were stored in several ways."""
        names = dict.fromkeys(result.attack for record in self.records for result in record.results)
        return tuple(filter(is_worst_case, names))

    def paper_accuracy(self, target: str, attack: str, epsilon: float) -> float | None:
        """Table 2's accuracy in percent, or None where it has no such cell on these images."""
        if not paper.is_paper_dataset(self.model, self.dataset):
            return None
        return paper.paper_accuracy(self.model, target, attack, epsilon)

    def difference(self, row: Row, attack: str, epsilon: float) -> float | None:
        """Ours less Table 2's accuracy, in points; None where one of the two is missing."""
        cell, published = row.cell(attack, epsilon), self.paper_accuracy(row.target, attack, epsilon)
        return None if cell is None or published is None else cell.accuracy - published

    @property
    def places(self) -> tuple[tuple[str, float], ...]:
        """(attack, epsilon) of every cell of a row: clean first, then column by column."""
        return ((CLEAN, 0.0), *((name, epsilon) for name in self.columns for epsilon in self.epsilons))


@dataclasses.dataclass(frozen=True)
class Gain:
    """What one target is ahead of another under attack, in points; negative where it is behind.

    Attributes:
        epsilon: l_inf budget; 0 for clean images, where worst and mean are the same.
        worst: difference of the accuracies under the strongest attack on each.
        mean: difference of the mean accuracies over the attacks.
        attacks: number of attacks compared: those that both targets were tried with.
    """

    epsilon: float
    worst: float
    mean: float
    attacks: int


def tables(records: Iterable[TargetRecord]) -> list[Table]:
    """Groups records into one table for each (model, dataset), in order of appearance.

    Raises:
        ValueError: if there are no records, or if two of them, or two results of one, are of the same thing.
    """
    groups: dict[tuple[str, str], list[TargetRecord]] = {}
    for record in records:
        groups.setdefault((record.model, record.dataset), []).append(record)
    if not groups:
        raise ValueError("Expected at least one record. Received: none")
    return [_table(model, dataset, group) for (model, dataset), group in groups.items()]


def gains(table: Table, target: str = "T_Div", base: str = "T_Base") -> list[Gain]:
    """What a target is ahead of another: on clean images, then at each epsilon (paper, section 4.2).

    Returns:
        One gain for each epsilon at which both were measured, over the seeds that both have; none if the
        table lacks one of the two, or they have no seed in common.
    """
    rows = {row.target: row for row in table.rows}
    if not {target, base} <= rows.keys():
        return []
    seeds = common_seeds(rows[target], rows[base])
    mine, other = _of_seeds(rows[target], seeds), _of_seeds(rows[base], seeds)
    ahead = []
    for epsilon, names in [(0.0, (CLEAN,)), *((epsilon, table.attacks) for epsilon in table.epsilons)]:
        pairs = [(mine.cell(name, epsilon), other.cell(name, epsilon)) for name in names]
        both = [(ours.accuracy, theirs.accuracy) for ours, theirs in pairs if ours and theirs]
        if both:
            ours, theirs = zip(*both, strict=True)
            mean = statistics.fmean(ours) - statistics.fmean(theirs)
            ahead.append(Gain(epsilon, min(ours) - min(theirs), mean, len(both)))
    return ahead


def common_seeds(ours: Row, theirs: Row) -> list[int]:
    """The seeds of which both targets have records, in order."""
    return sorted({record.seed for record in ours.records} & {record.seed for record in theirs.records})


def _of_seeds(row: Row, seeds: Sequence[int]) -> Row:
    return dataclasses.replace(row, records=tuple(each for each in row.records if each.seed in seeds))


def only_fooled(record: TargetRecord, result: TransferResult) -> int | None:
    """How many images the result's attack fools, of those that withstand all other attacks of its epsilon.

    None if it is no single attack, there is no other, or not all kept their outcomes on the same images.
    """
    rivals = [
        other
        for other in record.results
        if attack_of(other.attack) not in (CLEAN, WORST_CASE)
        and (other.epsilon, other.stored_as) == (result.epsilon, result.stored_as)
    ]
    others = [other for other in rivals if other.attack != result.attack]
    paired = all(each.hits and each.images == result.images for each in rivals)
    if len(others) == len(rivals) or not others or not paired:
        return None
    by_image = zip(result.outcomes, *(other.outcomes for other in others), strict=True)
    return sum(all(withstood) and not hit for hit, *withstood in by_image)


def _table(model: str, dataset: str, group: Sequence[TargetRecord]) -> Table:
    group = labelled(group)
    keys = [
        (record.target, record.seed, result.attack, result.epsilon)
        for record in group
        for result in record.results
    ]
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise ValueError(
            f"Expected one result for each (target, seed, attack, epsilon) of {model} on {dataset}. "
            f"Received: several for {twice[0]}"
        )
    rows = grouped(group, lambda record: record.target)
    return Table(
        model,
        dataset,
        tuple(Row(target, tuple(rows[target])) for target in in_order(rows, paper.TARGETS)),
        tuple(in_order((name for name in attacks(group) if not is_worst_case(name)), paper.ATTACKS)),
        tuple(epsilons(group)),
    )


def in_order(names: Iterable[str], first: Sequence[str]) -> list[str]:
    """The names and labels, those of `first` in its order and before all others, whose order stays."""
    return sorted(names, key=lambda name: [*first, attack_of(name)].index(attack_of(name)))
