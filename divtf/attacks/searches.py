"""Attacks that another library carries out, as methods of an `Attack`: those of `outside` and `auto_pgd`."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from divtf.attacks import auto_pgd, outside
from divtf.attacks.threat import ThreatModel
from divtf.errors import is_number, require


@dataclasses.dataclass(frozen=True)
class Search(abc.ABC):
    """What another library is asked for: the parameters of one of its attacks.

    It attacks what the target gives, with random draws for a batch of images: unlike those of a `Recipe`, its
    images depend on which others are in the batch.
    """

    # As those of a `Recipe`.
    in_graph = False
    own_code = ""
    queries = 0

    @property
    def params(self) -> dict[str, Any]:
        """All that tells the attack from others, as JSON values."""
        return dataclasses.asdict(self)

    @property
    def gradients(self) -> int:
        """Gradients that it takes for an image at most."""
        return 0

    @property
    def differentiates(self) -> bool:
        """Whether it takes gradients of the target, or its scores alone."""
        return self.gradients > 0

    def replace(self, given: Mapping[str, Any]) -> "Search":
        """The same with other values.

        Raises:
            InputError: if there is no such parameter.
        """
        known = [field.name for field in dataclasses.fields(self)]
        require(set(given) <= set(known), f"parameters among {known}", f"{sorted(set(given) - set(known))}")
        return dataclasses.replace(self, **given)

    @abc.abstractmethod
    def prepared(
        self, target: Any, members: int, image_shape: Sequence[int], threat: ThreatModel
    ) -> Callable[..., tf.Tensor]:
        """The attack on one target; as `Recipe.prepared`."""


@dataclasses.dataclass(frozen=True)
class Square(Search):
    """Random squares, by the target's scores alone; the arguments of `outside.square`."""

    queries: int = 5000
    initial: float = 0.8

    def __post_init__(self):
        outside.require_whole("queries", self.queries, 2)
        holds = is_number(self.initial) and 0 < self.initial < 1
        require(holds, "initial in (0, 1)", f"initial={self.initial!r}")

    def prepared(self, target, members, image_shape, threat):
        """As `Recipe.prepared`."""
        scores = _scores_of(target, image_shape)

        def attack(x, y, numbers, seed, pool, pool_labels):
            found = outside.square(scores, x.numpy(), y, threat, seed=_seed_of(seed, numbers), **self.params)
            return tf.constant(found.images)

        return attack


@dataclasses.dataclass(frozen=True)
class AutoPgd(Search):
    """Projected gradient ascent that sets its own steps; the arguments of `auto_pgd.auto_pgd`."""

    steps: int = 100
    restarts: int = 1
    loss: str = "cross_entropy"

    def __post_init__(self):
        outside.require_whole("steps", self.steps, 1)
        outside.require_whole("restarts", self.restarts, 1)
        auto_pgd.require_loss(self.loss)

    @property
    def gradients(self) -> int:
        """Gradients that it takes for an image at most: of the image, and of each start, step and checkpoint.

        At a checkpoint it may go back to the best image, whose gradient it asks for again.
        """
        return 1 + self.restarts * (1 + self.steps + len(_checkpoints(self.steps)))

    def prepared(self, target, members, image_shape, threat):
        """As `Recipe.prepared`."""
        ask = auto_pgd.traced(target, image_shape, self.loss)
        given = {"steps": self.steps, "restarts": self.restarts}

        def attack(x, y, numbers, seed, pool, pool_labels):
            images = auto_pgd.climb(ask, x.numpy(), y.numpy(), threat, seed=_seed_of(seed, numbers), **given)
            return tf.constant(images)

        return attack


def _scores_of(target: Any, image_shape: Sequence[int]) -> Callable[[Any], Any]:
    """A target's scores: as one graph, or as it is, where TensorFlow cannot trace it, as a served model."""
    try:
        return outside.scores_of(target, tuple(image_shape))
    except Exception:  # Whatever other code says of a tensor without values; the target gave logits before.
        return target


def _checkpoints(steps: int) -> set[int]:
    """After which of so many steps AutoPGD decides on its step size; Croce & Hein (2020), section 4.1."""
    share, before, found = 0.22, 0.0, set()
    while share <= 1:
        found.add(math.ceil(share * steps))
        share, before = share + max(share - before - 0.03, 0.06), share
    return found


def _seed_of(seed: Any, numbers: Any) -> int:
    """A seed for a batch, from the set's and the number of its first image."""
    return int(seed) + int(numbers[0])
