"""What surrounds the steps: input pipeline, shared adversarial sets, and the overhead of a whole run."""

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.steps import Steps
from benchmarks.timing import Row, medians
from divtf import CrossEntropy, GradientAlignment, ThreatModel, evaluate_transfer, make_attack
from divtf.config import MODES
from divtf.data import Mixture
from divtf.datasets import ImageData

_STEPS = 10


def pipeline(model: str, count: int, batch: int, repeats: int) -> list[Row]:
    """The batches of T_Ens+Div, the dearest, alone and behind cross-entropy steps, the shortest."""
    steps = Steps(model, batch)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20 * batch, *steps.spec.image_shape), dtype="uint8")
    y = rng.integers(0, steps.spec.num_classes, len(x))
    signs = rng.integers(-1, 2, x.shape, dtype="int8")
    sources = MODES["ens_div"].sources
    data = ImageData("random", steps.spec, x, y, x[:1], y[:1])
    mixture = Mixture(data, sources, 0.1, batch, 0, signs)
    ensemble = steps.ensemble(CrossEntropy(), count)
    endless, fed = iter(mixture.batches()), iter(mixture.batches())

    def alone():
        for _ in itertools.islice(endless, _STEPS):
            pass

    def on_one_batch():
        for _ in range(_STEPS):
            ensemble.train_on_batch(steps.x, steps.y)

    def on_the_pipeline():
        for images, labels in itertools.islice(fed, _STEPS):
            ensemble.train_on_batch(images, labels)

    seconds = medians({"alone": alone, "fixed": on_one_batch, "fed": on_the_pipeline}, repeats)
    return [
        Row("input pipeline alone / step", seconds["alone"] / seconds["fixed"]),
        Row("step fed by the pipeline / step on one batch", seconds["fed"] / seconds["fixed"]),
    ]


def sharing(model: str, count: int, batch: int, repeats: int) -> list[Row]:
    """Four targets on one adversarial set, over four evaluations that each make their own."""
    steps = Steps(model, batch)
    surrogate = steps.ensemble(CrossEntropy(), count)
    targets = {str(i): steps.ensemble(CrossEntropy(), count) for i in range(4)}
    attacks = [make_attack("ifgsm", ThreatModel(steps.spec.epsilons[0]))]
    images = steps.x, steps.y

    def together():
        evaluate_transfer(surrogate, targets, images, attacks)

    def apart():
        for name, target in targets.items():
            evaluate_transfer(surrogate, {name: target}, images, attacks)

    seconds = medians({"together": together, "apart": apart}, repeats)
    return [Row("4 targets on one adversarial set / 4 evaluations", seconds["together"] / seconds["apart"])]


def overhead(model: str, count: int, batch: int, minutes: float) -> list[Row]:
    """A run of divtf.main on embedded digits: everything but its steps, over its whole time, in percent.

    It has no attacks, and all else: start, checkpoints, test images, coherence, report.
    """
    steps = Steps(model, batch)
    step = steps.training(GradientAlignment(0.5), count)
    seconds = medians({"step": step}, 3)["step"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "run"
        images = 4000
        per_epoch = -(-images * len(MODES["div"].sources) // batch)
        epochs = max(1, round(minutes * 60 / (seconds * per_epoch)))
        flags = [f"--model={model}", "--mode=div", "--dataset=mnist5k", f"--max_train_examples={images}"]
        flags += [f"--num_members={count}", f"--batch_size={batch}", f"--epochs={epochs}", "--attacks="]
        start = time.perf_counter()
        command = [sys.executable, "-m", "divtf.main", *flags, f"--run_dir={target}"]
        subprocess.run(command, check=True, capture_output=True)
        whole = time.perf_counter() - start
        in_steps = median_step(_logged(target / "tensorboard")) * per_epoch * epochs
    return [
        Row("a whole run, minutes", whole / 60),
        Row("all but its steps, %", 100 * (1 - in_steps / whole), 5.0),
    ]


def _logged(log: Path) -> list:
    """The events by which a run logged every tenth step."""
    # 0 keeps all events; by itself the reader keeps ten of them, chosen at random.
    return EventAccumulator(str(log), size_guidance={"tensors": 0}).Reload().Tensors("step/loss")


def median_step(events: Sequence) -> float:
    """Median seconds a step, from the `step` and `wall_time` of events in order."""
    gaps = [(b.wall_time - a.wall_time) / (b.step - a.step) for a, b in itertools.pairwise(events)]
    # An epoch's end falls into one gap in six, which the median leaves out.
    return statistics.median(gaps)
