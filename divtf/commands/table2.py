"""The command for Table 2: every defence of every model, side by side with the paper's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from divtf.commands import command_line, config_flags, evaluate, many_runs
from divtf.commands.config_flags import help_text
from divtf.commands.ray_task import Cluster
from divtf.errors import require
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.pipeline.parts import OutputPart
from divtf.pipeline.protocols import PROTOCOLS, Protocol
from divtf.runtime import quiet_start

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.

_PAPER_MODES = ["base", "div", "ens", "ens_div"]


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare what this command has beside the flags of one run."""
    options: dict[str, Any] = {"flag_values": flag_values}
    many_runs.define_flags(flag_values)
    flags.DEFINE_list("modes", _PAPER_MODES, help_text("Defences, in order.", MODES), **options)
    protocol = help_text("What the table's targets are tried by.", ["paper", *PROTOCOLS])
    flags.DEFINE_string("protocol", "paper", protocol, **options)
    evaluate.define_flags(flag_values)


def table_from_flags(
    flag_values: flags.FlagValues = flags.FLAGS,
) -> tuple[list[RunConfig], Cluster | None, Protocol | None]:
    """The runs of the table, the cluster to run them on (None for this machine), and another protocol.

    Raises:
        InputError: if a value does not fit.
    """
    configs = configs_from_flags(flag_values)
    protocol = _protocol_from_flags(configs, flag_values)
    return configs, many_runs.cluster_from_flags(flag_values), protocol


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
    require(not flag_values["mode"].present, "--modes for this command", "--mode")
    modes = config_flags.distinct("modes", flag_values.modes, MODES)
    return many_runs.configs_from_flags(flag_values, [{"mode": mode} for mode in modes], "runs/table2")


def main(
    configs: Sequence[RunConfig], cluster: Cluster | None = None, protocol: Protocol | None = None
) -> None:
    """Run every target that is not done yet, here or on a cluster; write and print the table.

    With a protocol beside the paper's the targets are then evaluated by it, on this machine.
    """
    quiet_start.import_tensorflow()  # Once the flags are known to be right.
    from divtf.pipeline import evaluation, experiment, results
    from divtf.reporting import plain_text, report

    root = Path(configs[0].run_dir).parent
    if protocol:
        evaluation.require_possible(configs, protocol)
    records = many_runs.run(configs, cluster)
    # Checks of an evaluation before mark targets, though they were not trained again.
    beside = results.evaluations(Path(config.run_dir) for config in configs)
    paths = report.write_report(root, records, beside, against_paper=True)
    if page := results.try_page(root):
        paths = {"page": page, **paths}
    print()
    print(plain_text.table_text(records, beside))
    for name, path in paths.items():
        print(f"  {name:<14} {path}")
    for config in configs:
        print(f"{config.target}\n{experiment.summary(config.part(OutputPart))}")
    if protocol:
        evaluate.main(root, protocol, configs[0].data_dir, [Path(config.run_dir) for config in configs])


def launch() -> None:
    """The command: flags of a run and of a table, and the table."""
    config_flags.define_flags()
    define_flags()
    command_line.run(lambda table: main(*table), table_from_flags)
