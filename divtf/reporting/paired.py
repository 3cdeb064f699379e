"""Two targets on the same images: compared image by image by McNemar's exact test, and seed by seed."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from divtf.reporting.cells import heading, signed, signed_range
from divtf.reporting.tables import Row, Table
from divtf.storage.records import CLEAN, NORMAL_95, TransferResult

COMPARED = [("T_Div", "T_Base"), ("T_Div", "T_Noise"), ("T_Ens+Div", "T_Ens"), ("T_Ens+Div", "T_Base")]
"""Targets whose gain over another one is told where both are in a table."""


@dataclasses.dataclass(frozen=True)
class Paired:
    """How often two targets differ on the same images.

    Attributes:
        ours_only: images that the first alone classifies as labelled.
        theirs_only: images that the second alone does.
        total: images that both were tried on.
    """

    ours_only: int
    theirs_only: int
    total: int

    @property
    def difference(self) -> float:
        """The first's accuracy less the second's, in points."""
        return 100 * (self.ours_only - self.theirs_only) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, in points: of the choice of images, not of training runs.

        Source: Agresti and Min (2005), "Simple improved confidence intervals for comparing matched
        proportions": Wald's interval after half an image is added to each of the four counts.
        """
        total, gained = self.total + 2, self.ours_only - self.theirs_only
        differ = self.ours_only + self.theirs_only + 1
        half = NORMAL_95 * math.sqrt(differ - gained**2 / total)
        return 100 * (gained - half) / total, 100 * (gained + half) / total

    @property
    def p_value(self) -> float:
        """Exact two-sided p of McNemar's test.

        If neither is better, each image in which they differ is the toss of a fair coin. It speaks of the
        choice of images, not of other training runs.

        Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions".
        """
        from scipy import stats  # Here, since it takes most of a second.

        differ = self.ours_only + self.theirs_only
        return float(stats.binomtest(self.ours_only, differ).pvalue) if differ else 1.0


def paired(ours: Sequence[bool], theirs: Sequence[bool]) -> Paired:
    """Counts of two targets' outcomes on the same images in the same order, at least one.

    Raises:
        ValueError: if they are not of as many images.
    """
    both = list(zip(ours, theirs, strict=True))
    return Paired(sum(a and not b for a, b in both), sum(b and not a for a, b in both), len(both))


def paired_results(ours: TransferResult | None, theirs: TransferResult | None) -> Paired | None:
    """The same of two results; None unless both kept their outcomes, on the same images and labels."""
    if not (ours and theirs and ours.hits and theirs.hits and ours.images):
        return None
    same = (ours.images, ours.total) == (theirs.images, theirs.total)
    return paired(ours.outcomes, theirs.outcomes) if same else None


def paired_lines(
    table: Table,
    target: str,
    base: str,
    columns: Mapping[str, str] | None = None,
) -> list[str]:
    """Caption lines on what a target gains over another, at each epsilon: in the worst case, or in columns.

    One line compares image by image where both kept their outcomes, one seed by seed where both have
    several; targets of one seed are a pair. The 95 % interval is of the choice of images in the first line,
    of training runs in the second.

    Args:
        table: that both are rows of.
        target: whose gain it is.
        base: the other one.
        columns: name of a column -> what it is called; None is the worst cases, by their own names.
    """
    rows = {row.target: row for row in table.rows}
    ours, theirs = rows[target], rows[base]
    lines = []
    if columns is None:
        columns = {worst: heading(worst) for worst in table.worst_cases}
    for column, head in columns.items():
        epsilons = (0.0,) if column == CLEAN else table.epsilons
        pairs = {epsilon: _pairs(ours, theirs, column, epsilon) for epsilon in epsilons}
        by_image = [text for epsilon in pairs if (text := _by_image(pairs[epsilon], theirs.name, epsilon))]
        by_seed = [text for epsilon in pairs if (text := _by_seed(pairs[epsilon], epsilon))]
        over = f"{ours.name} over {theirs.name}, {head}"
        lines += [f"{over}, image by image: {'; '.join(by_image)}"] if by_image else []
        lines += [f"{over}, seed by seed, mean ± deviation: {'; '.join(by_seed)}"] if by_seed else []
    return lines


def differences(table: Table, target: str, base: str, column: str, epsilon: float) -> list[Paired]:
    """How two targets differ image by image under a column of a table, a pair for each seed of both."""
    rows = {row.target: row for row in table.rows}
    if target not in rows or base not in rows:
        return []
    pairs = _pairs(rows[target], rows[base], column, epsilon)
    found = [paired_results(mine, other) for _, mine, other in pairs]
    return [each for each in found if each]


Pairs = Sequence[tuple[int, TransferResult, TransferResult]]
"""Seed, and the results of both targets of that seed."""


def _pairs(ours: Row, theirs: Row, column: str, epsilon: float) -> Pairs:
    others = {record.seed: record.result(column, epsilon) for record in theirs.records}
    found = [(record.seed, record.result(column, epsilon)) for record in ours.records]
    return [(seed, mine, other) for seed, mine in found if mine and (other := others.get(seed))]


def _by_image(pairs: Pairs, base: str, epsilon: float) -> str:
    texts = []
    for seed, mine, other in pairs:
        if found := paired_results(mine, other):
            of_seed = f"seed {seed}, " if len(pairs) > 1 else ""
            images = f"{found.ours_only} image{'' if found.ours_only == 1 else 's'}"
            texts.append(
                f"{of_seed}{signed(found.difference)} points (95 %: {signed_range(found.interval)}), right "
                f"where {base} is wrong {images}, the other way {found.theirs_only}, exact McNemar "
                f"{in_words(found.p_value)}"
            )
    return f"{_at(epsilon)}{'; '.join(texts)}" if texts else ""


def _by_seed(pairs: Pairs, epsilon: float) -> str:
    if len(pairs) < 2:
        return ""
    ours = [100 * mine.accuracy for _, mine, _ in pairs]
    theirs = [100 * other.accuracy for _, _, other in pairs]
    differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    mean, deviation = signed(statistics.fmean(differences)), statistics.stdev(differences)
    return (
        f"{_at(epsilon)}{_spread(ours)} and {_spread(theirs)}, paired difference {mean} ± "
        f"{deviation:.1f} points (95 %: {signed_range(mean_interval(differences))}), n = {len(pairs)}"
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of what several seeds gave, at least two: Student's t."""
    from scipy import stats  # Here, since it takes most of a second.

    mean, count = statistics.fmean(values), len(values)
    half = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return mean - half, mean + half


def _at(epsilon: float) -> str:
    """Clean images are of no epsilon."""
    return f"at epsilon {epsilon:g} " if epsilon else ""


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f} %"


def in_words(p_value: float) -> str:
    """A p, as "p = 0.03" or "p = 2e-19"."""
    if p_value < 1e-300:
        return "p < 1e-300"
    return f"p = {p_value:.2g}" if p_value >= 0.001 else f"p = {p_value:.0e}"
