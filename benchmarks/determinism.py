"""Compare reruns, with and without the flag: python -m benchmarks.determinism [--model=conv3] [--steps=20].

Trains the same few steps of the mode div from the same seeds, each time in a process of its own: twice as any
run, twice as with --deterministic. Prints how far each pair's weights and losses end apart, and what the flag
costs: the ratio of the median step times, of processes that take turns.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

import divtf
from benchmarks.timing import Row, write_tables
from divtf.data.paper import SETUPS
from divtf.pipeline.config import RunConfig

MODEL = flags.DEFINE_enum("model", "conv3", sorted(SETUPS), "Model to train.")
DATASET = flags.DEFINE_string("dataset", None, "Data set; default: the paper's for the model.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Data directory of tensorflow-datasets.")
MEMBERS = flags.DEFINE_integer("num_members", 5, "Members of the ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 20, "Steps to train; the first 2 are not timed.", lower_bound=3)
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")
_RESULT = flags.DEFINE_string("result", None, "For the processes that this command starts.")
_FLAG = flags.DEFINE_bool("deterministic", False, "For the processes that this command starts.")


def train() -> None:
    """Train the steps, as a run does; leave weights, losses and step times in a file."""
    import keras
    import tensorflow as tf

    from divtf.data.mixture import Mixture
    from divtf.pipeline import experiment
    from divtf.pipeline.parts import DataPart, EnsemblePart
    from divtf.pipeline.trained import build_ensemble

    config = RunConfig(
        model=MODEL.value,
        dataset=DATASET.value,
        data_dir=DATA_DIR.value,
        num_members=MEMBERS.value,
        batch_size=BATCH.value,
    )
    keras.utils.set_random_seed(config.seed)
    if _FLAG.value:
        tf.config.experimental.enable_op_determinism()
    data = experiment.load_data(config.part(DataPart))
    sources = config.defence.sources
    batches = Mixture(data, sources, config.largest_epsilon, config.batch_size, config.seed).batches()
    ensemble = build_ensemble(config.part(EnsemblePart), data.spec)
    ensemble.compile(divtf.Adam(config.learning_rate))
    losses, seconds = [], []
    for x, y in batches.take(STEPS.value):
        start = time.perf_counter()
        losses.append(float(ensemble.train_on_batch(x, y, return_dict=True)["loss"]))
        seconds.append(time.perf_counter() - start)
    weights = np.concatenate([np.ravel(weight) for weight in ensemble.get_weights()])
    np.savez(_RESULT.value, weights=weights, losses=losses, seconds=seconds[2:])


def start(deterministic: bool, folder: Path, number: int) -> dict[str, np.ndarray]:
    """What a process of its own ends with."""
    path = folder / f"{number}.npz"
    budget = (MODEL, DATASET, DATA_DIR, MEMBERS, BATCH, STEPS)
    given = [f"--{flag.name}={flag.value}" for flag in budget if flag.value is not None]
    own = [f"--result={path}", f"--deterministic={deterministic}"]
    subprocess.run([sys.executable, "-m", "benchmarks.determinism", *given, *own], check=True)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def compare(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, float]:
    """How far two runs are apart at their end."""
    left, right = (run["weights"].astype("float64") for run in (first, second))
    different = np.flatnonzero(first["losses"] != second["losses"])
    return {
        "weights that differ, share": float((left != right).mean()),
        "weights, largest difference": float(np.abs(left - right).max()),
        "weights, relative difference (L2)": float(np.linalg.norm(left - right) / np.linalg.norm(left)),
        "first step whose loss differs (0: none)": float(different[0] + 1 if len(different) else 0),
        "loss, largest difference": float(np.abs(first["losses"] - second["losses"]).max()),
    }


def main() -> None:
    if _RESULT.value:
        train()
        return
    runs: dict[bool, list] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for number, deterministic in enumerate([False, True, True, False]):
            runs[deterministic].append(start(deterministic, Path(folder), number))
    figures = {"as any run": compare(*runs[False]), "--deterministic": compare(*runs[True])}
    print(f"{MODEL.value}: {MEMBERS.value} members, batch {BATCH.value}, {STEPS.value} steps, two runs each")
    print(f"  {'':<42} {'as any run':>16} {'--deterministic':>16}")
    for name in figures["as any run"]:
        print(f"  {name:<42} {figures['as any run'][name]:16.6g} {figures['--deterministic'][name]:16.6g}")
    medians = {
        flag: statistics.median(np.concatenate([run["seconds"] for run in pair]).tolist())
        for flag, pair in runs.items()
    }
    ratio = medians[True] / medians[False]
    print(f"  {'median step, s':<42} {medians[False]:16.4f} {medians[True]:16.4f}")
    print(f"  {'cost of the flag, ratio of the steps':<42} {'':>16} {ratio:16.3f}")
    if OUTPUT.value:
        budget = {"members": MEMBERS.value, "batch size": BATCH.value, "steps": STEPS.value}
        tables = {
            f"{MODEL.value}, {name}": [Row(*one) for one in rows.items()] for name, rows in figures.items()
        }
        tables["cost"] = [Row("step with --deterministic / step without", ratio)]
        write_tables(Path(OUTPUT.value), "Two reruns with the same seeds", budget, tables)


if __name__ == "__main__":
    app.run(lambda _: main())
