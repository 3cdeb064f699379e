"""Ensembles that several targets share, trained once and kept beside the runs: surrogate and static model."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from divtf.attacks.attack import make_attack
from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData, as_float
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import outputs
from divtf.pipeline.config import RunConfig
from divtf.pipeline.shared_paths import ADVERSARIAL, BATCH, home
from divtf.pipeline.trained import train
from divtf.runtime import devices, workers
from divtf.storage import run_directory
from divtf.storage.digests import array_digest


def ensemble(
    config: RunConfig, seed: int, data: ImageData, say: Callable[[str], object]
) -> tuple[Ensemble, Path]:
    """The ensemble trained as T_Base from a seed of its own, and its directory; trained if need be.

    It serves as surrogate or as static model for every target of the same data set, model and budget.
    """
    base = config.base(seed)
    directory = home(config, seed)

    def say_whose(line: str) -> None:
        say(f"[{directory.name}] {line}")

    chief = workers.is_chief(devices.strategy(base.strategy))
    held = run_directory.open_run(directory, base.training(), resume=True, waiting=say_whose)
    with held if chief else contextlib.nullcontext():
        trained, _ = train(base, data, directory, say=say_whose)
    return trained, directory


def adversarial_sets(model: Ensemble, directory: Path, say: Callable[[str], object]) -> AdversarialSets:
    """The sets of adversarial images of such an ensemble, kept in its directory."""
    return AdversarialSets(model, directory / ADVERSARIAL, batch_size=BATCH, say=say)


def static_signs(config: RunConfig, data: ImageData, say: Callable[[str], object]) -> np.ndarray:
    """Signs of the steps that attack the static ensemble at every training image, int8; section 4.2.

    With --static_attack=fgsm they ascend the loss of the true class, so they depend on it, and what trains on
    them can learn to read it off them: label leaking. With step_ll they descend the loss of the class that
    the ensemble finds least likely (Kurakin et al. 2017, "Adversarial Machine Learning at Scale").

    Raises:
        InputError: on a worker that finds other classes least likely than the chief does.
    """
    static, directory = ensemble(config, config.static_seed, data, say)
    # A step of 1 without an image range is the sign itself.
    fgsm = make_attack("fgsm", ThreatModel(1.0, clip_min=-1.0, clip_max=2.0))
    x, y = as_float(data.x_train), data.y_train
    say(f"attacks the static model on {len(x)} training images")
    on = devices.strategy(config.strategy)
    if config.least_likely:
        y = outputs(static, x, BATCH).argmin(axis=-1)
        # Each worker finds them by itself, and one that rounds otherwise would train on other images.
        own = int(array_digest(y)[:12], 16)
        require(workers.from_chief(on, own) == own, "the chief's least likely classes", "other ones here")
    with workers.chief_first(on):
        x_adv, _ = adversarial_sets(static, directory, say).images(fgsm, x, y)
    return np.rint(x - x_adv if config.least_likely else x_adv - x).astype("int8")
