"""Finished runs: where they lie below a directory, and what each has recorded. No TensorFlow."""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from divtf.data import paper
from divtf.errors import InputError, require
from divtf.pipeline.config import RunConfig
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, run_directory
from divtf.storage.evaluations import ComparisonRecord, EvaluationRecord
from divtf.storage.records import (
    AnyRecord,
    GaasRecord,
    Record,
    SparsityRecord,
    TargetRecord,
    TransferMatrixRecord,
    grouped,
)

_LOG = get_logger(__name__)


def directories(root: Path) -> list[Path]:
    """The run directories directly below `root` that have results, in the order in which these were made."""
    results = root.glob(f"*/{run_directory.RESULTS}")
    return [path.parent for path in sorted(results, key=lambda path: (path.stat().st_mtime, path))]


def required(root: Path) -> list[Path]:
    """The same, of which there has to be one.

    Raises:
        InputError: if there is none; says so if it is itself a run.
    """
    found = directories(root)
    is_run = (root / run_directory.RESULTS).is_file()
    received = f"a run itself: {root.absolute().parent} holds it" if is_run else "none"
    require(bool(found), f"finished runs below {root}", received)
    return found


def families(paths: Iterable[Path], data_dir: str | None = None) -> list[dict[Path, RunConfig]]:
    """The runs of each model, data set and seed: run directory -> configuration, with that directory in it.

    The paper's targets come first, then by name: an evaluation must not depend on which was done first.

    Args:
        paths: run directories, wherever they lie now.
        data_dir: data directory of tensorflow-datasets; None is its own.
    """
    found: dict[tuple[str, str, int], dict[Path, RunConfig]] = {}
    for path in paths:
        config = dataclasses.replace(read_config(path), run_dir=str(path), data_dir=data_dir)
        found.setdefault((config.model, config.dataset_name, config.seed), {})[path] = config
    return [dict(sorted(family.items(), key=lambda run: _place(run[1]))) for family in found.values()]


def _place(config: RunConfig) -> tuple[int, str]:
    """By which targets are put in order."""
    return [*paper.TARGETS, config.target].index(config.target), config.target


def read_config(directory: Path) -> RunConfig:
    """The configuration of the run in that directory.

    Raises:
        InputError: if it is not one of this version.
    """
    path = directory / run_directory.CONFIG
    with expecting("the configuration of a run", path):
        return RunConfig.from_json(checked_json.read_json(path))


def read_record(directory: Path) -> TargetRecord:
    """What the run in that directory measured.

    Raises:
        InputError: if its results are not those of a run of this version.
    """
    path = directory / run_directory.RESULTS
    with expecting("the results of a run", path):
        record = TargetRecord.from_json(checked_json.read_checked(path))
    require(bool(record.results), f"at least one result in {path}", "none")
    config = read_config(directory)
    recorded = record.model, record.dataset, record.seed
    configured = config.model_name, config.dataset_name, config.seed
    expected = f"results of {configured}, the run's model, data set and seed, in {path}"
    require(recorded == configured, expected, f"{recorded}")
    # Runs of 0.1.0 are called "T_Div" with ReLU members too; their configuration tells them apart.
    target = config.target
    results = tuple(dataclasses.replace(result, target=target) for result in record.results)
    return dataclasses.replace(record, target=target, results=results)


def read_sparsity(directory: Path) -> SparsityRecord:
    """What a run with GAL shows of section 3.4: the zeros of its gradients, and GAL of each training epoch.

    Raises:
        InputError: if its files are not those of a run with GAL of this version.
    """
    record, config, path = read_record(directory), read_config(directory), directory / run_directory.METRICS
    with expecting("the epochs of a run with GAL", path):
        epochs = [json.loads(line) for line in path.read_text().splitlines()]
        return SparsityRecord(
            **record.common(),
            activation="own" if config.is_own else config.activation_name,
            zero_entries=record.gradients["zero_entries"],
            zero_products=record.gradients["zero_products"],
            gal=tuple(epoch["gal"] for epoch in epochs),
        )


