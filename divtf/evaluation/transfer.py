"""Black-box evaluation by transfer: surrogate x attack x epsilon -> images -> every target (section 4.1)."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.attacks.attack import Attack
from divtf.attacks.searches import Search
from divtf.attacks.threat import ThreatModel
from divtf.data.images import as_images, blocks, value_range
from divtf.errors import require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import predictions
from divtf.evaluation.stored import as_stored, require_storable
from divtf.evaluation.surrogates import images_and_labels_digest, warn_of_weak
from divtf.networks.logits import (
    MemberList,
    as_target,
    class_indices,
    require_labels,
    require_logits,
    require_one_label_each,
)
from divtf.runtime.logs import get_logger
from divtf.storage.records import CLEAN, WORST_CASE, TransferResult, packed

_LOG = get_logger(__name__)


def evaluate_transfer(
    surrogate,
    targets,
    dataset,
    attacks: Iterable[Attack] | Attack,
    *,
    clean=None,
    directory: str | os.PathLike | None = None,
    surrogate_name: str = "surrogate",
    surrogate_settings: Mapping[str, Any] | None = None,
    stored_as: str = "float32",
    seed: int = 0,
    batch_size: int = 250,
) -> list[TransferResult]:
    """Accuracy of every target on adversarial images of the surrogate: rows of Table 2.

    Args:
        surrogate: an Ensemble, a list of members, or a callable that gives logits [B, C]; or, with sets of
            images that were made before, what `load_surrogate` gives.
        targets: such models, one or several: a mapping from names, or a sequence (then each goes by its
            `name`); or what `load_run` gives.
        dataset: images [n, ...] in the attacks' range and labels [n], [n, 1] or one-hot [n, C] to attack: a
            pair of arrays, of which the first may be `LazyImages`, or a tf.data.Dataset of batches, as pairs
            or as dictionaries with `image` and `label`.
        attacks: made by `make_attack`, one or several.
        clean: images and labels for clean accuracy; None takes `dataset`.
        directory: keeps the adversarial sets for further calls; None keeps nothing. Those of
            `load_surrogate` have theirs.
        surrogate_name: for the results.
        surrogate_settings: what tells the surrogate whole, as `AdversarialSets` takes it; made before, sets
            have theirs.
        stored_as: what targets see of adversarial images: "float32" as they are; "uint8" or "jpeg" as an
            attacker must store them (`divtf.evaluation.stored`). Clean images stay.
        seed: of all that attacks draw at random, for each image by its number.
        batch_size: images at a time.

    Returns:
        For each target the clean result, one for each attack, and for each epsilon the worst case: an
        image counts as correct there if it is so when clean and under all attacks of that epsilon. Each
        names attack and surrogate whole, and keeps the outcome of every image.

    Raises:
        InputError: if images, labels, models and attacks do not fit together, a model's outputs are NaN, or
            images of this shape cannot be stored so.
    """
    x, y = _arrays(dataset)
    x_clean, y_clean = (x, y) if clean is None else _arrays(clean)
    require(isinstance(batch_size, int) and batch_size >= 1, "batch_size >= 1", batch_size=batch_size)
    models, attacks = _named(targets), _listed(attacks)
    require_storable(stored_as, x.shape)
    sets = surrogate
    if isinstance(surrogate, AdversarialSets):
        require(surrogate_settings is None, "no surrogate_settings with sets, which have theirs", "some")
    elif attacks:
        sets = AdversarialSets(
            surrogate, directory, seed=seed, batch_size=batch_size, settings=surrogate_settings
        )
    attacked = [sets.surrogate] if attacks else []
    for images, labels in ((x, y), (x_clean, y_clean)):
        _check(attacks, [*models.values(), *attacked], images, labels)
    # Any other target may give whatever its largest entry tells the class of.
    first = tf.constant(np.asarray(x[:1]))
    for model in attacked:
        require_logits(model, first)
    for model in models.values():
        if isinstance(model, MemberList):
            require_logits(model, first, differentiable=False)
    attacked_with = _attacked_with(sets, surrogate_name, stored_as, x, y) if attacks else {}
    clean_images = images_and_labels_digest(x_clean, y_clean)
    clean_hits = _hits(models, x_clean, y_clean, batch_size)
    outcomes: list[_Outcome] = []
    for number, attack in enumerate(attacks, 1):
        epsilon = attack.threat.epsilon
        _LOG.info(f"attack {number}/{len(attacks)}: {attack.name}, epsilon {epsilon:g}, {len(x)} images")
        x_adv, file_digest = sets.images(attack, x, y)
        unmoved = _unmoved(x, y, x_adv, attack, sets.surrogate)
        seen = as_stored(x_adv, stored_as, attack.threat.clip_min, attack.threat.clip_max)
        settings = json.loads(json.dumps(attack.describe()["params"]))
        hits = _hits(models, seen, y, batch_size)
        outcomes.append(_Outcome(attack.name, epsilon, hits, y, unmoved, file_digest, settings))
    if attacks:
        unharmed = clean_hits if clean is None else _hits(models, x, y, batch_size)
        outcomes += _worst_cases(outcomes, unharmed, y)
        warn_of_weak(attacked_with["surrogate_settings"]["clean accuracy"], unharmed)
    results: list[TransferResult] = []
    for name in models:
        clean_counts = _counts(clean_hits[name], y_clean)
        results.append(TransferResult(name, "", CLEAN, epsilon=0.0, images=clean_images, **clean_counts))
        results += [outcome.result(name, attacked_with) for outcome in outcomes]
    return results


def _attacked_with(
    sets: AdversarialSets, surrogate_name: str, stored_as: str, x: Any, y: np.ndarray
) -> dict[str, Any]:
    """What all results under attack have of the surrogate and the images."""
    told = sets.told(x, y)
    if "no gradient at" in told:
        _LOG.warning(
            f"the surrogate has no gradient at {told['no gradient at']}: accuracy under it says nothing there"
        )
    return {
        "surrogate": surrogate_name,
        "surrogate_settings": told,
        "saturated": sets.saturated(x, y),
        "stored_as": stored_as,
        "images": images_and_labels_digest(x, y),
    }


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What the targets did on one set of adversarial images, or on all of one epsilon.

    Attributes:
        attack: its name in results.
        epsilon: its budget.
        hits: for each target, by name, whether it classifies each image as labelled: bool [n].
        y: the labels [n].
        unmoved: images that the attack left as they were; None for all attacks of one epsilon.
        adversarial_set: digest of the images' file; "" without one.
        settings: the attack's parameters.
    """

    attack: str
    epsilon: float
    hits: Mapping[str, np.ndarray]
    y: np.ndarray
    unmoved: int | None = None
    adversarial_set: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def result(self, target: str, attacked_with: Mapping[str, Any]) -> TransferResult:
        """One target's row."""
        return TransferResult(
            target=target,
            attack=self.attack,
            epsilon=self.epsilon,
            **_counts(self.hits[target], self.y),
            adversarial_set=self.adversarial_set,
            unmoved=self.unmoved,
            settings=self.settings,
            **attacked_with,
        )


