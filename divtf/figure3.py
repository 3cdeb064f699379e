"""The command for section 3.4: python -m divtf.figure3 --runs=runs/sparsity.

Compares finished T_Div runs with ReLU and with LeakyReLU members (`divtf.table2 --activation=...`): how many
entries of the input gradients, and terms of their inner products, are zero; and how GAL falls in training.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from absl import flags
from matplotlib.figure import Figure

from divtf import cli, plots, run_dir
from divtf.errors import require
from divtf.records import TargetRecord

FLAGS = flags.FLAGS
_SHARES = {"zero_entries": "zero entries", "zero_products": "zero product terms"}


def define_flags() -> None:
    """Declare what this command takes."""
    flags.DEFINE_string("runs", "runs/sparsity", "Directory that holds the run directories.")


def main() -> None:
    """Draw sparsity.png beside the runs and print its figures."""
    root = Path(FLAGS.runs)
    found = [read(path.parent) for path in sorted(root.glob(f"*/{run_dir.RESULTS}"))]
    chosen = [run for run in found if run["gal"]]
    require(bool(chosen), f"finished runs of mode div or ens_div below {root}", f"{len(found)} other runs")
    with run_dir.atomic_path(root / "sparsity.png") as partial:
        partial.write_bytes(plots.png(figure(chosen)))
    run_dir.write_json(root / "sparsity.json", chosen)
    for run in chosen:
        shares = ", ".join(f"{100 * run[name]:.1f} % {text}" for name, text in _SHARES.items())
        print(f"{run['name']}: {shares}; GAL {run['gal'][0]:.3f} in epoch 1, {run['gal'][-1]:.3f} at last")
    print(f"  sparsity       {root / 'sparsity.png'}")


def read(directory: Path) -> dict[str, Any]:
    """Name, activation, shares of zeros, and GAL of each training epoch (empty without GAL) of a run."""
    record = TargetRecord.from_json(run_dir.read_json(directory / run_dir.RESULTS))
    lines = (directory / run_dir.METRICS).read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    return {
        "name": directory.name,
        "activation": run_dir.read_json(directory / run_dir.CONFIG)["activation"],
        **{name: record.gradients[name] for name in _SHARES},
        "gal": [epoch["gal"] for epoch in epochs if "gal" in epoch],
    }


@matplotlib.rc_context(plots.STYLE)
def figure(runs: Sequence[dict[str, Any]]) -> Figure:
    """Shares of zeros as bars, and GAL by epoch, one colour a run; section 3.4 and Figure 3."""
    picture = Figure(figsize=(8.4, 3.2), layout="constrained")
    bars, curves = picture.subplots(1, 2)
    width = 0.8 / len(runs)
    for place, run in enumerate(runs):
        colour = plots.COLOURS[place % len(plots.COLOURS)]
        positions = [group + (place - (len(runs) - 1) / 2) * width for group in range(len(_SHARES))]
        drawn = bars.bar(positions, [100 * run[name] for name in _SHARES], width, color=colour)
        bars.bar_label(drawn, fmt="%.1f", fontsize=8)
        epochs = range(1, len(run["gal"]) + 1)
        curves.plot(epochs, run["gal"], color=colour, marker=plots.MARKERS[place], label=run["activation"])
    bars.set(ylabel="share, %", title="zeros in the input gradients")
    bars.set_xticks(range(len(_SHARES)), list(_SHARES.values()))
    curves.set(xlabel="epoch", ylabel="GAL (Eq. 8)", title="GAL over training")
    curves.legend()
    return picture


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(cli)
    cli.launch_without_config(main)
