"""Label leaking: how a target fares on images like those that it was trained on, made of test images."""

from typing import Any

import numpy as np

from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData
from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.predictions import predictions
from divtf.pipeline import shared_paths, trained
from divtf.pipeline.config import RunConfig
from divtf.pipeline.static_images import static_attack, static_sets
from divtf.pipeline.surrogates import static_models
from divtf.runtime.logs import get_logger

_LOG = get_logger(__name__)
# Test images that are tried, whatever a run attacks: else the same weights would be marked in one table and
# not in another, and a few hundred images seldom tell. Each takes no longer than a training image in D_adv.
_IMAGES = 2000


def on_static_models(config: RunConfig, data: ImageData, target: Ensemble) -> tuple[dict[str, Any], ...]:
    """What a target classifies as labelled, attacked through the static models of its own training.

    One entry a static model, attack and epsilon, over the first 2,000 test images: "model", "attack",
    "epsilon", "total", "right" and "right clean", and how many images it has right "only attacked" and "only
    clean". A target that has images right because they were attacked has learnt to read the label off the
    change: an attack by true labels leaks them (Kurakin et al. 2017, "Adversarial Machine Learning at Scale",
    section 4.4). None for modes without static models.
    """
    if not config.defence.adversarial:
        return ()
    x, y = data.test_set(_IMAGES)
    clean = predictions(target, x, shared_paths.BATCH) == y
    entries = []
    for name, base in zip(config.static_models, static_models(config), strict=True):
        # Read, not trained: this is the chief's affair, without the other workers.
        static = trained.restore(base, data.spec, shared_paths.directory_of(base))
        sets, labels = static_sets(static, base, config, data, x, y)
        for attack, given in labels.items():
            for epsilon in config.epsilons:
                _LOG.info(f"looks for label leaking: {attack} on {name}, epsilon {epsilon:g}")
                x_adv, _ = sets.images(static_attack(attack, ThreatModel(epsilon)), x, given, true=y)
                right = predictions(target, x_adv, shared_paths.BATCH) == y
                entries.append({"model": name, "attack": attack, "epsilon": epsilon, **_counts(right, clean)})
    return tuple(entries)


def _counts(right: np.ndarray, clean: np.ndarray) -> dict[str, int]:
    return {
        "total": len(right),
        "right": int(right.sum()),
        "right clean": int(clean.sum()),
        "only attacked": int((right & ~clean).sum()),
        "only clean": int((clean & ~right).sum()),
    }
