"""An epoch of a folder's images, streamed and from memory: python -m benchmarks.streaming --output=PATH.

PNGs are made, as large together as --gigabytes says. One process reads them by number as training does,
another has all of them in memory first; both make the same augmented batches. Memory is a process's largest
resident size.
"""

import json
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.timing import Row, in_child, write_tables
from divtf.data.datasets import load_dataset
from divtf.data.mixture import Mixture
from divtf.training.fit import whole_batches

GIGABYTES = flags.DEFINE_float("gigabytes", 6.0, "Size of all files together.", lower_bound=0.001)
SIDE = flags.DEFINE_integer("side", 320, "Height and width of an image.", lower_bound=8)
BATCH = flags.DEFINE_integer("batch_size", 64, "Images a step.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")
FOLDER = flags.DEFINE_string("folder", None, "A folder that was made before; one is made if there is none.")
WAY = flags.DEFINE_enum("way", None, ["streamed", "memory"], "What a child process measures.")


def make_folder(root: Path) -> None:
    """Images that do not compress, of two classes."""

    def save(number):
        rng = np.random.default_rng(number)
        split = "train" if number % 10 else "test"
        path = root / split / f"class{number // 10 % 2}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (SIDE.value, SIDE.value, 3), dtype="uint8")
        Image.fromarray(image).save(path, compress_level=0)

    count = int(GIGABYTES.value * 1e9 / (3 * SIDE.value**2))
    with ThreadPoolExecutor() as threads:
        list(threads.map(save, range(count)))


def epoch(folder: str, way: str) -> dict[str, float]:
    """Seconds of an epoch's batches, images a second, and the memory that it took, in GB."""
    data = load_dataset(folder)
    if way == "memory":
        data = type(data)(
            data.name, data.spec, np.asarray(data.x_train), data.y_train, data.x_test, data.y_test
        )
    mixture = Mixture(data, ("augmented",), 0.03, BATCH.value, seed=0)
    batches = iter(whole_batches(mixture.batches()))
    next(batches)
    begin = time.perf_counter()
    total = sum(float(next(batches)[0][0, 0, 0, 0]) for _ in range(mixture.steps_per_epoch - 1))
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "rate": len(data.x_train) / seconds,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "sum": total,  # The same for both, if the batches are.
    }


def main() -> None:
    if WAY.value:
        print(json.dumps(epoch(FOLDER.value, WAY.value)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = FOLDER.value or made
        if not FOLDER.value:
            make_folder(Path(made))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.png")) / 1e9
        options = [f"--folder={folder}", f"--batch_size={BATCH.value}"]
        found = {
            way: in_child("benchmarks.streaming", *options, f"--way={way}") for way in ("streamed", "memory")
        }
    streamed, memory = found["streamed"], found["memory"]
    rows = [
        Row("files, GB", size),
        Row("memory of the streamed epoch, GB", streamed["gigabytes"], most=3.0),
        Row("memory of the epoch from memory, GB", memory["gigabytes"]),
        Row("images a second, streamed", streamed["rate"]),
        Row("time of the streamed epoch, over that from memory", streamed["seconds"] / memory["seconds"]),
        Row("difference of the sums of first pixels", abs(streamed["sum"] - memory["sum"]), most=0.0),
    ]
    print(*(f"{row.name}: {row.value:.4g}" for row in rows), sep="\n", flush=True)
    if OUTPUT.value:
        write_tables(
            Path(OUTPUT.value), "Streaming", {"side": SIDE.value, "batch size": BATCH.value}, {"epoch": rows}
        )


if __name__ == "__main__":
    app.run(lambda _: main())