def _worst_cases(
    outcomes: Sequence[_Outcome], unharmed: Mapping[str, np.ndarray], y: np.ndarray
) -> list[_Outcome]:
    """For each epsilon the images that are classified as labelled when clean and under all of its attacks.

    An attacker may leave an image as it is: one that is wrong then is not made right by attacks.
    """
    worst = []
    for epsilon in dict.fromkeys(outcome.epsilon for outcome in outcomes):
        several = [unharmed, *(outcome.hits for outcome in outcomes if outcome.epsilon == epsilon)]
        hits = {name: np.all([each[name] for each in several], axis=0) for name in unharmed}
        worst.append(_Outcome(WORST_CASE, epsilon, hits, y))
    return worst


def _unmoved(x: Any, y: np.ndarray, x_adv: np.ndarray, attack: Attack, surrogate: Any) -> int | None:
    """How many images are as they were, for want of a gradient, which is logged; None if it takes none."""
    if not attack.method.differentiates:
        return None
    pairs = zip(blocks(x), blocks(x_adv), strict=True)
    still = [(clean == moved).all(axis=tuple(range(1, clean.ndim))) for clean, moved in pairs]
    unmoved = np.concatenate(still)
    if isinstance(attack.method, Search):
        # It leaves images alone that the surrogate gets wrong.
        unmoved &= predictions(surrogate, x) == y
    count = int(unmoved.sum())
    if count:
        which = f"moved none of {len(x)}" if count == len(x) else f"did not move {count} of {len(x)}"
        _LOG.warning(
            f"{attack.name} {which} images: the surrogate has no gradient there, and accuracy under it says "
            "nothing"
        )
    return count


