"""The command for transfer matrices; `--help` shows the docstring of `divtf/transfer_matrix.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from divtf.attacks.names import NAMES as ATTACK_NAMES
from divtf.commands import command_line
from divtf.commands.config_flags import define_flags, distinct, help_text
from divtf.errors import require
from divtf.pipeline import finished, shared_paths
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import DataPart
from divtf.reporting.transfer_matrix import TransferMatrix
from divtf.runtime import quiet_start
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, digests, environment, files, run_directory
from divtf.storage.records import CLEAN, WORST_CASE, TransferMatrixRecord, TransferResult, epsilons, grouped

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.

_LOG = get_logger(__name__)
Sources = Mapping[str, tuple[RunConfig, Path]]
"""Name of each attacked ensemble -> its configuration, and where it was trained."""


def collect(root: Path) -> list[TransferMatrixRecord]:
    """The columns that this command has left in the run directories below `root`.

    Raises:
        InputError: if a column is missing, or of other ensembles than those that are there now.
    """
    columns = {path: finished.read_transfer_matrix(path) for path in finished.directories(root)}
    measured = [column for column in columns.values() if column]
    for family in finished.families(columns) if measured else []:
        identities = _identities(_sources(family))
        of_family = [columns[path] for path in family]
        current = all(
            column and column.sources == identities and _cells(column) == _cells(of_family[0])
            for column in of_family
        )
        require(
            current or not any(of_family),
            f"a transfer matrix of all finished runs below {root}",
            "one of other runs: give divtf.transfer_matrix again",
        )
    return measured


def main(root: Path, images: int, attacks: Sequence[str], data_dir: str | None = None) -> None:
    """Measure what is not measured yet, then write transfer.png and transfer.json beside the runs.

    Args:
        root: directory that holds the run directories.
        images: number of test images to attack, the first ones.
        attacks: names of the attacks; cells are the worst case of them.
        data_dir: data directory of tensorflow-datasets; None is its own.

    Raises:
        InputError: if there is no finished run, if two are of the same target and seed, or if targets of one
            model, data set and seed have different surrogates or static models.
    """
    # Matplotlib, which takes half a second, loads once the flags are known to be right.
    from divtf.reporting.figures import style
    from divtf.reporting.figures.transfer_matrix import transfer_matrix_figure

    distinct("attacks", attacks, ATTACK_NAMES)
    paths = finished.required(root)
    finished.require_distinct([finished.read_record(path) for path in paths], root)
    records = [
        record for family in finished.families(paths, data_dir) for record in measure(family, images, attacks)
    ]
    files.write_file(root / "transfer.png", style.png(transfer_matrix_figure(records)))
    checked_json.write_json(root / run_directory.TRANSFER_MATRIX, [record.to_json() for record in records])
    for subject, columns in grouped(records, lambda record: record.subject).items():
        _print(subject, TransferMatrix(columns), epsilons(columns))
    print(f"  {'transfer':<14} {root / 'transfer.png'}")


def measure(
    family: Mapping[Path, RunConfig],
    images: int,
    attacks: Sequence[str],
) -> list[TransferMatrixRecord]:
    """The columns of targets of one model, data set and seed; read from their directories if all are there.

    Args:
        family: run directory -> configuration of each target, with that directory in it.
        images: number of test images to attack, the first ones.
        attacks: names of the attacks.
    """
    sources = _sources(family)
    identities = _identities(sources)
    records = {path: finished.read_record(path) for path in family}
    images = min(images, *(record.budget.get("test images", images) for record in records.values()))
    budgets = sorted({epsilon for config in family.values() for epsilon in config.epsilons})
    wanted = {(source, a, e, images) for source in sources for a in (*attacks, WORST_CASE) for e in budgets}
    earlier = [column for path in family if (column := finished.read_transfer_matrix(path))]
    current = [column for column in earlier if column.sources == identities and _cells(column) == wanted]
    if len(current) == len(family):
        return current
    results = _attack(sources, family, images, attacks, budgets)
    columns = {
        path: TransferMatrixRecord(
            **record.common(),
            results=tuple(result for result in results if result.target == record.target),
            sources=identities,
            analysis=environment.environment(),
        )
        for path, record in records.items()
    }
    for path, column in columns.items():
        checked_json.write_checked(path / run_directory.TRANSFER_MATRIX, column.to_json())
    return list(columns.values())


def _attack(
    sources: Sources,
    family: Mapping[Path, RunConfig],
    images: int,
    attacks: Sequence[str],
    budgets: Sequence[float],
) -> list[TransferResult]:
    """Every target's results on the images of every source."""
    quiet_start.import_tensorflow()  # Only if there is something to measure.
    from divtf.attacks.attack import make_attack
    from divtf.attacks.threat import ThreatModel
    from divtf.evaluation.transfer import evaluate_transfer
    from divtf.pipeline import experiment, trained
    from divtf.pipeline.budget import settings

    data = experiment.load_data(next(iter(family.values())).part(DataPart))
    all_attacks = [make_attack(name, ThreatModel(epsilon)) for epsilon in budgets for name in attacks]
    loaded = {name: trained.restore(config, data.spec, path) for name, (config, path) in sources.items()}
    results: list[TransferResult] = []
    for name, ensemble in loaded.items():
        _LOG.info(f"attacks {sources[name][1]}")
        of_source = evaluate_transfer(
            ensemble,
            {config.target: loaded[config.target] for config in family.values()},
            data.test_set(images),
            all_attacks,
            directory=sources[name][1] / shared_paths.ADVERSARIAL,
            surrogate_name=name,
            surrogate_settings=settings(sources[name][0], data),
            batch_size=shared_paths.BATCH,
        )
        results += [result for result in of_source if result.attack != CLEAN]
    return results


