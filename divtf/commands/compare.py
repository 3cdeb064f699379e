"""The command for comparisons of recipes; `--help` shows the docstring of `divtf/compare.py`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from divtf.commands import command_line, config_flags, evaluate, many_runs
from divtf.commands.config_flags import help_text
from divtf.commands.ray_task import Cluster
from divtf.errors import InputError, require
from divtf.pipeline import finished, static_fields
from divtf.pipeline.config import RunConfig
from divtf.pipeline.objective_fields import ObjectiveFields
from divtf.pipeline.protocols import PROTOCOLS, Protocol
from divtf.pipeline.recipes import RECIPES
from divtf.pipeline.static_fields import StaticFields
from divtf.runtime import quiet_start
from divtf.storage import checked_json, files, run_directory
from divtf.storage.evaluations import ComparisonRecord

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.

_SHOWN = ["base", "noise", "div", "ens", "ens_div"]
# What a recipe may set: a defence, and how it is trained. Models, images, seeds and attacks are those of all
# that are compared.
OF_A_RECIPE = {
    *("label", "mode", "activation", "negative_slope", "flips", "epochs", "batch_size"),
    *("learning_rate", "weight_decay", "schedule", "precision", "memory"),
    *(field.name for kind in (ObjectiveFields, StaticFields) for field in dataclasses.fields(kind)),
}


# What others are compared with, where it is among them.
_REFERENCE = "T_Ens+Div"


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare what this command has beside the flags of one run."""
    options: dict[str, Any] = {"flag_values": flag_values}
    many_runs.define_flags(flag_values)
    text = "Defences, in order; FILE.flags is one of your own, named by its --label or as the file."
    recipes = help_text(text, RECIPES)
    flags.DEFINE_list("recipes", _SHOWN, recipes, **options)
    reference = help_text(
        "The target that others are compared with.", stands_for=f"{_REFERENCE}, else the first of the recipes"
    )
    flags.DEFINE_string("reference", None, reference, **options)
    flags.DEFINE_string("protocol", "strong", help_text("What is tried.", PROTOCOLS), **options)
    evaluate.define_flags(flag_values)


def comparison_from_flags(
    flag_values: flags.FlagValues = flags.FLAGS,
) -> tuple[list[RunConfig], Cluster | None, Protocol, str]:
    """The runs, the cluster to train them on (None for this machine), the protocol, and the reference.

    Raises:
        InputError: if a value does not fit.
    """
    require(not flag_values["mode"].present, "--recipes for this command", "--mode")
    given = flag_values.recipes
    known = [*RECIPES, *(name for name in given if name.endswith(".flags"))]
    recipes = [recipe(name) for name in config_flags.distinct("recipes", given, known)]
    configs = many_runs.configs_from_flags(flag_values, recipes, "runs/compare")
    targets = list(dict.fromkeys(config.target for config in configs))
    reference = flag_values.reference or (_REFERENCE if _REFERENCE in targets else targets[0])
    require(reference in targets, f"--reference as one of {{{', '.join(targets)}}}", f"reference={reference}")
    protocol = evaluate.protocol_from_flags(flag_values.protocol, flag_values)
    evaluate.require_possible(protocol, configs)
    return configs, many_runs.cluster_from_flags(flag_values), protocol, reference


def recipe(name: str) -> Mapping[str, Any]:
    """The values of a recipe: one of `RECIPES`, or the flags of a file.

    Raises:
        InputError: if the file cannot be read, or has something else than flags of a defence.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    require(path.is_file(), "--recipes with files that are there", name)
    own = flags.FlagValues()
    config_flags.define_flags(own)
    try:
        rest = own(["recipe", f"--flagfile={path}"])[1:]
    except (flags.Error, UnicodeDecodeError) as error:
        raise InputError(f"Expected flags of a run in {name}. Received: {error}") from None
    require(not rest, f"flags only in {name}", " ".join(rest))
    values = {key: value for key, value in config_flags.values_of(own).items() if own[key].present}
    others = [f"--{key}" for key in values if key not in OF_A_RECIPE]
    expected = f"flags of a defence in {name}, those of the whole comparison on the command line"
    require(not others, expected, ", ".join(others))
    require(bool(values), f"flags of a defence in {name}", "none")
    static_fields.require_used(values, values.get("mode", RunConfig.mode))
    return {"label": path.stem} | values


def main(configs: Sequence[RunConfig], cluster: Cluster | None, protocol: Protocol, reference: str) -> None:
    """Train and evaluate every target that is not done yet; write and print the comparison."""
    quiet_start.import_tensorflow()  # Once the flags are known to be right.
    from divtf.pipeline import evaluation, results
    from divtf.reporting import published
    from divtf.reporting.comparison import comparison_text

    root = Path(configs[0].run_dir).parent
    evaluation.require_possible(configs, protocol)
    runs = many_runs.run(configs, cluster)
    # Of runs of other comparisons beside them, `same` would make other attackers.
    evaluate.main(root, protocol, configs[0].data_dir, [Path(config.run_dir) for config in configs])
    found = [finished.read_evaluation(Path(config.run_dir), protocol.name) for config in configs]
    records = [
        ComparisonRecord.of(run, evaluation, reference)
        for run, evaluation in zip(runs, found, strict=True)
        if evaluation
    ]
    beside = results.evaluations(Path(config.run_dir) for config in configs)
    written = published.contents({"comparison": records}, beside)
    for name, content in written.items():
        files.write_file(root / name, content)
    checked_json.write_json(root / run_directory.COMPARISON, [record.to_json() for record in records])
    page = results.try_page(root)
    print()
    print(comparison_text(records))
    for name in (*written, run_directory.COMPARISON):
        print(f"  {name:<15} {root / name}")
    if page:
        print(f"  {'page':<15} {page}")


def launch() -> None:
    """The command: flags of a run and of a comparison, and the comparison."""
    config_flags.define_flags()
    define_flags()
    command_line.run(lambda found: main(*found), comparison_from_flags)
