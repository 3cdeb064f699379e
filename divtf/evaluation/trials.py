"""Attacks tried one after the other, each on the images that still stand."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from divtf.attacks.attack import Attack
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import outputs, predictions
from divtf.evaluation.query_counts import queries_taken
from divtf.evaluation.stored import as_stored
from divtf.runtime.logs import get_logger
from divtf.storage.digests import digest
from divtf.storage.evaluations import QUERY, TRANSFER, WHITE_BOX, TrialResult, packed_at

_LOG = get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An attack, and how it is tried.

    Attributes:
        attack: the attack.
        versions: how often, each time with other random draws.
        rank: 1 gives it the likeliest of the wrong classes that the attacked model sees in each image, 2 the
            next one; 0 gives it the true one.
    """

    attack: Attack
    versions: int = 1
    rank: int = 0


def draws(attack: Attack, version: int) -> int:
    """The seed of what an attack draws: its own, lest all attacks of a protocol begin at the same places."""
    return int(digest({"attack": attack.describe(), "version": version})[:7], 16)


def result_of(attack: Attack, tried: str, hits: str, **told: Any) -> TrialResult:
    """What an attack did; `tried`, `hits` and the rest as `TrialResult` has them."""
    return TrialResult(
        attack=attack.name,
        epsilon=attack.threat.epsilon,
        settings=attack.describe()["params"],
        gradients=attack.gradients,
        queries=attack.queries,
        tried=tried,
        hits=hits,
        **told,
    )


def wrong_classes(model: Any, x: Any, y: np.ndarray, rank: int) -> np.ndarray:
    """For each image the wrong class that a model finds likeliest, or of that rank, integer [n].

    Args:
        model: an Ensemble, or what gives logits.
        x: images [n, ...].
        y: their true classes [n].
        rank: 1 for the likeliest; less than the number of classes.
    """
    scores = outputs(model, x)
    scores[np.arange(len(y)), y] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, rank - 1]


class Standing:
    """The images that targets still classify as labelled, under all attacks so far.

    Args:
        targets: name -> Ensemble, or what gives logits.
        x: images [n, ...], an array or `LazyImages`.
        y: their true classes [n].
        stored_as: what targets see of adversarial images, as `evaluation.stored` has it.
        skip: whether an attack leaves out images that have fooled every target before: on a surrogate those
            that did so from this surrogate, so that what stands under each of them is known.

    Attributes:
        standing: name of each target -> whether each image stands, bool [n].
        results: name of each target -> what each attack did to it.
    """

    def __init__(
        self,
        targets: Mapping[str, Any],
        x: Any,
        y: np.ndarray,
        *,
        stored_as: str = "float32",
        skip: bool = True,
    ):
        self._targets, self._x, self._y = targets, x, y
        self._stored_as, self._skip = stored_as, skip
        self._clean = {name: predictions(target, x) == y for name, target in targets.items()}
        self._begin()

    def untried(self) -> "Standing":
        """The same before any attack; the targets are not asked again."""
        other = copy.copy(self)
        other._begin()
        return other

    def _begin(self) -> None:
        self.standing = {name: hits.copy() for name, hits in self._clean.items()}
        self.results: dict[str, list[TrialResult]] = {name: [] for name in self._targets}

    def by_transfer(self, surrogates: Mapping[str, AdversarialSets], attempts: Iterable[Attempt]) -> None:
        """Try attacks on surrogates: each attack on every one of them, then the next attack."""
        under = {name: self.untried().standing for name in surrogates}
        for attempt in attempts:
            for name, sets in surrogates.items():
                numbers = self._to_attack(under[name].values())
                self._say(attempt.attack, name, numbers)
                for version in range(attempt.versions):
                    told = {"kind": TRANSFER, "surrogate": name, "version": version}
                    found = self._try(attempt, sets, numbers, self._targets, **told)
                    for target, hits in found.items():
                        under[name][target][numbers] &= hits

    def by_gradients(self, sets: Mapping[str, AdversarialSets], attempts: Iterable[Attempt]) -> None:
        """Try attacks on each target itself, whose sets are given by its name."""
        for name in self._targets:
            for attempt in attempts:
                for version in range(attempt.versions):
                    numbers = self._to_attack([self.standing[name]])
                    self._say(attempt.attack, name, numbers)
                    self._try(attempt, sets[name], numbers, [name], kind=WHITE_BOX, version=version)

    def by_queries(
        self,
        sets: Mapping[str, AdversarialSets],
        attack: Attack,
        images: int,
        left: Mapping[str, np.ndarray],
    ) -> None:
        """Try the Square attack on each target.

        Args:
            sets: of each target, by its name.
            attack: `make_attack("square", ...)`.
            images: as many are attacked, the first ones, whatever else fooled the target there: what Square
                does by itself is known of them.
            left: name of each target -> which images withstand all else, bool [n]: those beyond the first
                ones are attacked too, as no other can change what is left in all.
        """
        for name in self._targets:
            # Always those that stand alone: what Square draws for an image depends on its company.
            first = np.flatnonzero(self.standing[name][:images])
            others = images + np.flatnonzero((self.standing[name] & left[name])[images:])
            numbers = np.concatenate([first, others])
            self._say(attack, name, numbers)
            taken = np.concatenate(
                [
                    queries_taken(sets[name], attack, self._x, self._y, part, self._stored_as)
                    for part in (first, others)
                ]
            )
            told = {"kind": QUERY, "queries_taken": tuple(taken.tolist())}
            self._keep(name, attack, numbers, taken > attack.queries, **told)

    def _try(
        self,
        attempt: Attempt,
        sets: AdversarialSets,
        numbers: np.ndarray,
        scored: Iterable[str],
        **told: Any,
    ) -> dict[str, np.ndarray]:
        """Score some targets on an attack's images of these numbers; whether each has each image right."""
        attack, sha256, hits = attempt.attack, "", {name: np.zeros(0, bool) for name in scored}
        if len(numbers):
            seed = draws(attack, told["version"])
            given = wrong_classes(sets.surrogate, self._x, self._y, attempt.rank) if attempt.rank else self._y
            images, sha256 = sets.images(attack, self._x, given, numbers=numbers, seed=seed, true=self._y)
            seen = as_stored(images, self._stored_as, attack.threat.clip_min, attack.threat.clip_max)
            hits = {name: predictions(self._targets[name], seen) == self._y[numbers] for name in hits}
        for name in hits:
            self._keep(name, attack, numbers, hits[name], adversarial_set=sha256, **told)
        return hits

    def _keep(self, name: str, attack: Attack, numbers: np.ndarray, hits: np.ndarray, **told: Any) -> None:
        """Take down what an attack did to a target."""
        self.standing[name][numbers] &= hits
        tried, right = packed_at(numbers.tolist(), hits.tolist(), len(self._y))
        self.results[name].append(result_of(attack, tried, right, **told))

    def _say(self, attack: Attack, on: str, numbers: np.ndarray) -> None:
        _LOG.info(f"{attack.name} on {on}, epsilon {attack.threat.epsilon:g}: {len(numbers)} images")

    def _to_attack(self, standing: Iterable[np.ndarray]) -> np.ndarray:
        """The numbers of the images that stand for one of some targets, or of all."""
        if not self._skip:
            return np.arange(len(self._y))
        return np.flatnonzero(np.any(list(standing), axis=0))
