"""Where a GAL step's time goes, by TensorFlow's profiler: python -m benchmarks.profile [--models=conv3].

Shares of the time that all threads together spend in operations of a kind. The step is slower than an
unprofiled one; the shares are what this tells.
"""

import collections
import tempfile
from pathlib import Path

import tensorflow as tf
from absl import app, flags
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import options
from benchmarks.steps import Steps
from benchmarks.timing import Row, write_tables
from divtf import GradientAlignment

MODELS = options.models(["conv3"], "Models to profile.")
MEMBERS = flags.DEFINE_integer("num_members", 5, "Members of the ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")
_SHOWN = 14


def seconds_by_kind(log: Path) -> collections.Counter[str]:
    """Seconds of all operations in a profile, by the operation's kind, over all threads of the CPU."""
    (path,) = log.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        if "CPU" not in plane.name:
            continue
        for line in plane.lines:
            for event in line.events:
                # An operation's events are called NODE:KIND; those of the runtime have C++ names, with "::".
                node, _, kind = plane.event_metadata[event.metadata_id].name.partition(":")
                if node and kind and not kind.strip().startswith((":", "__inference")):
                    found[kind.strip()] += event.duration_ps / 1e12
    return found


def profile(model: str, count: int, batch: int) -> list[Row]:
    """Share of each kind of operation in a step of one model, in percent."""
    step = Steps(model, batch).training(GradientAlignment(0.5), count)
    step(), step()
    with tempfile.TemporaryDirectory() as log:
        tf.profiler.experimental.start(log)
        step()
        tf.profiler.experimental.stop()
        found = seconds_by_kind(Path(log))
    total = sum(found.values())
    rows = [Row(f"{kind}, %", 100 * seconds / total) for kind, seconds in found.most_common(_SHOWN)]
    return [*rows, Row("all others, %", 100 - sum(row.value for row in rows))]


def main() -> None:
    tables = {}
    for model in MODELS.value:
        tables[model] = profile(model, MEMBERS.value, BATCH.value)
        print(model)
        for row in tables[model]:
            print("  {:<40} {:>8}".format(*row.cells()), flush=True)
    if OUTPUT.value:
        budget = {"members": MEMBERS.value, "batch size": BATCH.value}
        write_tables(Path(OUTPUT.value), "Profile of a GAL step", budget, tables)


if __name__ == "__main__":
    app.run(lambda _: main())
