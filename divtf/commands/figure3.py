"""The command for section 3.4, Figure 3; `--help` shows the docstring of `divtf/figure3.py`."""

from pathlib import Path

from absl import flags

from divtf.commands import command_line
from divtf.errors import require
from divtf.pipeline import finished
from divtf.storage import checked_json, files
from divtf.storage.records import SparsityRecord

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.


def collect(root: Path) -> list[SparsityRecord]:
    """What the finished runs with GAL below a directory show, in the order of their training."""
    directories = finished.directories(root)
    with_gal = [path for path in directories if finished.read_config(path).objective_name == "gal"]
    return [finished.read_sparsity(path) for path in with_gal]


def main(root: Path) -> None:
    """Write sparsity.png and sparsity.json beside the runs, and print the figures.

    Raises:
        InputError: if no run below `root` has trained with GAL to its end.
    """
    # Matplotlib, which takes half a second, loads once the flags are known to be right.
    from divtf.reporting.figures import style
    from divtf.reporting.figures.sparsity import SHARES, sparsity_figure

    records = collect(root)
    expected = f"finished runs of mode div or ens_div below {root}"
    require(bool(records), expected, f"{len(finished.directories(root))} of other modes")
    files.write_file(root / "sparsity.png", style.png(sparsity_figure(records)))
    checked_json.write_json(root / "sparsity.json", [record.to_json() for record in records])
    for record in records:
        shares = [f"{100 * getattr(record, name):.2f} % {text}" for name, text in SHARES.items()]
        curve = f"GAL {record.gal[0]:.3f} in epoch 1, {record.gal[-1]:.3f} in epoch {len(record.gal)}"
        print(f"{record.subject}, {record.target}, seed {record.seed}: {', '.join(shares)}; {curve}")
    print(f"  {'sparsity':<14} {root / 'sparsity.png'}")


def launch() -> None:
    """The command: its flags, and what it does with them."""
    flags.DEFINE_string("runs", "runs/sparsity", "Directory that holds the run directories.")
    command_line.run_without_config(lambda: main(Path(flags.FLAGS.runs)))
