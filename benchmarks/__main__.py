"""Measure speed as ratios, side by side in one run: python -m benchmarks [--models=conv3,conv4,resnet20].

The floor of a step is the time that its counted operations take at this machine's best rate, measured in the
same run on a large product and a large convolution. Figures are medians. The machine should do nothing else.
"""

from pathlib import Path

from absl import app, flags

from benchmarks import options, stages, steps
from benchmarks.timing import Row, write_tables

MODELS = options.models(["conv3", "conv4", "resnet20"], "Models whose steps are measured.")
# Ten members of Conv-4 take some 20 GB, so it is left out.
GROWTH = flags.DEFINE_list(
    "growth", ["conv3", "resnet20"], "Those of them that are measured with 2 to 10 members."
)
MEMBERS = flags.DEFINE_integer("num_members", 5, "Members of an ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed rounds, after two that are not counted.", lower_bound=1)
MINUTES = flags.DEFINE_float("minutes", 10.0, "Length of the whole run that is timed; 0 leaves it out.")
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")
SURROUNDINGS = "around the steps (conv3)"


def main() -> None:
    count, batch, repeats = MEMBERS.value, BATCH.value, REPEATS.value
    tables: dict[str, list[Row]] = {}

    def add(name: str, rows: list[Row]) -> None:
        if name not in tables:
            print(f"\n{name}", flush=True)
        for row in rows:
            print("  {:<46} {:>8}  {}".format(*row.cells()).rstrip(), flush=True)
        tables.setdefault(name, []).extend(rows)
        if OUTPUT.value:
            budget = {"members": count, "batch size": batch, "rounds": repeats}
            write_tables(Path(OUTPUT.value), "Speed", budget, tables)

    for model in MODELS.value:
        add(model, steps.measure(model, count, batch, repeats))
        if model in GROWTH.value:
            add(model, steps.growth(model, batch, min(repeats, 3)))
    add(SURROUNDINGS, stages.pipeline("conv3", count, batch, repeats))
    add(SURROUNDINGS, stages.sharing("conv3", count, batch, min(repeats, 3)))
    add(SURROUNDINGS, stages.static_images("conv3", count, batch, min(repeats, 3)))
    if MINUTES.value > 0:
        add(SURROUNDINGS, stages.overhead("conv3", count, batch, MINUTES.value))


if __name__ == "__main__":
    app.run(lambda _: main())