def _sources(family: Mapping[Path, RunConfig]) -> Sources:
    """The targets, and the surrogate and the static model that they were evaluated and trained with.

    Raises:
        InputError: if there are several surrogates or several static models.
    """
    sources = {config.target: (config, path) for path, config in family.items()}
    for config in family.values():
        for name, seed in shared_paths.seeds(config).items():
            if name == "static model" and "plain" not in config.static_models:
                continue
            base = config.base(seed)
            directory = shared_paths.directory_of(base)
            _, first = sources.setdefault(name, (base, directory))
            targets = ", ".join(map(str, family))
            require(first == directory, f"one {name} for all of {targets}", f"{first}, {directory}")
    return sources


def _identities(sources: Sources) -> dict[str, str]:
    """What tells the weights of each source from others: the SHA-256 of its newest checkpoint."""
    newest = {
        name: max((path / run_directory.CHECKPOINTS).glob("*.keras"), default=None)
        for name, (_, path) in sources.items()
    }
    return {name: digests.file_digest(path) if path else "" for name, path in newest.items()}


def _cells(column: TransferMatrixRecord | None) -> set[tuple[str, str, float, int]]:
    """What a column has: source, attack, epsilon and number of images of each cell."""
    results = column.results if column else ()
    return {(result.surrogate, result.attack, result.epsilon, result.total) for result in results}


def _print(subject: str, matrix: TransferMatrix, budgets: Sequence[float]) -> None:
    """Rows of the matrix as lines, one an epsilon and source."""
    for epsilon in budgets:
        for source in matrix.sources:
            row = [f"{target} {matrix.accuracy(source, target, epsilon):5.1f}" for target in matrix.targets]
            print(f"{subject}, epsilon {epsilon:g}, images of {source}: {', '.join(row)} %")


def launch() -> None:
    """The command: its flags, and what it does with them."""
    defined = flags.FLAGS
    flags.DEFINE_string("runs", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_integer("images", 1000, "Attack the first test images.", lower_bound=1)
    attacks = help_text("Attacks; cells are their worst case.", ATTACK_NAMES)
    flags.DEFINE_list("attacks", ["fgsm"], attacks)
    define_flags(names=("data_dir",))
    command_line.run_without_config(
        lambda: main(Path(defined.runs), defined.images, defined.attacks, defined.data_dir)
    )
