"""What one member after the other takes: python -m benchmarks.memory writes benchmarks/results/memory.md.

Peak memory of GAL's steps with 2 and 10 members, each in a process of its own, one member after the other
(`memory="low"`) and all at a time; and the time of both with 10, in turn. The machine should do nothing else.
"""

from pathlib import Path

from absl import app, flags

from benchmarks import options
from benchmarks.steps import Steps
from benchmarks.timing import Row, in_child, medians, write_tables
from divtf import GradientAlignment

MODELS = options.models(["resnet20"], "Models whose steps are measured.")
MEMBERS = flags.DEFINE_integer("num_members", 10, "Members of the larger ensemble.", lower_bound=3)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=2)
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed rounds, after two that are not counted.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", "benchmarks/results/memory", "Write PATH.json and PATH.md.")
# Of the memory of two members that ten may take, and of the plain step's time.
LOW_MEMORY, LOW_TIME = 1.2, 1.45
KINDS = {"": "usual", ", low": "low"}


def measure(model: str, count: int, batch: int, repeats: int) -> list[Row]:
    """Memory and time of a model's steps."""
    children = {
        f"{members}{name}": in_child("benchmarks.start", model, members, batch, memory)
        for members in (2, count)
        for name, memory in KINDS.items()
    }
    peak = {name: child["peak"] for name, child in children.items()}
    import_peak = min(child["imported"] for child in children.values())
    steps = Steps(model, batch)
    timed = {
        memory: steps.training(GradientAlignment(0.5), count, memory=None if memory == "usual" else memory)
        for memory in KINDS.values()
    }
    seconds = medians(timed, repeats)
    few, many = peak["2, low"], peak[f"{count}, low"]
    return [
        Row("peak of a process that has imported all, GB", import_peak),
        *(Row(f"peak of {name}, GB", value) for name, value in peak.items()),
        Row(f"peak of {count}, low / peak of 2", many / peak["2"], LOW_MEMORY),
        Row(f"peak of {count}, low / peak of 2, low", many / few, LOW_MEMORY),
        Row(
            f"peak of {count}, low / peak of 2, low, both above the import's",
            (many - import_peak) / (few - import_peak),
        ),
        *(Row(f"first step of {name}, s", child["first"]) for name, child in children.items()),
        Row(f"step of {count}, s", seconds["usual"]),
        Row(f"step of {count}, low / step of {count}", seconds["low"] / seconds["usual"], LOW_TIME),
    ]


def main() -> None:
    count, batch, repeats = MEMBERS.value, BATCH.value, REPEATS.value
    tables = {model: measure(model, count, batch, repeats) for model in MODELS.value}
    budget = {"members": f"2 and {count}", "batch size": batch, "rounds": repeats, "seed": 0}
    write_tables(Path(OUTPUT.value), "What one member after the other takes", budget, tables)
    print(Path(OUTPUT.value).with_suffix(".md").read_text())


if __name__ == "__main__":
    app.run(lambda _: main())
