"""The command for Table 2: every defence of every model, side by side with the paper's figures."""

import dataclasses
from pathlib import Path

from absl import flags

from divtf import cli
from divtf.config import MODES, SETUPS, RunConfig
from divtf.errors import require

FLAGS = flags.FLAGS
_PAPER_MODES = ["base", "div", "ens", "ens_div"]


def define_flags() -> None:
    """Declare what this command has beside the flags of one run."""
    flags.DEFINE_list("models", ["conv3"], "Models of the table, in order.")
    flags.DEFINE_list("modes", _PAPER_MODES, "Defences of the table, in order.")
    flags.DEFINE_list(
        "seeds", None, "Seeds of the targets; several give mean and deviation. Default: --seed."
    )


def main(config: RunConfig) -> None:
    """Run every part that is not done yet; write and print the table.

    --model, --mode and --seed are taken from --models, --modes and --seeds; --run_dir is the directory
    that holds the parts' run directories and the table.
    """
    parts = _parts(config)
    from divtf import experiment, report

    root = Path(parts[0].run_dir).parent
    records = []
    for number, part in enumerate(parts, 1):
        print(
            f"\n== {number}/{len(parts)}: {part.model}, {MODES[part.mode].target}, seed {part.seed}",
            flush=True,
        )
        records.append(experiment.read_record(experiment.run(part)))
    paths = report.write_report(root, records, against_paper=True)
    print()
    print(report.table_text(records))
    for name, path in paths.items():
        print(f"  {name:<14} {path}")
    for part in parts:
        print(f"{MODES[part.mode].target}\n{experiment.summary(Path(part.run_dir), part)}")


def _parts(config: RunConfig) -> list[RunConfig]:
    models, modes = list(FLAGS.models), list(FLAGS.modes)
    require(bool(models) and set(models) <= set(SETUPS), f"--models among {sorted(SETUPS)}", f"{models}")
    require(bool(modes) and set(modes) <= set(MODES), f"--modes among {sorted(MODES)}", f"{modes}")
    seeds = FLAGS.seeds or [str(config.seed)]
    require(all(seed.isdigit() for seed in seeds), "--seeds as whole numbers >= 0", ",".join(seeds))
    root = Path(config.run_dir or "runs/table2")
    parts = []
    for model in models:
        for seed in map(int, seeds):
            for mode in modes:
                part = dataclasses.replace(config, model=model, mode=mode, seed=seed, resume=True).resolved()
                parts.append(dataclasses.replace(part, run_dir=str(root / part.name)))
    return parts


if __name__ == "__main__":
    cli.define_flags()
    define_flags()
    flags.adopt_module_key_flags(cli)
    cli.launch(main)
