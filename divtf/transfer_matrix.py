"""The command for transfer matrices: python -m divtf.transfer_matrix --runs=runs/table2 --images=1000.

Attacks every finished target below a directory, and the surrogate and the static model that these share, and
scores every target on the images of each. The surrogate's row is Table 2's protocol; a target on its own
images is a white-box attack; and modes ens and ens_div train on such images of the static model.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import flags

from divtf import cli, files, finished, plots, run_dir
from divtf.config import ATTACK_NAMES, RunConfig
from divtf.datasets import DATASETS
from divtf.errors import require
from divtf.matrix_picture import matrix_figure
from divtf.records import CLEAN, WORST_CASE, MatrixRecord, TransferResult, epsilons, grouped
from divtf.tables import Matrix

SURROGATE, STATIC = "surrogate", "static model"


def collect(root: Path) -> list[MatrixRecord]:
    """The columns that this command has left in the run directories below `root`."""
    found = [finished.read_matrix(path) for path in finished.directories(root)]
    return [record for record in found if record]


def main(root: Path, images: int, attacks: Sequence[str], data_dir: str | None = None) -> None:
    """Measure what is not measured yet, then write transfer.png and transfer.json beside the runs.

    Args:
        root: directory that holds the run directories.
        images: number of test images to attack, the first ones.
        attacks: names of the attacks; cells are the worst case of them.
        data_dir: data directory of tensorflow-datasets; None is its own.

    Raises:
        InputError: if there is no finished run, or if two are of the same target and seed.
    """
    known = f"distinct attacks of {{{', '.join(ATTACK_NAMES)}}}, at least one"
    holds = 0 < len(set(attacks)) == len(attacks) and set(attacks) <= set(ATTACK_NAMES)
    require(holds, known, ", ".join(attacks) or "none")
    paths = finished.directories(root)
    require(bool(paths), f"finished runs below {root}", "none")
    finished.require_distinct([finished.read_record(path) for path in paths], root)
    families: dict[tuple[Path, int], dict[Path, RunConfig]] = {}
    for path in paths:
        config = _config(path, data_dir)
        families.setdefault((_shared(config)[SURROGATE][1], config.seed), {})[path] = config
    records = [
        record
        for family in families.values()
        for record in measure(family, images, attacks, lambda line: print(line, flush=True))
    ]
    files.write_file(root / "transfer.png", plots.png(matrix_figure(records)))
    run_dir.write_json(root / run_dir.MATRIX, [record.to_json() for record in records])
    for subject, own in grouped(records, lambda record: record.subject).items():
        _print(subject, Matrix(own), epsilons(own))
    print(f"  {'transfer':<14} {root / 'transfer.png'}")


def measure(
    configs: Mapping[Path, RunConfig],
    images: int,
    attacks: Sequence[str],
    say: Callable[[str], object] = lambda line: None,
) -> list[MatrixRecord]:
    """The columns of targets that share surrogate and seed; read from their directories if all are there.

    Args:
        configs: run directory -> configuration of each target.
        images: number of test images to attack, the first ones.
        attacks: names of the attacks.
        say: takes a line of progress.
    """
    sources = _sources(configs)
    identities = {name: _identity(path) for name, (_, path) in sources.items()}
    records = {path: finished.read_record(path) for path in configs}
    images = min(images, *(record.budget.get("test images", images) for record in records.values()))
    kept = [record for path in configs if (record := finished.read_matrix(path))]
    if len(kept) == len(configs) and all(_is_of(record, identities, images, attacks) for record in kept):
        return kept
    results = _attack(sources, configs, images, attacks, say)
    made = [
        MatrixRecord(
            target=record.target,
            model=record.model,
            dataset=record.dataset,
            seed=record.seed,
            results=tuple(result for result in results if result.target == record.target),
            sources=identities,
            budget=record.budget,
            provenance=record.provenance,
            analysis=run_dir.environment(),
        )
        for record in records.values()
    ]
    for path, record in zip(configs, made, strict=True):
        run_dir.write_json(path / run_dir.MATRIX, record.to_json())
    return made


def _attack(sources, configs, images: int, attacks: Sequence[str], say) -> list[TransferResult]:
    """Every target's results on the images of every source."""
    from divtf import (
        experiment,
        shared_models,
        training,
    )  # TensorFlow loads only if there is something to do.
    from divtf.attacks import make_attack
    from divtf.threat import ThreatModel
    from divtf.transfer import evaluate_transfer

    first = next(iter(configs.values()))
    data = experiment.load_data(first)
    budgets = DATASETS[first.dataset].epsilons
    made = [make_attack(name, ThreatModel(epsilon)) for epsilon in budgets for name in attacks]
    loaded = {name: training.restore(config, data.spec, path) for name, (config, path) in sources.items()}
    targets = {config.target: loaded[config.target] for config in configs.values()}
    results: list[TransferResult] = []
    for name, ensemble in loaded.items():
        say(f"attacks {sources[name][1]}")
        found = evaluate_transfer(
            ensemble,
            targets,
            data.test_set(images),
            made,
            directory=sources[name][1] / shared_models.ADVERSARIAL,
            surrogate_name=name,
            batch_size=shared_models.BATCH,
            say=say,
        )
        results += [result for result in found if result.attack != CLEAN]
    return results


