"""The command for Figure 5; `--help` shows the docstring of `divtf/figure5.py`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from divtf.commands import command_line
from divtf.commands.config_flags import define_flags, help_text
from divtf.errors import require
from divtf.pipeline import finished
from divtf.pipeline.modes import MODES
from divtf.pipeline.parts import DataPart
from divtf.runtime import quiet_start
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, environment, files, run_directory
from divtf.storage.records import GaasRecord

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.

_LOG = get_logger(__name__)
_THIRDS = (1 / 3, 2 / 3, 1.0)


def collect(root: Path) -> list[GaasRecord]:
    """The analyses that this command has left in the run directories below `root`.

    Raises:
        InputError: if a target was trained anew since.
    """
    return finished.current_analyses(GaasRecord, root, run_directory.GAAS)


def main(root: Path, images: int, targets: Sequence[str], data_dir: str | None = None) -> None:
    """Measure what is not measured yet, then write gaas.png and gaas.json beside the runs.

    Args:
        root: directory that holds the run directories.
        images: number of test images to analyse, the first ones.
        targets: names of the targets to analyse.
        data_dir: data directory of tensorflow-datasets; None is its own.

    Raises:
        InputError: if no finished run is one of these targets, or if two are of the same target and seed.
    """
    # Matplotlib, which takes half a second, loads once the flags are known to be right.
    from divtf.reporting.figures import style
    from divtf.reporting.figures.gaas import gaas_figure

    finished_targets = {path: finished.read_config(path).target for path in finished.directories(root)}
    chosen = [path for path, target in finished_targets.items() if target in targets]
    expected = f"finished runs of {', '.join(targets)} below {root}"
    require(bool(chosen), expected, ", ".join(dict.fromkeys(finished_targets.values())) or "none")
    finished.require_distinct([finished.read_record(path) for path in chosen], root)
    records = [measure(path, images, data_dir) for path in chosen]
    files.write_file(root / "gaas.png", style.png(gaas_figure(records)))
    checked_json.write_json(root / run_directory.GAAS, [record.to_json() for record in records])
    for record in records:
        for curve in record.curves:
            count = f"{curve['mean_successes']:6.2f} of {curve['order']:2d} directions"
            at = f"epsilon {curve['epsilon']:g}, {curve['images']} images"
            print(f"{record.subject}, {record.target}, seed {record.seed}: {at}: {count}")
    print(f"  {'gaas':<14} {root / 'gaas.png'}")


def measure(directory: Path, images: int, data_dir: str | None = None) -> GaasRecord:
    """The analysis of the target in a run directory; read from there if it is of these weights and images."""
    record, earlier = finished.read_record(directory), finished.read_gaas(directory)
    weights = record.provenance.get("weights")
    images = min(images, record.budget.get("test images", images))
    if earlier and (earlier.images, earlier.provenance.get("weights")) == (images, weights):
        return earlier
    quiet_start.import_tensorflow()  # Only if there is something to measure.
    from divtf.evaluation.gaas import gaas
    from divtf.pipeline import experiment, trained

    config = dataclasses.replace(finished.read_config(directory), data_dir=data_dir)
    data = experiment.load_data(config.part(DataPart))
    x, y = data.test_set(images)
    target = trained.restore(config, data.spec, directory)
    _LOG.info(f"analyses {directory} on {images} images")
    budgets = [round(config.largest_epsilon * third, 6) for third in _THIRDS]
    analysis = GaasRecord(
        **record.common(),
        images=images,
        curves=tuple(result.to_json() for result in gaas(target, x, y, epsilons=budgets)),
        analysis=environment.environment(),
    )
    checked_json.write_checked(directory / run_directory.GAAS, analysis.to_json())
    return analysis


def launch() -> None:
    """The command: its flags, and what it does with them."""
    defined, known = flags.FLAGS, [mode.target for mode in MODES.values()]
    flags.DEFINE_string("runs", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_integer("images", 200, "Analyse the first test images of each target.", lower_bound=1)
    flags.DEFINE_list("targets", ["T_Base", "T_Div"], help_text("Targets of the figure.", known))
    define_flags(names=("data_dir",))
    command_line.run_without_config(
        lambda: main(Path(defined.runs), defined.images, defined.targets, defined.data_dir)
    )
