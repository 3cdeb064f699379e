"""The command for Table 2: every defence of every model, side by side with the paper's figures."""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from divtf.commands import command_line, config_flags, evaluate
from divtf.commands.config_flags import help_text
from divtf.commands.ray_cluster import run_all
from divtf.commands.ray_task import Cluster
from divtf.data.paper import SETUPS
from divtf.errors import require
from divtf.networks import names
from divtf.pipeline import finished
from divtf.pipeline.config import RunConfig
from divtf.pipeline.fields import nearest
from divtf.pipeline.modes import MODES
from divtf.pipeline.parts import OutputPart
from divtf.pipeline.protocols import PROTOCOLS, Protocol
from divtf.runtime import quiet_start
from divtf.storage.records import TargetRecord

flags.disclaim_key_flags()  # They are those of the command at the door.

_PAPER_MODES = ["base", "div", "ens", "ens_div"]


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare what this command has beside the flags of one run."""
    options: dict[str, Any] = {"flag_values": flag_values}
    models, modes = (
        help_text(f"Models, in order; your own: {names.FORMS}.", SETUPS),
        help_text("Defences, in order.", MODES),
    )
    seeds = help_text("Seeds of the targets; several give mean and deviation.", stands_for="--seed")
    cluster = help_text(
        "Run the targets on a Ray cluster: auto, HOST:PORT or ray://HOST:PORT.",
        stands_for="here, one by one",
    )
    flags.DEFINE_list("models", ["conv3"], models, **options)
    flags.DEFINE_list("modes", _PAPER_MODES, modes, **options)
    flags.DEFINE_list("seeds", None, seeds, **options)
    protocol = help_text("What the table's targets are tried by.", ["paper", *PROTOCOLS])
    flags.DEFINE_string("protocol", "paper", protocol, **options)
    evaluate.define_flags(flag_values)
    flags.DEFINE_string("cluster", None, cluster, **options)
    flags.DEFINE_integer("cpus_per_run", 1, "CPU cores of each run, with --cluster.", **options)
    flags.DEFINE_integer("gpus_per_run", 0, "GPUs of each run, with --cluster.", **options)


def table_from_flags(
    flag_values: flags.FlagValues = flags.FLAGS,
) -> tuple[list[RunConfig], Cluster | None, Protocol | None]:
    """The runs of the table, the cluster to run them on (None for this machine), and another protocol.

    Raises:
        InputError: if a value does not fit.
    """
    configs = configs_from_flags(flag_values)
    protocol = _protocol_from_flags(configs, flag_values)
    if flag_values.cluster is not None:
        resources = flag_values.cpus_per_run, flag_values.gpus_per_run
        return configs, Cluster(flag_values.cluster, *resources), protocol
    for name in ("cpus_per_run", "gpus_per_run"):
        require(not flag_values[name].present, f"--cluster beside --{name}", f"--{name} alone")
    return configs, None, protocol


def _protocol_from_flags(configs: Sequence[RunConfig], flag_values: flags.FlagValues) -> Protocol | None:
    """The protocol beside the paper's; None if there is none."""
    if flag_values.protocol == "paper":
        for name in evaluate.OPTIONS:
            require(not flag_values[name].present, f"another --protocol than paper beside --{name}", "paper")
        return None
    protocol = evaluate.protocol_from_flags(flag_values.protocol, flag_values)
    evaluate.require_possible(protocol, configs)
    return protocol


def configs_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> list[RunConfig]:
    """The runs of the table, in order: models, then seeds, then modes.

    --run_dir is the directory that holds their run directories and the table.

    Raises:
        InputError: if a value does not fit.
    """
    for one, several in (("model", "models"), ("mode", "modes")):
        require(not flag_values[one].present, f"--{several} for this command", f"--{one}")
    given_models = names.joined(flag_values.models)
    models = _distinct("models", given_models, [*SETUPS, *filter(names.is_own, given_models)])
    modes = _distinct("modes", flag_values.modes, MODES)
    given = [str(flag_values.seed)] if flag_values.seeds is None else flag_values.seeds
    seeds = _distinct("seeds", config_flags.parse_list("seeds", given, int))
    require(
        flag_values.strategy != "multi_worker",
        "--strategy=single or mirrored for a table; several machines train one run at a time",
        f"--strategy={flag_values.strategy}",
    )
    root = Path(flag_values.run_dir or "runs/table2")
    configs = []
    for model, seed, mode in itertools.product(models, seeds, modes):
        values = {"model": model, "mode": mode, "seed": seed, "resume": True}
        config = config_flags.config_from_flags(flag_values, **values)
        configs.append(dataclasses.replace(config, run_dir=str(root / config.name)))
    short = {config.model: config.model_name for config in configs}
    require(
        len(set(short.values())) == len(short),
        "--models of distinct short names, which tell their runs apart",
        f"{', '.join(short.values())}",
    )
    require(
        len(configs) == 1 or not flag_values.export,
        "--export without a path for several targets, each of which is exported to its own run directory",
        f"--export={flag_values.export}",
    )
    return configs


def main(
    configs: Sequence[RunConfig], cluster: Cluster | None = None, protocol: Protocol | None = None
) -> None:
    """Run every target that is not done yet, here or on a cluster; write and print the table.

    With a protocol beside the paper's the targets are then evaluated by it, on this machine.
    """
    quiet_start.import_tensorflow()  # Once the flags are known to be right.
    from divtf.pipeline import experiment
    from divtf.reporting import plain_text, report

    root = Path(configs[0].run_dir).parent
    records = _run_here(configs) if cluster is None else run_all(configs, cluster)
    paths = report.write_report(root, records, against_paper=True)
    print()
    print(plain_text.table_text(records))
    for name, path in paths.items():
        print(f"  {name:<14} {path}")
    for config in configs:
        print(f"{config.target}\n{experiment.summary(config.part(OutputPart))}")
    if protocol:
        evaluate.main(root, protocol, configs[0].data_dir)


def _run_here(configs: Sequence[RunConfig]) -> list[TargetRecord]:
    """Run the targets on this machine, one after the other."""
    from divtf.pipeline import experiment

    records = []
    for number, config in enumerate(configs, 1):
        print(
            f"\n== {number}/{len(configs)}: {config.model_name}, {config.target}, seed {config.seed}",
            flush=True,
        )
        records.append(finished.read_record(experiment.run(config)))
    return records


def _distinct(name: str, values: Sequence, known: Collection[str] = ()) -> Sequence:
    """The values of a list flag, if they are distinct and, where these are given, of the known ones."""
    among = f" of {{{', '.join(known)}}}" if known else ""
    holds = 0 < len(set(values)) == len(values) and (not known or set(values) <= set(known))
    shown = ",".join(map(str, values)) + nearest(tuple(values), known)
    require(holds, f"--{name} as distinct values{among}, at least one", f"{name}={shown}")
    return values


def launch() -> None:
    """The command: flags of a run and of a table, and the table."""
    config_flags.define_flags()
    define_flags()
    command_line.run(lambda table: main(*table), table_from_flags)
