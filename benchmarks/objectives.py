"""What objectives cost: python -m benchmarks.objectives writes benchmarks/results/objectives.md.

Steps of each objective over those of plain cross-entropy, with its authors' settings, timed in turn; and
steps of one member after the other over those of all at a time, in seconds and peak memory, each in a process
of its own. The machine should do nothing else.
"""

from pathlib import Path

from absl import app, flags

from benchmarks import options
from benchmarks.steps import Steps
from benchmarks.timing import Row, in_child, medians, write_tables
from divtf import OBJECTIVES, make_objective

MODELS = options.models(["conv3"], "Models whose steps are measured.")
GROWTH = flags.DEFINE_string(
    "growth", "resnet20", "The model whose memory is measured with 2 and 10 members."
)
MEMBERS = flags.DEFINE_integer("num_members", 3, "Members of an ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=2)
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed rounds, after two that are not counted.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", "benchmarks/results/objectives", "Write PATH.json and PATH.md.")
# Of the memory of two members that ten may take, and of the plain step's time.
LOW_MEMORY, LOW_TIME = 1.2, 1.45


def measure(model: str, count: int, batch: int, repeats: int) -> list[Row]:
    """The step of each objective over that of plain cross-entropy."""
    steps = Steps(model, batch)
    timed = {name: steps.training(make_objective(name), count) for name in OBJECTIVES}
    seconds = medians(timed, repeats)
    plain = seconds.pop("cross_entropy")
    rows = [Row(f"{name} / cross_entropy", value / plain) for name, value in seconds.items()]
    return [Row("cross_entropy step, s", plain), *rows]


def low_memory(model: str, batch: int) -> list[Row]:
    """Memory and time of GAL's steps with 2 and 10 members, one after the other and all at a time."""
    few, few_low, many_low, many = (
        in_child("benchmarks.start", model, count, batch, memory)
        for count, memory in ((2, "usual"), (2, "low"), (10, "low"), (10, "usual"))
    )
    return [
        Row("peak of 2 members, GB", few["peak"]),
        Row("peak of 2 members, low, GB", few_low["peak"]),
        Row("peak of 10 members, GB", many["peak"]),
        Row("peak of 10 members, low, GB", many_low["peak"]),
        Row("peak of 10, low / peak of 2", many_low["peak"] / few["peak"], LOW_MEMORY),
        Row("peak of 10, low / peak of 2, low", many_low["peak"] / few_low["peak"], LOW_MEMORY),
        Row("step of 10, low / step of 10", many_low["later"] / many["later"], LOW_TIME),
    ]


def main(arguments) -> None:
    del arguments
    count, batch, repeats = MEMBERS.value, BATCH.value, REPEATS.value
    tables = {model: measure(model, count, batch, repeats) for model in MODELS.value}
    if GROWTH.value:
        tables[f"one member after the other ({GROWTH.value})"] = low_memory(GROWTH.value, batch)
    budget = {"members": count, "batch size": batch, "rounds": repeats}
    write_tables(Path(OUTPUT.value), "What objectives cost", budget, tables)
    print(Path(OUTPUT.value).with_suffix(".md").read_text())


if __name__ == "__main__":
    app.run(main)
