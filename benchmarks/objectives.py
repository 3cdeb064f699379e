"""What objectives cost: python -m benchmarks.objectives writes benchmarks/results/objectives.md.

Steps of each objective over those of plain cross-entropy, with its authors' settings, timed in turn. The
machine should do nothing else.
"""

from pathlib import Path

from absl import app, flags

from benchmarks import options
from benchmarks.steps import Steps
from benchmarks.timing import Row, medians, write_tables
from divtf import OBJECTIVES, make_objective

MODELS = options.models(["conv3"], "Models whose steps are measured.")
MEMBERS = flags.DEFINE_integer("num_members", 3, "Members of an ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=2)
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed rounds, after two that are not counted.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", "benchmarks/results/objectives", "Write PATH.json and PATH.md.")


def measure(model: str, count: int, batch: int, repeats: int) -> list[Row]:
    """The step of each objective over that of plain cross-entropy."""
    steps = Steps(model, batch)
    timed = {name: steps.training(make_objective(name), count) for name in OBJECTIVES}
    seconds = medians(timed, repeats)
    plain = seconds.pop("cross_entropy")
    rows = [Row(f"{name} / cross_entropy", value / plain) for name, value in seconds.items()]
    return [Row("cross_entropy step, s", plain), *rows]


def main() -> None:
    count, batch, repeats = MEMBERS.value, BATCH.value, REPEATS.value
    tables = {model: measure(model, count, batch, repeats) for model in MODELS.value}
    budget = {"members": count, "batch size": batch, "rounds": repeats}
    write_tables(Path(OUTPUT.value), "What objectives cost", budget, tables)
    print(Path(OUTPUT.value).with_suffix(".md").read_text())


if __name__ == "__main__":
    app.run(lambda _: main())
