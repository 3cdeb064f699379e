"""Training and attack steps of a model, over their floor and over one another."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.flops import step_flops
from benchmarks.kernels import kernel_seconds
from benchmarks.timing import BestRate, Row, in_child, medians
from divtf import CrossEntropy, Ensemble, GradientAlignment, ThreatModel, build_members, make_attack
from divtf.data.datasets import DATASETS
from divtf.data.paper import SETUPS
from divtf.runtime.processor import has_avx512

# The targets, for 5 members and batches of 128 on 2 cores.
GAL_FLOOR = {"conv3": 1.35, "conv4": 1.2, "resnet20": 1.6}
GAL_OVER_CROSS_ENTROPY = {"conv3": 2.2, "conv4": 2.2}
ATTACK_FLOOR = 1.35
FIRST_STEP = {"resnet20": 20.0}
_COUNTS = (2, 3, 5, 8, 10)


class Steps:
    """Steps of a model on one batch of random images."""

    def __init__(self, model: str, batch: int):
        self.spec = DATASETS[SETUPS[model].dataset]
        self._model = model
        rng = np.random.default_rng(0)
        self.x = rng.random((batch, *self.spec.image_shape), dtype="float32")
        self.y = rng.integers(0, self.spec.num_classes, batch)

    def ensemble(
        self, objective: Any, count: int, dtype: str = "float32", memory: str | None = None
    ) -> Ensemble:
        shape, classes = self.spec.image_shape, self.spec.num_classes
        members = build_members(self._model, count, shape, classes, seed=0, dtype=dtype)
        ensemble = Ensemble(members, objective, memory=memory)
        ensemble.compile("adam")
        return ensemble

    def training(
        self, objective: Any, count: int, dtype: str = "float32", memory: str | None = None
    ) -> Callable[[], object]:
        ensemble = self.ensemble(objective, count, dtype, memory)
        return lambda: ensemble.train_on_batch(self.x, self.y)


def measure(model: str, count: int, batch: int, repeats: int) -> list[Row]:
    """Time, floor, precision, growth, start and memory of one model."""
    steps, rate = Steps(model, batch), BestRate()
    attacked = steps.ensemble(CrossEntropy(), count)
    attack = make_attack("ifgsm", ThreatModel(steps.spec.epsilons[0]))
    timed = {
        "gal": steps.training(GradientAlignment(0.5), count),
        "cross_entropy": steps.training(CrossEntropy(), count),
        "attack": lambda: attack(attacked, steps.x, steps.y),
        "rate": rate,
    }
    fast_bfloat16 = has_avx512() is not False  # Without it bfloat16 is emulated, and divtf refuses it.
    if fast_bfloat16:
        timed["gal bf16"] = steps.training(GradientAlignment(0.5), count, "mixed_bfloat16")
    seconds = medians(timed, repeats)
    flops = {
        step: batch * sum(step_flops(member, step) for member in attacked.members)
        for step in ("gal", "cross_entropy", "attack")
    }
    flops["attack"] *= attack.describe()["params"]["steps"]
    floor = {step: count / rate.flops_per_second for step, count in flops.items()}
    kernels = {
        step: sum(kernel_seconds(member, step, batch, repeats) for member in attacked.members)
        for step in ("gal", "attack")
    }
    kernels["attack"] *= attack.describe()["params"]["steps"]
    start = in_child("benchmarks.start", model, count, batch)
    without = in_child("benchmarks.start", model, count, batch, TF_ENABLE_ONEDNN_OPTS="0")
    return [
        Row("best rate, GFLOP/s", rate.flops_per_second / 1e9),
        Row("GAL step, s", seconds["gal"]),
        Row("cross-entropy step, s", seconds["cross_entropy"]),
        Row("GAL step / floor", seconds["gal"] / floor["gal"], GAL_FLOOR.get(model)),
        Row("GAL step / its kernels alone", seconds["gal"] / kernels["gal"]),
        Row("cross-entropy step / floor", seconds["cross_entropy"] / floor["cross_entropy"]),
        Row(
            "GAL / cross-entropy",
            seconds["gal"] / seconds["cross_entropy"],
            GAL_OVER_CROSS_ENTROPY.get(model),
        ),
        *(
            [Row("GAL step, bfloat16 / float32", seconds["gal bf16"] / seconds["gal"])]
            if fast_bfloat16
            else []
        ),
        Row("GAL step, oneDNN off / on, each in a process of its own", without["later"] / start["later"]),
        Row("I-FGSM / floor", seconds["attack"] / floor["attack"], ATTACK_FLOOR),
        Row("I-FGSM / its kernels alone", seconds["attack"] / kernels["attack"]),
        Row("first GAL step in a new process, s", start["first"], FIRST_STEP.get(model)),
        Row("peak memory of GAL steps, GB", start["peak"]),
    ]


def growth(model: str, batch: int, repeats: int) -> list[Row]:
    """GAL's time for N members over N/2 times that for two: 1 where it grows as N."""
    steps = Steps(model, batch)
    seconds = medians({n: steps.training(GradientAlignment(0.5), n) for n in _COUNTS}, repeats)
    least = _COUNTS[0]
    return [
        Row(f"GAL, {n} members / {n / least:g} x {least} members", seconds[n] / (n / least * seconds[least]))
        for n in _COUNTS[1:]
    ]
