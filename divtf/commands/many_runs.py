"""What commands of many runs share: their flags, the runs, and where these go on."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from divtf.commands import config_flags
from divtf.commands.config_flags import help_text
from divtf.commands.ray_cluster import run_all
from divtf.commands.ray_task import Cluster
from divtf.data.paper import SETUPS
from divtf.errors import require
from divtf.networks import names
from divtf.pipeline import finished
from divtf.pipeline.config import RunConfig
from divtf.storage import run_directory
from divtf.storage.records import TargetRecord

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare models, seeds and the cluster, beside the flags of one run."""
    options: dict[str, Any] = {"flag_values": flag_values}
    models = help_text(f"Models, in order; your own: {names.FORMS}.", SETUPS)
    seeds = help_text("Seeds of the targets; several give mean and deviation.", stands_for="--seed")
    cluster = help_text(
        "Run the targets on a Ray cluster: auto, HOST:PORT or ray://HOST:PORT.",
        stands_for="here, one by one",
    )
    flags.DEFINE_list("models", ["conv3"], models, **options)
    flags.DEFINE_list("seeds", None, seeds, **options)
    flags.DEFINE_string("cluster", None, cluster, **options)
    flags.DEFINE_integer("cpus_per_run", 1, "CPU cores of each run, with --cluster.", **options)
    flags.DEFINE_integer("gpus_per_run", 0, "GPUs of each run, with --cluster.", **options)


def configs_from_flags(
    flag_values: flags.FlagValues, variants: Sequence[Mapping[str, Any]], default_root: str
) -> list[RunConfig]:
    """The runs, in order: models, then seeds, then variants.

    --run_dir is the directory that holds their run directories.

    Args:
        flag_values: parsed.
        variants: values of the configuration in place of their flags', as `mode`; one run each.
        default_root: where --run_dir is not given.

    Raises:
        InputError: if a value does not fit.
    """
    require(not flag_values["model"].present, "--models for this command", "--model")
    named = len(variants) > 1 or "label" in variants[0]
    require(
        not (named and flag_values["label"].present),
        "--label for a single target without a name of its own",
        f"--label={flag_values.label}",
    )
    given_models = names.joined(flag_values.models)
    models = config_flags.distinct("models", given_models, [*SETUPS, *filter(names.is_own, given_models)])
    require(
        flag_values.seeds is None or not flag_values["seed"].present,
        "one of --seeds and --seed",
        f"--seed={flag_values.seed} beside --seeds",
    )
    given = [str(flag_values.seed)] if flag_values.seeds is None else flag_values.seeds
    seeds = config_flags.distinct("seeds", config_flags.parse_list("seeds", given, int))
    require(
        flag_values.strategy != "multi_worker",
        "--strategy=single or mirrored for a table; several machines train one run at a time",
        f"--strategy={flag_values.strategy}",
    )
    root = Path(flag_values.run_dir or default_root)
    configs = []
    for model, seed, variant in itertools.product(models, seeds, variants):
        values = {"model": model, "seed": seed, "resume": True, **variant}
        config = config_flags.config_from_flags(flag_values, **values)
        configs.append(dataclasses.replace(config, run_dir=str(root / config.name)))
    _require_apart(configs)
    require(
        len(configs) == 1 or not flag_values.export,
        "--export without a path for several targets, each of which is exported to its own run directory",
        f"--export={flag_values.export}",
    )
    return configs


def _require_apart(configs: Sequence[RunConfig]) -> None:
    """Refuse runs that would share a row of the table or a run directory, before any of them is trained."""
    short = {config.model: config.model_name for config in configs}
    require(
        len(set(short.values())) == len(short),
        "--models of distinct short names, which tell their runs apart",
        f"{', '.join(short.values())}",
    )
    for one, other in itertools.combinations(configs, 2):
        same = (one.model, one.seed, one.target) == (other.model, other.seed, other.target)
        require(
            not same and one.run_dir != other.run_dir,
            "targets with names and run directories of their own (--label in a recipe's file)",
            f"{one.target} in {one.run_dir}, and {other.target} in {other.run_dir}",
        )


def cluster_from_flags(flag_values: flags.FlagValues) -> Cluster | None:
    """The cluster to run on; None for this machine.

    Raises:
        InputError: for resources of no cluster.
    """
    if flag_values.cluster is not None:
        return Cluster(flag_values.cluster, flag_values.cpus_per_run, flag_values.gpus_per_run)
    for name in ("cpus_per_run", "gpus_per_run"):
        require(not flag_values[name].present, f"--cluster beside --{name}", f"--{name} alone")
    return None


def run(configs: Sequence[RunConfig], cluster: Cluster | None) -> list[TargetRecord]:
    """Run every target that is not done yet, here one after the other, or on a cluster.

    Raises:
        InputError: before anything is trained, if one of them cannot be.
    """
    for config in configs:
        run_directory.require_usable(Path(config.run_dir), config.identity(), resume=config.resume)
    if cluster is not None:
        return run_all(configs, cluster)
    from divtf.pipeline import experiment

    experiment.require_possible(configs)
    records = []
    for number, config in enumerate(configs, 1):
        told = f"{config.model_name}, {config.target}, seed {config.seed}"
        print(f"\n== {number}/{len(configs)}: {told}", flush=True)
        records.append(finished.read_record(experiment.run(config)))
    return records
