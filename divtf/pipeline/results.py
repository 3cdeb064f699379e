"""Results: what lies in a directory, read for its page, and the results below a directory. No TensorFlow."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from divtf.errors import first_line, require
from divtf.pipeline import finished
from divtf.pipeline.protocols import PROTOCOLS
from divtf.pipeline.shared_paths import SHARED
from divtf.reporting.page.content import Result
from divtf.reporting.page.writing import PAGE, write_page
from divtf.reporting.published import KINDS
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, run_directory
from divtf.storage.evaluations import EvaluationRecord
from divtf.storage.examples import ExamplesRecord
from divtf.storage.records import GaasRecord, Record, TargetRecord, TransferMatrixRecord

_LOG = get_logger(__name__)
# How far below a directory results are looked for.
_DEPTH = 3
# What may lie in a run directory beside its results.
_ANALYSES: dict[str, tuple[str, type[Record]]] = {
    "evaluation": (run_directory.evaluation("*"), EvaluationRecord),
    "gaas": (run_directory.GAAS, GaasRecord),
    "transfer_matrix": (run_directory.TRANSFER_MATRIX, TransferMatrixRecord),
    "examples": (run_directory.EXAMPLES, ExamplesRecord),
}


def evaluations(runs: Iterable[Path]) -> list[EvaluationRecord]:
    """What all protocols found on the targets in run directories, as far as this version can read it.

    Some may be of weights that are gone; the marks of reports pass over them.
    """
    pairs = [(run, protocol) for run in runs for protocol in PROTOCOLS]
    return [found for run, protocol in pairs if (found := finished.read_evaluation(run, protocol))]


def is_result(directory: Path) -> bool:
    """Whether a directory is one result: a run, what a command made of several, or published records."""
    names = (run_directory.RESULTS, *(kind.file for kind in KINDS.values()))
    if any((directory / name).is_file() for name in names):
        return True
    evaluated = any(path.is_dir() for path in directory.glob("evaluation-*"))
    return evaluated and bool(finished.directories(directory))


def below(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """The results below a directory, by name; what is inside of one is part of it."""
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name != SHARED:
            if is_result(path):
                yield path
            elif depth > 1:
                yield from below(path, depth - 1)


def read(directory: Path) -> Result:
    """What the page of a directory is made of: its run, all finished runs below it, or published records.

    Raises:
        InputError: if there are no records, or if some are damaged, of another version, of other weights
            than the run's, or twice of the same thing.
    """
    require(directory.is_dir(), "a directory of results", f"{directory}, which is none")
    is_run = (directory / run_directory.RESULTS).exists()
    runs = [directory] if is_run else finished.directories(directory)
    records = _of_runs(runs, directory) if runs else read_published(directory)
    require(bool(records), f"records of finished runs in {directory}", "none")
    configs: dict[str, dict[str, Any]] = {}
    for path, record in zip(runs, records.get("table", ()), strict=bool(runs)):
        values = checked_json.read_json(path / run_directory.CONFIG)
        configs.setdefault(record.subject, {})[f"{record.target}, seed {record.seed}"] = values
    return Result(directory.resolve().name, records, configs)


def make_page(directory: Path) -> Path:
    """Write the page of a directory anew; returns its path.

    Raises:
        InputError: as `read` does.
        OSError: if it cannot be written.
    """
    result = read(directory)
    with finished.expecting("records that make a page", directory):
        return write_page(directory, result)


def try_page(directory: Path) -> Path | None:
    """The same at the end of a command, whose result is there already: what fails is told in one line.

    Returns:
        The page's path; None if there is none.
    """
    try:
        return make_page(directory)
    # Whatever it is: hours of work must not seem lost for want of a page, which can be made again.
    except Exception as error:
        _LOG.warning(f"no {PAGE}: {first_line(error)}; python -m divtf.report {directory} tries again")
        return None


def _of_runs(runs: Sequence[Path], root: Path) -> dict[str, list[Any]]:
    targets = [finished.read_record(path) for path in runs]
    finished.require_distinct(targets, root)
    records: dict[str, list[Any]] = {"table": targets}
    for kind, (name, record) in _ANALYSES.items():
        for path, target in zip(runs, targets, strict=True):
            records.setdefault(kind, []).extend(
                _analysis(file, record, target) for file in sorted(path.glob(name))
            )
    records["sparsity"] = finished.ablation(runs)
    records["comparison"] = finished.read_comparison(root)
    return {kind: found for kind, found in records.items() if found}


def _analysis(path: Path, kind: type[Record], target: TargetRecord) -> Record:
    record = finished.read_analysis(kind, path)
    if "weights" in record.provenance:  # Examples are written by the run itself, and lack them.
        finished.require_current(record, target, path)
    return record


def read_published(directory: Path) -> dict[str, list[Any]]:
    """The published records in a directory, by kind; empty if there are none.

    Raises:
        InputError: if some are not of this version.
    """
    found = {}
    for name, kind in KINDS.items():
        path = directory / kind.file
        if path.exists():
            with finished.expecting(f"records of this version, {name}", path):
                values = checked_json.read_json(path)
                require(isinstance(values, list), f"a list of records in {path}", f"{values!r:.80}")
                found[name] = [kind.record.from_json(record) for record in values]
    return {name: records for name, records in found.items() if records}
