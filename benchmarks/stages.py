"""What surrounds the steps: input pipeline, shared adversarial sets, and the overhead of a whole run."""

import itertools
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
from divtf.data.datasets import ImageData
from divtf.data.mixture import Mixture
from divtf.pipeline.modes import MODES

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
    mixture = Mixture(data, sources, 0.1, batch, 0, [signs])
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


def static_images(model: str, count: int, batch: int, repeats: int) -> list[Row]:
    """What images of a static model cost, once for a training, over a step of cross-entropy on as many."""
    steps = Steps(model, batch)
    static, threat = steps.ensemble(CrossEntropy(), count), ThreatModel(steps.spec.epsilons[0])
    attacks = {name: make_attack(name, threat) for name in ("fgsm", "mifgsm", "pgd_cw")}

    def images_of(attack):
        return lambda: attack(static, steps.x, steps.y)

    things = {name: images_of(attack) for name, attack in attacks.items()}
    seconds = medians(things | {"step": lambda: static.train_on_batch(steps.x, steps.y)}, repeats)
    return [Row(f"images by static {name} / step", seconds[name] / seconds["step"]) for name in attacks]


def overhead(model: str, count: int, batch: int, minutes: float) -> list[Row]:
    """A run of divtf.main on embedded digits: everything but its steps, over its whole time, in percent.

    It has no attacks, and all else: start, checkpoints, test images, coherence, report.
    """
    steps = Steps(model, batch)
    step = steps.training(GradientAlignment(0.5), count)
    seconds = medians({"step": step}, 3)["step"]
    # Batches without a remainder, so that all steps are alike.
    images = 4000 // batch * batch
    per_epoch = images * len(MODES["div"].sources) // batch
    epochs = max(1, round(minutes * 60 / (seconds * per_epoch)))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "run"
        flags = [f"--model={model}", "--mode=div", "--dataset=mnist5k", f"--max_train_examples={images}"]
        flags += [f"--num_members={count}", f"--batch_size={batch}", f"--epochs={epochs}", "--attacks="]
        start = time.time()
        command = [sys.executable, "-m", "divtf.main", *flags, f"--run_dir={target}"]
        subprocess.run(command, check=True, capture_output=True)
        end = time.time()
        events = _logged(target / "tensorboard")
    before, in_steps, between, after = split_run(start, end, events, per_epoch, per_epoch * epochs)
    bare = medians({"import": lambda: subprocess.run([sys.executable, "-c", "import keras"], check=True)}, 3)
    ends = [Row("between two epochs, s", between / (epochs - 1))] if epochs > 1 else []
    return [
        Row("a whole run, minutes", (end - start) / 60),
        Row("epochs of it", epochs),
        Row("a process that imports Keras and ends, s", bare["import"]),
        Row("before the first step, tracing included, s", before),
        *ends,
        Row("after the last step, s", after),
        Row("all but its steps, %", 100 * (1 - in_steps / (end - start)), 5.0),
    ]


def _logged(log: Path) -> list:
    """The events by which a run logged every tenth step."""
    # 0 keeps all events; by itself the reader keeps ten of them, chosen at random.
    return EventAccumulator(str(log), size_guidance={"tensors": 0}).Reload().Tensors("loss/step/loss")


def split_run(
    start: float, end: float, events: Sequence, per_epoch: int, total: int
) -> tuple[float, float, float, float]:
    """Seconds of a run before its steps, in them, between epochs, and after its last step.

    Args:
        start: when it began.
        end: when it was over.
        events: `step` and `wall_time` of steps logged, in order, the first one in the first epoch.
        per_epoch: steps an epoch.
        total: steps of the run.
    """
    # A gap that an epoch's end falls into holds more than steps.
    within = [
        (a, b)
        for a, b in itertools.pairwise(events)
        if (a.step - 1) // per_epoch == (b.step - 1) // per_epoch
    ]
    step = sum(b.wall_time - a.wall_time for a, b in within) / sum(b.step - a.step for a, b in within)
    first, last = events[0], events[-1]
    before = first.wall_time - start - first.step * step
    after = end - last.wall_time - (total - last.step) * step
    return before, total * step, end - start - before - total * step - after, after
