"""Measure steps against their floor: python -m benchmarks [--models=conv3,conv4,resnet20].

The floor is the time that the counted operations take at this machine's best rate, measured in the same
run on a large product and on the convolutions themselves. Things that are compared are timed in turn, so
that a drift of the machine hits all of them; figures are medians.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks.flops import step_flops
from divtf import CrossEntropy, Ensemble, GradientAlignment, ThreatModel, build_members, make_attack, run_dir
from divtf.config import SETUPS
from divtf.datasets import DATASETS

MODELS = flags.DEFINE_list("models", ["conv3"], "Models to measure.")
MEMBERS = flags.DEFINE_integer("num_members", 5, "Members of an ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed rounds, after one that is not counted.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Write the figures there as JSON, too.")


def medians(things: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each thing, timed in turn; the first call of each is apart, as "first NAME"."""
    first, seconds = {}, {name: [] for name in things}
    for round_number in range(repeats + 2):
        for name, thing in things.items():
            start = time.perf_counter()
            thing()
            elapsed = time.perf_counter() - start
            if round_number == 0:
                first[f"first {name}"] = elapsed
            elif round_number > 1:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()} | first


def best_rate() -> float:
    """This machine's best single-precision rate, FLOP/s: products and convolutions, the fastest of ten."""
    a = tf.random.normal([2048, 2048])
    x, kernel = tf.random.normal([128, 28, 28, 64]), tf.random.normal([3, 3, 64, 128])
    work = {
        2 * 2048**3: tf.function(lambda: tf.linalg.matmul(a, a)),
        2 * 128 * 28 * 28 * 128 * 9 * 64: tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME")),
    }
    rates = []
    for flops, call in work.items():
        for _ in range(10):
            start = time.perf_counter()
            call()
            rates.append(flops / (time.perf_counter() - start))
    return max(rates)


def training_step(members, objective, x, y) -> Callable[[], object]:
    ensemble = Ensemble(members, objective)
    ensemble.compile("adam")
    return lambda: ensemble.train_on_batch(x, y)


def measure(model: str, count: int, batch: int, repeats: int) -> dict[str, float]:
    """Seconds and ratios for one model."""
    spec = DATASETS[SETUPS[model].dataset]
    rng = np.random.default_rng(0)
    x = rng.random((batch, *spec.image_shape), dtype="float32")
    y = rng.integers(0, spec.num_classes, batch)

    def members(number: int = count, dtype: str = "float32"):
        return build_members(model, number, spec.image_shape, spec.num_classes, seed=0, dtype=dtype)

    attacked = Ensemble(members(), CrossEntropy())
    attack = make_attack("ifgsm", ThreatModel(spec.epsilons[0]))
    seconds = medians(
        {
            "gal": training_step(members(), GradientAlignment(0.5), x, y),
            "cross_entropy": training_step(members(), CrossEntropy(), x, y),
            "gal bf16": training_step(members(dtype="mixed_bfloat16"), GradientAlignment(0.5), x, y),
            "gal two members": training_step(members(2), GradientAlignment(0.5), x, y),
            "attack": lambda: attack(attacked, x, y),
        },
        repeats,
    )
    rate = best_rate()
    floors = {
        step: batch * sum(step_flops(member, step) for member in attacked.members) / rate
        for step in ("gal", "cross_entropy", "attack")
    }
    floors["attack"] *= attack.describe()["params"]["steps"]
    return {
        "GAL step, s": seconds["gal"],
        "cross-entropy step, s": seconds["cross_entropy"],
        "best rate, GFLOP/s": rate / 1e9,
        "GAL / floor": seconds["gal"] / floors["gal"],
        "cross-entropy / floor": seconds["cross_entropy"] / floors["cross_entropy"],
        "GAL / cross-entropy": seconds["gal"] / seconds["cross_entropy"],
        f"GAL, {count} members / 2": seconds["gal"] / seconds["gal two members"],
        "GAL, bf16 / fp32": seconds["gal bf16"] / seconds["gal"],
        "I-FGSM / floor": seconds["attack"] / floors["attack"],
        "first GAL step, s": seconds["first gal"],
    }


def main(arguments) -> None:
    del arguments
    results = {}
    for model in MODELS.value:
        print(f"{model}: {MEMBERS.value} members, batch {BATCH.value}, median of {REPEATS.value}", flush=True)
        results[model] = measure(model, MEMBERS.value, BATCH.value, REPEATS.value)
        for name, value in results[model].items():
            print(f"  {name:<28} {value:8.2f}", flush=True)
    if OUTPUT.value:
        budget = {"members": MEMBERS.value, "batch": BATCH.value, "repeats": REPEATS.value}
        record = {"results": results, "budget": budget, "environment": run_dir.environment()}
        Path(OUTPUT.value).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
