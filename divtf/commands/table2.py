"""The command for Table 2: every defence of every model, side by side with the paper's figures."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from divtf.commands import command_line, config_flags
from divtf.commands.ray_cluster import run_all
from divtf.commands.ray_task import Cluster
from divtf.data.paper import SETUPS
from divtf.errors import require
from divtf.pipeline import finished
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.storage.records import TargetRecord

flags.disclaim_key_flags()  # They are those of the command at the door.

_PAPER_MODES = ["base", "div", "ens", "ens_div"]


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare what this command has beside the flags of one run."""
    options: dict[str, Any] = {"flag_values": flag_values}
    flags.DEFINE_list("models", ["conv3"], "Models of the table, in order.", **options)
    flags.DEFINE_list("modes", _PAPER_MODES, "Defences of the table, in order.", **options)
    flags.DEFINE_list(
        "seeds",
        None,
        "Seeds of the targets; several give mean and deviation. Default: --seed.",
        **options,
    )
    flags.DEFINE_string(
        "cluster",
        None,
        "Run the parts on a Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: here, one by one.",
        **options,
    )
    flags.DEFINE_integer("cpus_per_run", 1, "CPU cores of each part, with --cluster.", **options)
    flags.DEFINE_integer("gpus_per_run", 0, "GPUs of each part, with --cluster.", **options)


def table_from_flags(
    flag_values: flags.FlagValues = flags.FLAGS,
) -> tuple[list[RunConfig], Cluster | None]:
    """The runs of the table, and the cluster to run them on; None for this machine.

    Raises:
        InputError: if a value does not fit.
    """
    parts = parts_from_flags(flag_values)
    if flag_values.cluster is not None:
        resources = flag_values.cpus_per_run, flag_values.gpus_per_run
        return parts, Cluster(flag_values.cluster, *resources)
    for name in ("cpus_per_run", "gpus_per_run"):
        require(not flag_values[name].present, f"--cluster beside --{name}", f"--{name} alone")
    return parts, None


def parts_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> list[RunConfig]:
    """The runs of the table, in order: models, then seeds, then modes.

    --run_dir is the directory that holds their run directories and the table.

    Raises:
        InputError: if a value does not fit.
    """
    for one, several in (("model", "models"), ("mode", "modes")):
        require(not flag_values[one].present, f"--{several} for this command", f"--{one}")
    models = _distinct("models", flag_values.models, SETUPS)
    modes = _distinct("modes", flag_values.modes, MODES)
    given = [str(flag_values.seed)] if flag_values.seeds is None else flag_values.seeds
    seeds = _distinct("seeds", config_flags.parse_list("seeds", given, int))
    require(
        flag_values.strategy != "multi_worker",
        "--strategy=single or mirrored for a table; several machines train one run at a time",
        f"--strategy={flag_values.strategy}",
    )
    root = Path(flag_values.run_dir or "runs/table2")
    parts = []
    for model, seed, mode in itertools.product(models, seeds, modes):
        part = config_flags.config_from_flags(
            flag_values, model=model, mode=mode, seed=seed, resume=True
        ).resolved()
        part = part.resolved()
        parts.append(dataclasses.replace(part, run_dir=str(root / part.name)))
    require(
        len(parts) == 1 or not flag_values.export,
        "--export without a path for several targets, each of which is exported to its own run directory",
        f"--export={flag_values.export}",
    )
    return parts


def main(parts: Sequence[RunConfig], cluster: Cluster | None = None) -> None:
    """Run every part that is not done yet, here or on a cluster; write and print the table."""
    from divtf.pipeline import experiment
    from divtf.reporting import plain_text, report

    root = Path(parts[0].run_dir).parent
    records = _run_here(parts) if cluster is None else run_all(parts, cluster)
    paths = report.write_report(root, records, against_paper=True)
    print()
    print(plain_text.table_text(records))
    for name, path in paths.items():
        print(f"  {name:<14} {path}")
    for part in parts:
        print(f"{part.target}\n{experiment.summary(Path(part.run_dir), part)}")


def _run_here(parts: Sequence[RunConfig]) -> list[TargetRecord]:
    """Run the parts on this machine, one after the other."""
    from divtf.pipeline import experiment

    records = []
    for number, part in enumerate(parts, 1):
        print(
            f"\n== {number}/{len(parts)}: {part.model}, {part.target}, seed {part.seed}",
            flush=True,
        )
        records.append(finished.read_record(experiment.run(part)))
    return records


def _distinct(name: str, values: Sequence, known=None) -> Sequence:
    among = f" of {{{', '.join(known)}}}" if known else ""
    holds = 0 < len(set(values)) == len(values) and (known is None or set(values) <= set(known))
    shown = ",".join(map(str, values))
    require(holds, f"--{name} as distinct values{among}, at least one", f"{name}={shown}")
    return values


def launch() -> None:
    """The command: flags of a run and of a table, and the table."""
    config_flags.define_flags()
    define_flags()
    command_line.run(lambda table: main(*table), table_from_flags)
