"""The command for Figure 5: python -m divtf.figure5 --runs=runs/table2 --images=200.

Analyses the adversarial subspace of every finished target below a directory, as `divtf.table2` leaves it.
"""

from pathlib import Path
from typing import Any

from absl import flags

from divtf import cli, run_dir
from divtf.config import RunConfig
from divtf.errors import require

FLAGS = flags.FLAGS
GAAS = "gaas.json"
# The paper's three budgets for CIFAR-10 are thirds of its largest.
_THIRDS = (1 / 3, 2 / 3, 1.0)


def define_flags() -> None:
    """Declare what this command takes."""
    flags.DEFINE_string("runs", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_integer("images", 200, "Analyse the first test images of each target.", lower_bound=1)
    flags.DEFINE_list("targets", ["T_Base", "T_Div"], "Targets of the figure.")


def main() -> None:
    """Measure what is not measured yet, then draw gaas.png beside the runs."""
    from divtf import plots

    root = Path(FLAGS.runs)
    directories = sorted(path.parent for path in root.glob(f"*/{run_dir.RESULTS}"))
    measured = [measure(path, FLAGS.images) for path in directories]
    chosen = [result for results in measured for result in results if result["target"] in FLAGS.targets]
    require(bool(chosen), f"finished runs of {FLAGS.targets} below {root}", f"{len(directories)} other runs")
    with run_dir.atomic_path(root / "gaas.png") as partial:
        partial.write_bytes(plots.png(plots.gaas_figure(chosen)))
    for result in chosen:
        found = f"{result['mean_successes']:6.2f} of {result['order']:2d} directions"
        print(f"{result['model']} {result['target']}: epsilon {result['epsilon']:.2f}, {found}")
    print(f"  gaas           {root / 'gaas.png'}")


def measure(directory: Path, images: int) -> list[dict[str, Any]]:
    """The analysis of the target in a run directory; read from there if it was made of as many images."""
    path = directory / GAAS
    if path.exists() and (stored := run_dir.read_json(path))["images"] == images:
        return stored["results"]
    from divtf import experiment, training
    from divtf.subspace import gaas

    config = RunConfig.from_json(run_dir.read_json(directory / run_dir.CONFIG))
    record = experiment.read_record(directory)
    data = experiment.load_data(config)
    target = training.restore(config, data.spec, directory)
    print(f"analyses {directory} on {images} images", flush=True)
    budgets = [round(config.largest_epsilon * third, 6) for third in _THIRDS]
    found = gaas(target, *data.test_set(images), epsilons=budgets)
    of = {"target": record.target, "model": record.model, "dataset": record.dataset, "seed": record.seed}
    results = [of | result.to_json() for result in found]
    run_dir.write_json(path, {"images": images, "results": results})
    return results


if __name__ == "__main__":
    define_flags()
    cli.launch_without_config(main)
