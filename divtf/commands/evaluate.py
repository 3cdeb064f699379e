"""The command for evaluations by a protocol; `--help` shows the docstring of `divtf/evaluate.py`."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from divtf.commands import command_line
from divtf.commands.config_flags import define_flags as define_run_flags
from divtf.commands.config_flags import distinct, help_text
from divtf.errors import require, require_installed
from divtf.pipeline import finished
from divtf.pipeline.config import RunConfig
from divtf.pipeline.fields import nearest
from divtf.pipeline.protocols import GIVEN, PROTOCOLS, Protocol
from divtf.pipeline.surrogates import FORMS, require_alike, surrogates
from divtf.runtime import quiet_start
from divtf.storage import checked_json, files, run_directory
from divtf.storage.evaluations import EvaluationRecord

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.


OPTIONS = ("surrogates", "images", "queries", "query_images")


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare what an evaluation has beside the runs; None leaves a value to the protocol."""
    options: dict[str, Any] = {"flag_values": flag_values}
    own = "the protocol's"
    surrogates = help_text(f"Surrogates: {FORMS}.", stands_for=own)
    images = help_text("Attack the first test images.", stands_for=own)
    queries = help_text("Scores that Square may ask for, of an image; 0 leaves it out.", stands_for=own)
    query_images = help_text(
        "Square attacks the first images, and those that withstand all else.", stands_for=own
    )
    flags.DEFINE_list("surrogates", None, surrogates, **options)
    flags.DEFINE_integer("images", None, images, lower_bound=1, **options)
    flags.DEFINE_integer("queries", None, queries, lower_bound=0, **options)
    flags.DEFINE_integer("query_images", None, query_images, lower_bound=1, **options)


def protocol_from_flags(name: str, flag_values: flags.FlagValues = flags.FLAGS) -> Protocol:
    """The protocol of that name with the values that were given.

    Raises:
        InputError: if there is none of that name, or a value does not fit.
    """
    known = f"--protocol as one of {{{', '.join(PROTOCOLS)}}}"
    require(name in PROTOCOLS, known, f"protocol={name}{nearest(name, PROTOCOLS)}")
    values = {key: flag_values[key].value for key in GIVEN if key != "surrogates"}
    given = {key: value for key, value in values.items() if value is not None}
    if flag_values.surrogates is not None:
        given["surrogates"] = distinct("surrogates", flag_values.surrogates)
    return dataclasses.replace(PROTOCOLS[name], **given)


def require_possible(protocol: Protocol, configs: Iterable[RunConfig]) -> None:
    """Refuse a protocol whose surrogates are unknown, whose extra is not installed, or of too many images.

    And targets that it would not attack alike, as those with other epsilons.

    Args:
        protocol: what is tried.
        configs: of the targets, trained or not.

    Raises:
        InputError: says which.
    """
    if protocol.needs_art:
        require_installed(f"--protocol={protocol.name}", "attacks", ("art",))
    configs = list(configs)
    require_alike(configs)
    for config in configs:
        if config.max_test_examples:
            protocol.images_of(config.max_test_examples)
        surrogates(protocol.surrogates, [config])


def main(
    root: Path,
    protocol: Protocol,
    data_dir: str | None = None,
    paths: Sequence[Path] | None = None,
) -> list[EvaluationRecord]:
    """Evaluate the finished targets below a directory; write and print the report.

    Args:
        root: directory that holds the run directories.
        protocol: what is tried.
        data_dir: data directory of tensorflow-datasets; None is its own.
        paths: of the targets, where not all below root are meant.

    Raises:
        InputError: if there is no finished run, if two are of the same target and seed, or what the protocol
            needs for any of them cannot be had; before anything is trained.
    """
    paths = finished.required(root) if paths is None else paths
    targets = [finished.read_record(path) for path in paths]
    finished.require_distinct(targets, root)
    families = finished.families(paths, data_dir)
    require_possible(protocol, [config for family in families for config in family.values()])
    quiet_start.import_tensorflow()  # Once the flags are known to be right.
    from divtf.pipeline import evaluation, results
    from divtf.reporting import published, report
    from divtf.reporting.evaluation import evaluation_text

    records = evaluation.evaluate_all(families, protocol)
    # A check that failed, by whatever protocol, marks its target in all reports.
    beside, made = results.evaluations(paths), {"evaluation": records}
    directory = root / f"evaluation-{protocol.name}"
    for name, content in published.contents(made, beside).items():
        files.write_file(directory / name, content)
    files.write_file(directory / "README.md", f"# Evaluation\n\n{published.section(made, beside)}\n")
    checked_json.write_json(directory / "evaluation.json", [record.to_json() for record in records])
    if (root / report.REPORT).exists():
        beneath = finished.directories(root)
        known = results.evaluations(beneath)
        report.write_report(root, map(finished.read_record, beneath), known, against_paper=True)
    page = results.try_page(root)
    print()
    print(evaluation_text(records, beside))
    print(f"  {'report':<14} {directory / 'README.md'}")
    if page:
        print(f"  {'page':<14} {page}")
    return records


def collect(root: Path, protocol: str) -> list[EvaluationRecord]:
    """The evaluations by a protocol that this command has left in the run directories below `root`.

    Raises:
        InputError: if a target was trained anew since.
    """
    return finished.current_analyses(EvaluationRecord, root, run_directory.evaluation(protocol))


def launch() -> None:
    """The command: its flags, and what it does with them."""
    defined = flags.FLAGS
    flags.DEFINE_string("runs", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_string("protocol", "strong", help_text("What is tried.", PROTOCOLS))
    define_flags()
    define_run_flags(names=("data_dir", "stored_as"))
    command_line.run(
        lambda protocol: main(Path(defined.runs), protocol, defined.data_dir),
        lambda flag_values: protocol_from_flags(flag_values.protocol, flag_values),
    )
