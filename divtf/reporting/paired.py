"""Two targets on the same images, image by image: the exact test of McNemar."""

import dataclasses
from collections.abc import Sequence

from divtf.storage.records import TransferResult


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
    def p_value(self) -> float:
        """Exact two-sided p of McNemar's test: if neither is better, each image in which they differ is a
        fair coin. It speaks of the choice of images, not of other training runs.

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
