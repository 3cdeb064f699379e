"""Ensembles that several targets share, trained once and kept beside the runs: surrogate and static model."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from divtf.attacks.attack import make_attack
from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData
from divtf.data.images import LazyImages, as_float
from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import outputs
from divtf.networks.logits import MemberList
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.shared_paths import ADVERSARIAL, BATCH, directory_of
from divtf.pipeline.trained import train
from divtf.runtime import devices
from divtf.runtime.logs import get_logger, prefixed
from divtf.storage import run_directory
from divtf.storage.digests import array_digest

_LOG = get_logger(__name__)


def ensemble(base: RunConfig, data: ImageData) -> tuple[Ensemble, Path]:
    """An ensemble trained apart, and its directory; trained if need be.

    It serves as surrogate or as static model for every target of the same data set, model and budget.

    Args:
        base: its configuration, as `RunConfig.base` gives it.
        data: training and test images.
    """
    directory = directory_of(base)
    signs = static_signs(base, data) if base.defence.adversarial else None
    with prefixed(directory.name), contextlib.ExitStack() as stack:
        if devices.team(base.strategy).is_chief:
            opened = run_directory.open_run(directory, base.training(), resume=True, wait=True)
            stack.enter_context(opened)
        trained, _ = train(base, data, directory, signs=signs)
    return trained, directory


def adversarial_sets(
    model: Ensemble | MemberList, directory: Path, told: Mapping[str, Any] | None = None
) -> AdversarialSets:
    """The sets of adversarial images of such an ensemble, kept in its directory.

    Args:
        model: the ensemble.
        directory: its own.
        told: how it was trained, as `settings` tells it, for their manifests.
    """
    return AdversarialSets(model, directory / ADVERSARIAL, batch_size=BATCH, settings=told)


def static_signs(config: RunConfig, data: ImageData) -> LazyImages:
    """Signs of the steps that attack the static ensemble at every training image, int8; section 4.2.

    With --static_attack=fgsm they ascend the loss of the true class, so they depend on it, and what trains on
    them can learn to read it off them: label leaking. With step_ll they descend the loss of the class that
    the ensemble finds least likely (Kurakin et al. 2017, "Adversarial Machine Learning at Scale").

    Raises:
        InputError: on a worker that finds other classes least likely than the chief does.
    """
    static, directory = ensemble(config.base(config.static_seed), data)
    # A step of 1 without an image range is the sign itself.
    fgsm = make_attack("fgsm", ThreatModel(1.0, clip_min=-1.0, clip_max=2.0))
    x, y = as_float(data.x_train), data.y_train
    _LOG.info(f"attacks the static model on {len(x)} training images")
    team = devices.team(config.strategy)
    told = settings(config.base(config.static_seed), data)
    if config.least_likely:
        scores = outputs(static, x, BATCH)
        # The labels that it is attacked with are not the images' own.
        told["clean accuracy"] = float((scores.argmax(axis=-1) == y).mean())
        y = scores.argmin(axis=-1)
        # Each worker finds them by itself, and one that rounds otherwise would train on other images.
        team.require_same(array_digest(y), "the chief's least likely classes", "other ones here")
    with team.chief_first():
        x_adv, _ = adversarial_sets(static, directory, told).images(fgsm, x, y)
    direction = -1 if config.least_likely else 1

    def signs(numbers: np.ndarray) -> np.ndarray:
        return np.rint(direction * (x_adv[numbers] - as_float(data.x_train[numbers]))).astype("int8")

    return LazyImages(signs, len(x), data.spec.image_shape, dtype="int8")
