"""An attack with its threat model and parameters, and a guard on every result."""

import collections
import dataclasses
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.attacks.losses import Towards
from divtf.attacks.methods import ATTACKS
from divtf.attacks.recipe import Recipe
from divtf.attacks.searches import Search
from divtf.attacks.threat import ThreatModel
from divtf.errors import InputError, require, require_installed
from divtf.networks.logits import (
    as_target,
    class_indices,
    require_labels,
    require_logits,
    require_one_label_each,
)
from divtf.runtime.devices import map_batches

# Counts the changes of what attacks compute: what was kept before is made again.
REVISION = 4
# As many images of the first batch tell what a target gives.
_FIRST = 8
# As many images are there to be mixed into others.
_POOL = 64


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """An attack on one target as a function, and the target's classes."""

    attack: Callable[..., tf.Tensor]
    classes: int


class Attack:
    """An attack with its threat model and parameters; made by `make_attack` or `compose_attack`.

    Attributes:
        name: in results.
        threat: the threat model.
        method: what it is composed of, or what it asks another library for.
    """

    def __init__(self, name: str, threat: ThreatModel, method: Recipe | Search):
        self.name = name
        self.threat = threat
        self.method = method
        # For each target by the shape of its images: a fully convolutional one takes many.
        self._prepared: weakref.WeakKeyDictionary[Any, dict[tuple[int, ...], _Prepared]] = (
            weakref.WeakKeyDictionary()
        )

    def __call__(self, target, x, y, *, seed: int = 0) -> tf.Tensor:
        """Adversarial images for the attack's loss on the target's members, and the true labels.

        Args:
            target: an Ensemble (anything with `member_logits(x) -> [N, B, C]`), a list of members, or a
                callable that gives logits [B, C].
            x: images [B, H, W, C], signals [B, T, C] or vectors [B, D], float32 in [clip_min, clip_max].
            y: true classes: indices, integer [B] or [B, 1], or one-hot [B, C].
            seed: of all that is drawn at random, for each image by its place in x.

        Returns:
            Images of the shape of x, in the epsilon ball about x and in [clip_min, clip_max].

        Raises:
            InputError: if x leaves the image range, y is not one class for each image, or the target is none
                or gives probabilities, or values or gradients that are not finite.
            FloatingPointError: if the result breaks the threat model.
        """
        x, y = tf.cast(x, tf.float32), class_indices(y)
        self._check_input(x, y)
        batch = (x, y, np.arange(len(x)))
        mixed_in = pool_numbers(len(x))
        return next(self.on_batches(target, [batch], pool=(tf.gather(x, mixed_in), y[mixed_in]), seed=seed))

    def on_batches(
        self,
        target,
        batches: Iterable[tuple[Any, Any, Any]],
        *,
        pool: tuple[Any, Any],
        seed: int = 0,
        devices: Sequence[str] = (),
    ) -> Iterator[tf.Tensor]:
        """Adversarial images for each batch of a set, the same however the set is cut into batches.

        Args:
            target: as in a call.
            batches: (x, y, numbers): images, labels, and the images' numbers in the set, by which each has
                its own random draws.
            pool: images of the set, and their labels, to be mixed into others.
            seed: of all that is drawn at random.
            devices: on which batches are attacked, each one at a time.
        """
        whole = isinstance(seed, int | np.integer) and -(2**31) <= seed < 2**31
        require(whole, "a seed of 32 bits, in [-2^31, 2^31)", f"seed={seed!r}")
        target = as_target(target)
        under_way: collections.deque[tf.Tensor] = collections.deque()
        shared = (tf.constant(seed), tf.cast(pool[0], tf.float32), tf.constant(class_indices(pool[1])))

        def checked():
            for x, y, numbers in batches:
                x, y = tf.cast(x, tf.float32), class_indices(y)
                self._check_input(x, y)
                require_labels(y, self._prepared_for(target, x).classes)
                under_way.append(x)
                yield x, tf.constant(y), tf.cast(numbers, tf.int32), *shared

        def attack(x, *others):
            return self._prepared_for(target, x).attack(x, *others)

        for x_adv in map_batches(attack, checked(), devices if self.method.in_graph else ()):
            self._check_result(under_way.popleft(), x_adv)
            yield x_adv

    @property
    def gradients(self) -> int:
        """What it costs: gradients of all members for an image."""
        return self.method.gradients

    @property
    def queries(self) -> int:
        """What it costs otherwise: scores that it may ask for, of an image."""
        return self.method.queries

    def describe(self) -> dict[str, Any]:
        """Everything that, with target, images and seed, determines the result; as JSON values."""
        return {
            "attack": self.name,
            "revision": REVISION,
            "params": self.method.params,
            **({"code": code} if (code := self.method.own_code) else {}),
            **dataclasses.asdict(self.threat),
        }

    def _prepared_for(self, target, x: tf.Tensor) -> _Prepared:
        by_shape, shape = self._prepared.setdefault(target, {}), tuple(x.shape[1:])
        if shape not in by_shape:
            members, classes = require_logits(target, x[:_FIRST], differentiable=self.method.differentiates)
            by_shape[shape] = _Prepared(self.method.prepared(target, members, shape, self.threat), classes)
        return by_shape[shape]

    def _check_input(self, x, y):
        require_one_label_each(x, y)
        self.threat.require_in_range(float(tf.reduce_min(x)), float(tf.reduce_max(x)))

    def _check_result(self, x, x_adv):
        threat = self.threat
        change = float(tf.reduce_max(tf.abs(x_adv - x)))
        low, high = float(tf.reduce_min(x_adv)), float(tf.reduce_max(x_adv))
        # TensorFlow's extremes of values with a NaN among them are NaN.
        require(
            math.isfinite(low) and math.isfinite(high),
            f"finite images of {self.name}",
            "NaN or infinity: the target's logits or gradients are not finite there",
        )
        if not (threat.allows(change) and threat.in_range(low, high)):
            raise FloatingPointError(
                f"Expected {self.name} images within {threat}. Received: a change of {change:g} and "
                f"values from {low:g} to {high:g}"
            )


