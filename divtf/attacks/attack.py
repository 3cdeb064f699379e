"""An attack with its threat model and parameters, and a guard on every result."""

import collections
import dataclasses
import inspect
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.attacks.methods import ATTACKS, RANGES
from divtf.attacks.threat import ThreatModel
from divtf.errors import is_number, require
from divtf.networks.logits import are_probabilities
from divtf.runtime.devices import map_batches

# A float32 image plus its perturbation may round to just outside the ball.
_ROUNDING = 1e-6


class Attack:
    """An attack with its threat model and parameters; made by `make_attack`."""

    def __init__(self, name: str, threat: ThreatModel, params: dict[str, Any]):
        self.name = name
        self.threat = threat
        self.params = params
        self._compiled: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def __call__(self, target, x, y, *, seed: int = 0) -> tf.Tensor:
        """Adversarial images for the target's mean member loss and the true labels.

        Args:
            target: an Ensemble (anything with `member_logits(x) -> [N, B, C]`), or a callable that
                gives logits [B, C].
            x: images, float32 [B, H, W, C] in [clip_min, clip_max].
            y: true class indices, integer [B].
            seed: of the random start, where the attack has one; each batch should have its own.

        Returns:
            Images of the shape of x, in the epsilon ball about x and in [clip_min, clip_max].

        Raises:
            InputError: if x leaves the image range, y is not one class index for each image, or the target
                gives probabilities, or values or gradients that are not finite.
            FloatingPointError: if the result breaks the threat model.
        """
        return next(self.on_batches(target, [(x, y, seed)]))

    def on_batches(self, target, batches, devices: Sequence[str] = ()) -> Iterator[tf.Tensor]:
        """What a call gives for each batch (x, y, seed), bit for bit; on devices, each one at a time."""
        attacked: collections.deque[tf.Tensor] = collections.deque()

        def checked():
            for x, y, seed in batches:
                x, y = tf.cast(x, tf.float32), tf.convert_to_tensor(y)
                self._check_input(x, y)
                if target not in self._compiled:
                    _check_target(target, x)
                    self._compiled[target] = self._compile(target, x.shape[1:])
                _check_labels(y, self._compiled[target][1])
                attacked.append(x)
                yield x, tf.cast(y, tf.int64), tf.stack([seed, 0])

        def attack(*batch):
            return self._compiled[target][0](*batch)

        for x_adv in map_batches(attack, checked(), devices):
            self._check_result(attacked.popleft(), x_adv)
            yield x_adv

    def describe(self) -> dict[str, Any]:
        """Everything that, with target, images and seed, determines the result; as JSON values."""
        defaults = inspect.signature(ATTACKS[self.name]).parameters.values()
        params = {p.name: p.default for p in defaults if p.kind is inspect.Parameter.KEYWORD_ONLY}
        return {"attack": self.name, "params": params | self.params, **dataclasses.asdict(self.threat)}

    def _compile(self, target, image_shape):
        # The cache must not keep the target alive: a cycle through its own value would.
        reference = weakref.ref(target)
        signature = [
            tf.TensorSpec([None, *image_shape], tf.float32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([2], tf.int32),
        ]
        classes = 0

        @tf.function(input_signature=signature)
        def attack(x, y, seed):
            nonlocal classes
            logits = relative_logits(reference(), y)
            _, members, classes = logits(x).shape
            labels = tf.repeat(y[:, None], members, axis=1)
            return ATTACKS[self.name](logits, x, labels, seed, self.threat, **self.params)

        # One trace serves all batches. Concrete, it is not mistaken for needless retracing.
        return attack.get_concrete_function(), classes

    def _check_input(self, x, y):
        require(y.shape.rank == 1 and y.dtype.is_integer, "integer labels [B]", f"{y.dtype.name} {y.shape}")
        require(len(x) == len(y) > 0, "as many images as labels, at least one", f"{len(x)} and {len(y)}")
        low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
        require(
            self.threat.clip_min <= low and high <= self.threat.clip_max,
            f"images in [{self.threat.clip_min}, {self.threat.clip_max}]",
            f"values from {low:g} to {high:g}",
        )

    def _check_result(self, x, x_adv):
        change = float(tf.reduce_max(tf.abs(x_adv - x)))
        low, high = float(tf.reduce_min(x_adv)), float(tf.reduce_max(x_adv))
        # TensorFlow's extremes of values with a NaN among them are NaN.
        require(
            math.isfinite(low) and math.isfinite(high),
            f"finite images of {self.name}",
            "NaN or infinity: the target's logits or gradients are not finite there",
        )
        within = change <= self.threat.epsilon + _ROUNDING
        if not (within and self.threat.clip_min <= low and high <= self.threat.clip_max):
            raise FloatingPointError(
                f"Expected {self.name} images within {self.threat}. Received: a change of {change:g} and "
                f"values from {low:g} to {high:g}"
            )


def make_attack(name: str, threat: ThreatModel, **params) -> Attack:
    """An attack of the paper.

    Args:
        name: one of `ATTACKS`: fgsm, rfgsm, ifgsm (steps), mifgsm (steps, decay), pgd_cw (steps, step,
            confidence).
        threat: budget and image range.
        **params: other values than the paper's for the parameters above.

    Raises:
        InputError: for an unknown name or parameter, or a value out of range.

    Source: sections 2.3 and 4.1.
    """
    require(isinstance(threat, ThreatModel), "a ThreatModel, as ThreatModel(epsilon=0.1)", f"{threat!r}")
    require(name in ATTACKS, f"attack as one of {sorted(ATTACKS)}", f"attack={name!r}")
    signature = inspect.signature(ATTACKS[name]).parameters.values()
    known = [p.name for p in signature if p.kind is inspect.Parameter.KEYWORD_ONLY]
    require(set(params) <= set(known), f"parameters of {name} among {known}", f"{sorted(params)}")
    for param, value in params.items():
        if param in RANGES:
            expected, fits = RANGES[param]
            require(is_number(value) and fits(value), expected, f"{param}={value!r}")
    return Attack(name, threat, params)


def relative_logits(target, y: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from images to the members' logits relative to the true class's, [B, N, C].

    With labels repeated to [B, N], CleverHans's summed cross-entropy then has the sign gradient of the
    members' mean loss. Softmax does not see the common shift, but its gradient, which at the true class
    is a difference of nearly equal numbers once p_y is close to 1, no longer rounds to noise.
    """

    def logits(x):
        if hasattr(target, "member_logits"):
            members = tf.transpose(target.member_logits(x), [1, 0, 2])
        else:
            members = tf.convert_to_tensor(target(x))[:, None]
        labels = tf.repeat(y[:, None], members.shape[1], axis=1)
        return members - tf.gather(members, labels, axis=2, batch_dims=2)[..., None]

    return logits


def _check_target(target, x: tf.Tensor) -> None:
    """Hold a target without `member_logits` to logits: an Ensemble has held its members to them before."""
    if not hasattr(target, "member_logits"):
        outputs = np.asarray(target(x[:8]))
        require(outputs.ndim == 2, "a target that gives logits [B, C]", f"outputs of shape {outputs.shape}")
        require(
            not are_probabilities(outputs),
            "a target that gives logits",
            "one that gives probabilities, whose gradients mislead attacks (remove its softmax)",
        )


def _check_labels(y: tf.Tensor, classes: int) -> None:
    low, high = int(tf.reduce_min(y)), int(tf.reduce_max(y))
    require(low >= 0 and high < classes, f"labels in [0, {classes})", f"labels from {low} to {high}")