def ablation(paths: Iterable[Path]) -> list[SparsityRecord]:
    """Of runs with GAL, if some have ReLU and some have not: otherwise there is nothing to compare."""
    of_gal = {path: config for path in paths if (config := read_config(path)).objective_name == "gal"}
    kinds = {config.activation_name == "relu" for config in of_gal.values()}
    return [read_sparsity(path) for path in of_gal] if len(kinds) > 1 else []


def read_gaas(directory: Path) -> GaasRecord | None:
    """What GAAS found on the target in that directory; None if it was not tried, or by another version."""
    return _analysis(GaasRecord, directory / run_directory.GAAS)


def read_transfer_matrix(directory: Path) -> TransferMatrixRecord | None:
    """How the target in that directory fares on each source's images; None as in `read_gaas`."""
    return _analysis(TransferMatrixRecord, directory / run_directory.TRANSFER_MATRIX)


def read_evaluation(directory: Path, protocol: str) -> EvaluationRecord | None:
    """What a protocol found on the target in that directory; None as in `read_gaas`."""
    return _analysis(EvaluationRecord, directory / run_directory.evaluation(protocol))


def current_analyses(kind: type[AnyRecord], root: Path, file: str) -> list[AnyRecord]:
    """The analyses in that file of the runs below a directory.

    Raises:
        InputError: if one is damaged or of another version, or its target was trained anew since.
    """
    found = []
    for path in directories(root):
        if (path / file).exists():
            analysis = read_analysis(kind, path / file)
            require_current(analysis, read_record(path), path / file)
            found.append(analysis)
    return found


def read_analysis(kind: type[AnyRecord], path: Path) -> AnyRecord:
    """An analysis of a run, from its file.

    Raises:
        InputError: if it is damaged, or of another version.
    """
    with expecting("a record of this version", path):
        return kind.from_json(checked_json.read_checked(path))


def read_comparison(root: Path) -> list[ComparisonRecord]:
    """The comparison of the runs below a directory; empty if there is none.

    Raises:
        InputError: if its file is none of this version, or a target was trained anew since.
    """
    path = root / run_directory.COMPARISON
    if not path.exists():
        return []
    with expecting("a comparison, as divtf.compare writes it,", path):
        values = checked_json.read_json(path)
        require(isinstance(values, list), f"a list of records in {path}", f"{values!r:.80}")
        records = [ComparisonRecord.from_json(record) for record in values]
    runs = [read_record(directory) for directory in directories(root)]
    weights = {run.run: run.provenance.get("weights") for run in runs}
    for record in records:
        current = record.run in weights and weights[record.run] == record.provenance.get("weights")
        told = f"another {record.target}, seed {record.seed}: give divtf.compare again"
        require(current, f"a comparison of the runs below {root}", told)
    return records


def require_current(analysis: Record, target: TargetRecord, path: Path) -> None:
    """Refuse an analysis of a target that was trained anew since.

    Args:
        analysis: the record of it.
        target: the run's record.
        path: of the analysis.

    Raises:
        InputError: if it is of other weights.
    """
    current = analysis.provenance.get("weights") == target.provenance.get("weights")
    require(current, f"an analysis of the run's weights in {path}", "one of others: make it again")


def require_distinct(records: Sequence[Record], root: Path) -> None:
    """Refuse two records of one target, model, data set and seed, which pictures could not tell apart.

    Raises:
        InputError: if there are such.
    """
    groups = grouped(records, lambda record: record.run)
    twice = [name for name, group in groups.items() if len(group) > 1]
    require(not twice, f"one run of each target, model, data set and seed below {root}", "; ".join(twice))


def _analysis(kind: type[AnyRecord], path: Path) -> AnyRecord | None:
    if not path.exists():
        return None
    try:
        return kind.from_json(checked_json.read_checked(path))
    except checked_json.DamagedError as error:
        _LOG.info(error)
    except (AttributeError, KeyError, TypeError, ValueError):
        _LOG.info(f"{path} is of another version")
    return None


@contextlib.contextmanager
def expecting(what: str, path: Path) -> Iterator[None]:
    """Turn what is wrong with a file's values into an InputError, which names the file.

    Args:
        what: it should hold, in words.
        path: of the file.
    """
    try:
        yield
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"Expected {what} in {path}. Received: {error!r}") from None
