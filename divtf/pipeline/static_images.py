"""Images that attack static models, for ensemble adversarial training (section 4.2): how each is changed."""

from typing import Any

import numpy as np

from divtf.attacks.attack import Attack, make_attack, towards
from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData
from divtf.data.images import as_float
from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import outputs
from divtf.pipeline import shared_ensembles, shared_paths
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.static_fields import LEAST_LIKELY
from divtf.pipeline.surrogates import static_models
from divtf.runtime import devices
from divtf.runtime.logs import get_logger
from divtf.storage.digests import array_digest

_LOG = get_logger(__name__)


def static_attack(name: str, threat: ThreatModel) -> Attack:
    """An attack on static models by its name.

    NAME_ll goes to the class that the static model finds least likely, and so depends on no label: what
    trains on its images cannot learn to read the true class off them, which is label leaking. step_ll is
    fgsm_ll (Kurakin et al. 2017, "Adversarial Machine Learning at Scale").
    """
    attack = make_attack("fgsm" if name == "step_ll" else name.removesuffix("_ll"), threat)
    return towards(attack, name) if name in LEAST_LIKELY else attack


def static_changes(config: RunConfig, data: ImageData) -> list[Any]:
    """How each static attack on each static model changes the training images, int8 [n, H, W, C] each.

    127 stands for the whole budget. The static models and the clean images stay as they are in training, so
    that each is computed once, and a new epoch draws new budgets only. None for modes without them.

    Raises:
        InputError: on a worker that finds other classes least likely than the chief does.
    """
    if not config.defence.adversarial:
        return []
    return [changes for base in static_models(config) for changes in _changes_by(base, config, data)]


def static_sets(
    static: Ensemble, base: RunConfig, config: RunConfig, data: ImageData, x: Any, y: np.ndarray
) -> tuple[AdversarialSets, dict[str, np.ndarray]]:
    """The adversarial sets of a static model, and for each static attack the labels that it is given.

    Args:
        static: the model.
        base: its configuration.
        config: of the target that trains on its images.
        data: training and test images.
        x: those of them that are attacked, [n, ...].
        y: their true classes [n].
    """
    told, least_likely = settings(base, data), y
    if set(config.static_attacks) & set(LEAST_LIKELY):
        scores = outputs(static, x, shared_paths.BATCH)
        # The labels that it is attacked with are not the images' own.
        told["clean accuracy"] = float((scores.argmax(axis=-1) == y).mean())
        least_likely = scores.argmin(axis=-1)
    labels = {name: least_likely if name in LEAST_LIKELY else y for name in config.static_attacks}
    return shared_ensembles.adversarial_sets(static, shared_paths.directory_of(base), told), labels


def _changes_by(base: RunConfig, config: RunConfig, data: ImageData) -> list[Any]:
    """The changes by each attack on one static model."""
    static, _ = shared_ensembles.ensemble(base, data)
    x, team = as_float(data.x_train), devices.team(config.strategy)
    sets, labels = static_sets(static, base, config, data, x, data.y_train)
    changes = []
    for name, given in labels.items():
        if name in LEAST_LIKELY:
            # Each worker finds them by itself, and one that rounds otherwise would train on other images.
            team.require_same(array_digest(given), "the chief's least likely classes", "other ones here")
        _LOG.info(f"attacks the static model on {len(x)} training images: {name}")
        threat = ThreatModel(config.largest_epsilon)
        if name in ("fgsm", "step_ll"):  # One step of the whole budget without an image range is the sign.
            threat = ThreatModel(1.0, clip_min=-1.0, clip_max=2.0)
        with team.chief_first():
            changes.append(sets.changes(static_attack(name, threat), x, given, true=data.y_train))
    return changes
