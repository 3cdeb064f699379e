"""An attack with its threat model and parameters, and a guard on every result."""

import collections
import dataclasses
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.attacks.methods import ATTACKS, Method, random_start
from divtf.attacks.threat import ThreatModel
from divtf.errors import is_number, require
from divtf.networks.logits import as_target, class_indices, member_logits, require_logits
from divtf.runtime.devices import map_batches

# A float32 image plus its perturbation may round to just outside the ball: by so much of its largest value.
_ROUNDING = 1e-6
# Counts the changes of what attacks compute: images that were kept before are made again.
_REVISION = 2
# As many images of the first batch tell what a target gives.
_FIRST = 8


@dataclasses.dataclass(frozen=True)
class _Traced:
    """An attack on one target as a graph, from images, labels and seed [2]; and the target's classes."""

    attack: Callable[..., tf.Tensor]
    classes: int


class Attack:
    """An attack with its threat model and parameters; made by `make_attack`."""

    def __init__(self, name: str, method: Method, threat: ThreatModel, params: Mapping[str, Any]):
        self.name = name
        self.threat = threat
        self.params = params
        self._method = method
        self._traced: weakref.WeakKeyDictionary[Any, _Traced] = weakref.WeakKeyDictionary()

    def __call__(self, target, x, y, *, seed: int = 0) -> tf.Tensor:
        """Adversarial images for the target's mean member loss and the true labels.

        Args:
            target: an Ensemble (anything with `member_logits(x) -> [N, B, C]`), a list of members, or a
                callable that gives logits [B, C].
            x: images [B, H, W, C], signals [B, T, C] or vectors [B, D], float32 in [clip_min, clip_max].
            y: true classes: indices, integer [B] or [B, 1], or one-hot [B, C].
            seed: of the random start, where the attack has one; each batch should have its own.

        Returns:
            Images of the shape of x, in the epsilon ball about x and in [clip_min, clip_max].

        Raises:
            InputError: if x leaves the image range, y is not one class for each image, or the target is none
                or gives probabilities, or values or gradients that are not finite.
            FloatingPointError: if the result breaks the threat model.
        """
        return next(self.on_batches(target, [(x, y, seed)]))

    def on_batches(self, target, batches, devices: Sequence[str] = ()) -> Iterator[tf.Tensor]:
        """What a call gives for each batch (x, y, seed), bit for bit; on devices, each one at a time."""
        target = as_target(target)
        under_way: collections.deque[tf.Tensor] = collections.deque()

        def checked():
            for x, y, seed in batches:
                x, y = tf.cast(x, tf.float32), class_indices(y)
                self._check_input(x, y)
                if target not in self._traced:
                    self._traced[target] = self._trace(target, x)
                _check_labels(y, self._traced[target].classes)
                under_way.append(x)
                yield x, tf.constant(y, tf.int64), tf.stack([seed, 0])

        def attack(*batch):
            return self._traced[target].attack(*batch)

        for x_adv in map_batches(attack, checked(), devices):
            self._check_result(under_way.popleft(), x_adv)
            yield x_adv

    def describe(self) -> dict[str, Any]:
        """Everything that, with target, images and seed, determines the result; as JSON values."""
        return {
            "attack": self.name,
            "revision": _REVISION,
            "params": dict(self.params),
            **dataclasses.asdict(self.threat),
        }

    def _trace(self, target, x: tf.Tensor) -> _Traced:
        members, classes = require_logits(target, x[:_FIRST])
        # The cache must not keep the target alive: a cycle through its own value would.
        reference = weakref.ref(target)
        signature = [
            tf.TensorSpec([None, *x.shape[1:]], tf.float32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([2], tf.int32),
        ]

        # Converting control flow on tensors, which CleverHans and Keras lack, takes longer than tracing.
        @tf.function(input_signature=signature, autograph=not isinstance(target, keras.Model))
        def attack(x, y, seed):
            params = dict(self.params)
            if self._method.random_start:
                params["start"] = random_start(x, self.threat, seed)
            labels = tf.repeat(y[:, None], members, axis=1)
            return self._method.function(_logits_of(reference()), x, labels, self.threat, **params)

        # One trace serves all batches. Concrete, it is not mistaken for needless retracing.
        return _Traced(attack.get_concrete_function(), classes)

    def _check_input(self, x, y):
        require(len(x) == len(y) > 0, "as many images as labels, at least one", f"{len(x)} and {len(y)}")
        low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
        require(
            self._in_range(low, high),
            f"images in [{self.threat.clip_min}, {self.threat.clip_max}]",
            f"values from {low:g} to {high:g}",
        )

    def _in_range(self, low: float, high: float) -> bool:
        """Whether float32 images from low to high are in the image range, its ends rounded like them."""
        return bool(np.float32(self.threat.clip_min) <= low and high <= np.float32(self.threat.clip_max))

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
        largest = max(1.0, abs(threat.clip_min), abs(threat.clip_max))
        within = change <= threat.epsilon + _ROUNDING * largest
        if not (within and self._in_range(low, high)):
            raise FloatingPointError(
                f"Expected {self.name} images within {threat}. Received: a change of {change:g} and "
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
    method = ATTACKS[name]
    known = list(method.parameters)
    require(set(params) <= set(known), f"parameters of {name} among {known}", f"{sorted(params)}")
    for param, value in params.items():
        parameter = method.parameters[param]
        require(is_number(value) and parameter.fits(value), parameter.expected, f"{param}={value!r}")
    # JSON and the attacks' loops know no NumPy.
    plain = {param: np.asarray(value).item() for param, value in params.items()}
    defaults = {param: parameter.default for param, parameter in method.parameters.items()}
    return Attack(name, method, threat, defaults | plain)


def _logits_of(target) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from images to the members' logits, [B, N, C].

    With labels repeated to [B, N], the summed loss then has the sign gradient of the members' mean loss.
    """
    return lambda x: tf.transpose(member_logits(target, x), [1, 0, 2])


def _check_labels(y: np.ndarray, classes: int) -> None:
    low, high = int(y.min()), int(y.max())
    require(low >= 0 and high < classes, f"labels in [0, {classes})", f"labels from {low} to {high}")
