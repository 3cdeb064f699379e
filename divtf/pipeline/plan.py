"""What a run has still to do, told from its directory and its options."""

import dataclasses
import enum
from pathlib import Path

from divtf.errors import require
from divtf.pipeline import exports
from divtf.pipeline.parts import OutputPart
from divtf.storage import checked_json, run_directory


class Work(enum.IntEnum):
    """What all workers do together: nothing, train the target (or read it), train the surrogate too."""

    NOTHING = 0
    TARGET = 1
    ALL = 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run has still to do.

    Attributes:
        measured: whether it has whole results.
        damage: what is wrong with its results; "" if they are whole, or not there.
        exporting: whether an export is asked for and not there yet.
    """

    measured: bool
    damage: str
    exporting: bool

    @property
    def work(self) -> Work:
        """What takes all workers."""
        if not self.measured:
            return Work.ALL
        return Work.TARGET if self.exporting else Work.NOTHING

    def checked(self, output: OutputPart) -> "Plan":
        """The plan made again, in the held directory: who held it before may have done some of the work.

        Raises:
            InputError: if there is more to do than was planned, and prepared for.
        """
        plan = make_plan(output)
        require(
            plan.work <= self.work,
            f"{output.run_dir} to stay as it was while the run prepared",
            "a directory that has lost results or an export meanwhile; give the command again",
        )
        return plan


def make_plan(output: OutputPart) -> Plan:
    """The plan of a run, whose directory need not be there.

    Raises:
        InputError: if an export's place is taken, or its extra not installed.
    """
    path, damage = Path(output.run_dir) / run_directory.RESULTS, ""
    if path.exists():
        try:
            checked_json.read_checked(path)
        except checked_json.DamagedError as error:
            damage = str(error)
    return Plan(path.exists() and not damage, damage, bool(exports.missing(output)))