def _counts(hits: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """How many of the images are correct, of those of each class too, and which."""
    return {
        "correct": int(hits.sum()),
        "total": len(hits),
        "correct_by_class": tuple(np.bincount(y[hits], minlength=int(y.max()) + 1).tolist()),
        "total_by_class": tuple(np.bincount(y).tolist()),
        "hits": packed(hits.tolist()),
    }


def _hits(models: Mapping[str, Any], x: Any, y: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """For each model, by name, whether it classifies each image as labelled: bool [n]."""
    return {name: predictions(model, x, batch_size) == y for name, model in models.items()}


def _listed(attacks: Iterable[Attack] | Attack) -> list[Attack]:
    attacks = [attacks] if isinstance(attacks, Attack) else list(attacks)
    foreign = [attack for attack in attacks if not isinstance(attack, Attack)]
    require(not foreign, "attacks made by make_attack", f"{foreign!r:.80}")
    return attacks


def _arrays(dataset) -> tuple[Any, np.ndarray]:
    if isinstance(dataset, tf.data.Dataset):
        endless = dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        require(not endless, "a dataset that ends", "an endless one, as .repeat() makes it")
        batches = [tuple(np.asarray(part) for part in _pair(batch)) for batch in dataset]
        unbatched = any(np.ndim(y) == 0 for _, y in batches)
        require(not unbatched, "a dataset of batches, as .batch(250) makes them", "one of single images")
        require(len(batches) > 0, "a dataset with at least one batch", "none")
        dataset = tuple(np.concatenate(part) for part in zip(*batches, strict=True))
    x, y = as_images(dataset[0]), class_indices(dataset[1])
    require_one_label_each(x, y)
    return x, y


def _pair(batch) -> tuple[Any, Any]:
    """Images and labels of a dataset's element; those of tensorflow-datasets are dictionaries.

    Weights of the examples do not count, as they do not in Keras's accuracy.
    """
    if isinstance(batch, Mapping):
        require({"image", "label"} <= set(batch), "elements with image and label", f"{sorted(batch)}")
        return batch["image"], batch["label"]
    fits = isinstance(batch, tuple) and len(batch) in (2, 3)
    received = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple) else "")
    require(fits, "elements (images, labels), or with weights", received)
    return batch[:2]


def _check(attacks: Sequence[Attack], models: Sequence[Any], x: Any, y: np.ndarray) -> None:
    """Hold images to the attacks' ranges, or [0, 1], and the models' shape, and labels to their classes."""
    low, high = value_range(x)
    for threat in [attack.threat for attack in attacks] or [ThreatModel(1.0)]:
        threat.require_in_range(low, high)
    # Callables and subclassed models do not tell their shapes.
    telling = [plain for plain in map(_plain, models) if isinstance(getattr(plain, "input_shape", 0), tuple)]
    for shape in (plain.input_shape[1:] for plain in telling):
        fits = len(shape) == x.ndim - 1 and all(
            a in (None, b) for a, b in zip(shape, x.shape[1:], strict=True)
        )
        require(fits, f"images of the models' shape {shape}", f"images of shape {x.shape[1:]}")
    classes = min((plain.output_shape[-1] for plain in telling), default=None)
    require_labels(y, classes)


def _plain(model):
    """The model, or an ensemble's first member, which has the shapes of all."""
    return model.members[0] if hasattr(model, "members") else model


def _named(targets) -> Mapping[str, Any]:
    if isinstance(targets, Mapping):
        return {name: as_target(target) for name, target in targets.items()}
    several: Sequence = targets if isinstance(targets, list | tuple) else [targets]
    names = [getattr(target, "name", f"target_{i}") for i, target in enumerate(several)]
    require(len(set(names)) == len(names), "targets with distinct names, or a mapping from names", f"{names}")
    return dict(zip(names, map(as_target, several), strict=True))