def towards(attack: Attack, name: str) -> Attack:
    """The same attack under another name, led towards the classes that it is given in place of the true ones.

    Raises:
        InputError: for an attack of another library, which leads away only.
    """
    recipe = attack.method
    if not isinstance(recipe, Recipe):
        raise InputError(
            f"Expected an attack composed of pieces, to lead it to a class. Received: {attack.name}"
        )
    return compose_attack(name, attack.threat, dataclasses.replace(recipe, loss=Towards(recipe.loss)))


def pool_numbers(count: int) -> np.ndarray:
    """The numbers of the images of a set that are mixed into others: evenly apart, whatever its order is."""
    return np.unique(np.linspace(0, count - 1, min(count, _POOL)).round().astype(int))


def make_attack(name: str, threat: ThreatModel, **params) -> Attack:
    """An attack by its name.

    Args:
        name: one of `ATTACKS`: the paper's fgsm, rfgsm, ifgsm, mifgsm, pgd_cw; pgd; of today dim, tim, sim,
            mi_di_ti_si, admix, vmi, pgn, ssa, cwa, cse; with the extra `attacks`, square and auto_pgd.
        threat: budget and image range.
        **params: other values for `steps`, `step`, `loss`, `random_start` and `restarts` of the attack's
            `Recipe`, and for the fields of its pieces, update and loss; for those of a `Search`.

    Raises:
        InputError: for an unknown name or parameter, or a value out of range.

    Source: sections 2.3 and 4.1; for the others the papers that their pieces name.
    """
    require(name in ATTACKS, f"attack as one of {sorted(ATTACKS)}", f"attack={name!r}")
    if isinstance(ATTACKS[name], Search):
        require_installed(name, "attacks", ("art",))
    # JSON and TensorFlow's loops know no NumPy.
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in params.items()}
    return compose_attack(name, threat, ATTACKS[name].replace(plain))


def compose_attack(name: str, threat: ThreatModel, recipe: Recipe | Search) -> Attack:
    """An attack of pieces of your own choice, or of your own making.

    Args:
        name: in results.
        threat: budget and image range.
        recipe: what it is composed of.

    Raises:
        InputError: if they are none of these.
    """
    require(isinstance(threat, ThreatModel), "a ThreatModel, as ThreatModel(epsilon=0.1)", f"{threat!r}")
    require(isinstance(recipe, Recipe | Search), "a Recipe, as Recipe(steps=20)", f"{recipe!r:.80}")
    return Attack(name, threat, recipe)
