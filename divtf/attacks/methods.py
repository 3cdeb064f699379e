"""The attacks of section 2.3, from the building blocks of CleverHans.

CleverHans's own loops draw their random start from TensorFlow's global generator, which no restart can
repeat, and lose the gradients of saturated members. The loops here differ in that alone.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.utils import clip_eta, compute_gradient, optimize_linear

from divtf.attacks.threat import ThreatModel
from divtf.networks.logits import aligned_loss, true_class_margin


def _cross_entropy(labels, logits):
    """What has the signs of the mean cross-entropy's gradient; labels [B, N], logits [B, N, classes]."""
    return aligned_loss(true_class_margin(logits, labels), axis=1)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A number that an attack may be given.

    Attributes:
        default: the paper's value.
        expected: what a value must be, in words.
        fits: whether a finite number is that.
    """

    default: float
    expected: str
    fits: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Method:
    """An attack, as `ATTACKS` has it.

    Attributes:
        function: from logits (a function from images [B, H, W, C] to the members' logits [B, N, classes]),
            images x [B, H, W, C], labels y [B, N], the threat model and the parameters, by name, to
            adversarial images. With a random start it also takes `start`, images [B, H, W, C].
        parameters: by name.
        random_start: whether it climbs from a random place in the ball about x, and not from x.
    """

    function: Callable[..., tf.Tensor]
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    random_start: bool = False


def random_start(x: tf.Tensor, threat: ThreatModel, seed: tf.Tensor) -> tf.Tensor:
    """Images x + U(-epsilon, epsilon), clipped to the range; a function of x and the seed, integer [2]."""
    noise = tf.random.stateless_uniform(tf.shape(x), seed, -threat.epsilon, threat.epsilon, x.dtype)
    # The noise lies in the ball, but unclipped TensorFlow would add it in an order that rounds it out again.
    noise = clip_eta(noise, np.inf, threat.epsilon)
    return tf.clip_by_value(x + noise, threat.clip_min, threat.clip_max)


def fgsm(logits, x, y, threat: ThreatModel):
    """One step of epsilon along the gradient's sign; Equation 2."""
    return _sign_step(logits, x, y, threat, threat.epsilon)


def rfgsm(logits, x, y, threat: ThreatModel, *, start):
    """FGSM after a random step from U(-epsilon, epsilon), projected back into the ball (section 4.1)."""
    return _climb(logits, x, y, threat, start, steps=1, step_size=threat.epsilon)


def ifgsm(logits, x, y, threat: ThreatModel, *, steps):
    """`steps` steps of epsilon / steps along the gradient's sign; Equations 3 and 4."""
    return _climb(logits, x, y, threat, x, steps=steps, step_size=threat.epsilon / steps)


def mifgsm(logits, x, y, threat: ThreatModel, *, steps, decay):
    """I-FGSM along an accumulated gradient; Equation 5 with mu = decay.

    The gradient is divided by the mean of |g| where Equation 5 has the sum: the factor goes with the sign.
    """
    x_adv, velocity = x, tf.zeros_like(x)
    for _ in range(steps):
        gradient = compute_gradient(logits, _cross_entropy, x_adv, y, False)
        velocity = decay * velocity + _of_mean_one(gradient)
        step = optimize_linear(velocity, threat.epsilon / steps, np.inf)
        x_adv = _project(x_adv + step, x, threat)
    return x_adv


def pgd_cw(logits, x, y, threat: ThreatModel, *, start, steps, step, confidence):
    """Projected gradient ascent on the hinge of Carlini & Wagner, from a random start (section 4.1).

    Steps are of step x epsilon; each member's hinge saturates once another class leads by `confidence`.
    """

    def hinge(labels, logits):
        is_true = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
        # The true class must not take part in the maximum, nor a masked zero in its place.
        others = tf.reduce_max(tf.where(is_true, logits.dtype.min, logits), axis=-1)
        true = tf.reduce_sum(tf.where(is_true, logits, tf.zeros_like(logits)), axis=-1)
        return tf.minimum(others - true, confidence)

    return _climb(logits, x, y, threat, start, steps=steps, step_size=step * threat.epsilon, loss=hinge)


def _is_step_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 1)


# Defaults are those of section 4.1.
ATTACKS: dict[str, Method] = {
    "fgsm": Method(fgsm),
    "rfgsm": Method(rfgsm, random_start=True),
    "ifgsm": Method(ifgsm, {"steps": Parameter(10, "whole steps >= 1", _is_step_count)}),
    "mifgsm": Method(
        mifgsm,
        {
            "steps": Parameter(10, "whole steps >= 1", _is_step_count),
            "decay": Parameter(1.0, "finite decay >= 0", lambda decay: decay >= 0),
        },
    ),
    "pgd_cw": Method(
        pgd_cw,
        {
            "steps": Parameter(30, "whole steps >= 1", _is_step_count),
            "step": Parameter(0.1, "0 < step <= 1, in units of epsilon", lambda step: 0 < step <= 1),
            "confidence": Parameter(50.0, "finite confidence >= 0", lambda confidence: confidence >= 0),
        },
        random_start=True,
    ),
}


def _climb(logits, x, y, threat, start, *, steps, step_size, loss=_cross_entropy):
    """`steps` steps of `step_size` along the sign of the gradient, from `start`, each projected back."""
    x_adv = start
    for _ in range(steps):
        x_adv = _project(_sign_step(logits, x_adv, y, threat, step_size, loss), x, threat)
    return x_adv


def _sign_step(logits, x_adv, y, threat, step_size, loss=_cross_entropy):
    """One step along the sign of the loss's gradient, clipped to the image range."""
    return fast_gradient_method(
        logits,
        x_adv,
        step_size,
        np.inf,
        loss_fn=loss,
        y=y,
        clip_min=threat.clip_min,
        clip_max=threat.clip_max,
    )


def _project(x_adv, x, threat):
    """The nearest images in the ball about x and in the image range."""
    return tf.clip_by_value(x + clip_eta(x_adv - x, np.inf, threat.epsilon), threat.clip_min, threat.clip_max)


def _of_mean_one(gradient):
    """Each image's gradient over the mean of its absolute entries; one that is zero stays zero.

    It is divided by its largest entry before: a saturated member's gradient is far below the 1e-12 that
    CleverHans divides by at least, and its mean may underflow. Equation 5 asks for the direction alone.
    """
    axes = range(1, gradient.shape.rank)
    scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axes, keepdims=True))
    return tf.math.divide_no_nan(scaled, tf.reduce_mean(tf.abs(scaled), axes, keepdims=True))
