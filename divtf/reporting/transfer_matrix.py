"""Transfer matrices: the accuracy of each target on the images of each source."""

import dataclasses
import math
from collections.abc import Sequence

from divtf.data import paper
from divtf.reporting.tables import in_order
from divtf.storage.records import (
    WORST_CASE,
    TransferMatrixRecord,
)


@dataclasses.dataclass(frozen=True)
class TransferMatrix:
    """A transfer matrix: accuracy of each target on the images of each source, all seeds put together.

    Attributes:
        records: of one model on one data set, at least one.
    """

    records: Sequence[TransferMatrixRecord]

    @property
    def targets(self) -> list[str]:
        """The columns: the paper's first and in its order."""
        return in_order(dict.fromkeys(record.target for record in self.records), paper.TARGETS)

    @property
    def sources(self) -> list[str]:
        """The rows: the targets that were attacked, in the same order, then the others."""
        names = dict.fromkeys(source for record in self.records for source in record.sources)
        return in_order(names, self.targets)

    def accuracy(self, source: str, target: str, epsilon: float) -> float:
        """Accuracy in percent under the worst of the attacks at that epsilon; NaN if it was not measured."""
        cells = [
            result
            for record in self.records
            for result in record.results
            if (record.target, result.surrogate) == (target, source)
            and (result.attack, result.epsilon) == (WORST_CASE, epsilon)
        ]
        total = sum(cell.total for cell in cells)
        return 100 * sum(cell.correct for cell in cells) / total if total else math.nan