def _config(path: Path, data_dir: str | None = None) -> RunConfig:
    """The configuration of the run in that directory, which may lie elsewhere than where it was made."""
    return dataclasses.replace(finished.read_config(path), run_dir=str(path), data_dir=data_dir)


def _shared(config: RunConfig) -> dict[str, tuple[RunConfig, Path]]:
    """Name -> configuration and directory of the ensembles that the run may share with others."""
    from divtf import shared_models

    seeds = {SURROGATE: config.surrogate_seed, STATIC: config.static_seed}
    return {name: (config.base(seed), shared_models.home(config, seed)) for name, seed in seeds.items()}


def _sources(configs: Mapping[Path, RunConfig]) -> dict[str, tuple[RunConfig, Path]]:
    """The same for the targets and for what they share, as far as it was trained."""
    sources = {config.target: (config, path) for path, config in configs.items()}
    for config in configs.values():
        trained = _shared(config).items()
        sources |= {name: place for name, place in trained if (place[1] / run_dir.CHECKPOINTS).is_dir()}
    return sources


def _identity(path: Path) -> str:
    """What tells the weights of a target, or of a shared ensemble, from others."""
    if not (path / run_dir.RESULTS).exists():
        return path.name  # It ends in a digest of all that the ensemble was trained with.
    return str(finished.read_record(path).provenance.get("weights"))


def _is_of(record: MatrixRecord, identities: Mapping[str, str], images: int, attacks: Sequence[str]) -> bool:
    """Whether a record was measured on these ensembles, by these attacks and on so many images."""
    totals = {result.total for result in record.results}
    used = {result.attack for result in record.results} - {WORST_CASE}
    return record.sources == identities and totals == {images} and used == set(attacks)


def _print(subject: str, matrix: Matrix, budgets: Sequence[float]) -> None:
    """Rows of the matrix as lines, one an epsilon and source."""
    for epsilon in budgets:
        for source in matrix.sources:
            row = [f"{target} {matrix.accuracy(source, target, epsilon):5.1f}" for target in matrix.targets]
            print(f"{subject}, epsilon {epsilon:g}, images of {source}: {', '.join(row)} %")


if __name__ == "__main__":
    defined = flags.FLAGS
    flags.DEFINE_string("runs", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_integer("images", 1000, "Attack the first test images.", lower_bound=1)
    flags.DEFINE_list("attacks", ["fgsm"], f"Attacks; cells are their worst case: {', '.join(ATTACK_NAMES)}.")
    flags.DEFINE_string("data_dir", None, "Data directory of tensorflow-datasets; default: its own.")
    flags.adopt_module_key_flags(cli)
    cli.launch_without_config(
        lambda: main(Path(defined.runs), defined.images, defined.attacks, defined.data_dir)
    )
