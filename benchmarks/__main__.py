"""Measure speed as ratios, side by side in one run: python -m benchmarks [--models=conv3,conv4,resnet20].

The floor of a step is the time that its counted operations take at this machine's best rate, measured in the
same run on a large product and a large convolution. Figures are medians. The machine should do nothing else.
"""

import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

from benchmarks import stages, steps
from benchmarks.timing import Row, markdown
from divtf import run_dir

MODELS = flags.DEFINE_list("models", ["conv3", "conv4", "resnet20"], "Models whose steps are measured.")
MEMBERS = flags.DEFINE_integer("num_members", 5, "Members of an ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed rounds, after two that are not counted.", lower_bound=1)
MINUTES = flags.DEFINE_float("minutes", 10.0, "Length of the whole run that is timed; 0 leaves it out.")
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")
SURROUNDINGS = "around the steps (conv3)"


def main(arguments) -> None:
    del arguments
    count, batch, repeats = MEMBERS.value, BATCH.value, REPEATS.value
    tables: dict[str, list[Row]] = {}

    def add(name: str, rows: list[Row]) -> None:
        if name not in tables:
            print(f"\n{name}", flush=True)
        for row in rows:
            print("  {:<46} {:>8}  {}".format(*row.cells()).rstrip(), flush=True)
        tables.setdefault(name, []).extend(rows)
        if OUTPUT.value:
            write(Path(OUTPUT.value), tables)

    for model in MODELS.value:
        add(model, steps.measure(model, count, batch, repeats))
        add(model, steps.growth(model, batch, min(repeats, 3)))
    add(SURROUNDINGS, stages.pipeline("conv3", count, batch, repeats))
    add(SURROUNDINGS, stages.sharing("conv3", count, batch, min(repeats, 3)))
    if MINUTES.value > 0:
        add(SURROUNDINGS, stages.overhead("conv3", count, batch, MINUTES.value))


def write(path: Path, tables: dict[str, list[Row]]) -> None:
    """Keep the figures with what they depend on."""
    record = {
        "budget": {"members": MEMBERS.value, "batch size": BATCH.value, "rounds": REPEATS.value},
        "date": time.strftime("%Y-%m-%d"),
        "environment": run_dir.environment(),
        "tables": {name: [vars(row) for row in rows] for name, rows in tables.items()},
    }
    run_dir.write_json(path.with_suffix(".json"), record)
    path.with_suffix(".md").write_text(markdown(json.loads(path.with_suffix(".json").read_text())))


if __name__ == "__main__":
    app.run(main)
