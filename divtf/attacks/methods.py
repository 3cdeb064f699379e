"""The attacks of section 2.3, by CleverHans."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks import momentum_iterative_method as cleverhans_mim
from cleverhans.tf2.attacks import projected_gradient_descent as cleverhans_pgd
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.utils import compute_gradient

from divtf.attacks.threat import ThreatModel


def fgsm(logits, x, y, seed, threat: ThreatModel):
    """One step of epsilon along the gradient's sign; Equation 2."""
    del seed
    return fast_gradient_method(logits, x, threat.epsilon, np.inf, y=y, **_clip(threat))


def _pgd(logits, x, y, threat: ThreatModel, *, steps, step_size, seed=None, loss=None):
    """CleverHans's projected gradient ascent; a seed asks for a start at random in the ball."""

    def start(shape, norm, radius, dtype):
        del norm
        return tf.random.stateless_uniform(shape, seed, -radius, radius, dtype)

    # CleverHans draws the start from TensorFlow's global generator, which no restart can repeat.
    with mock.patch.object(cleverhans_pgd, "random_lp_vector", start):
        return cleverhans_pgd.projected_gradient_descent(
            logits,
            x,
            eps=threat.epsilon,
            eps_iter=step_size,
            nb_iter=steps,
            norm=np.inf,
            loss_fn=loss,
            y=y,
            rand_init=seed is not None,
            **_clip(threat),
        )


def rfgsm(logits, x, y, seed, threat: ThreatModel):
    """FGSM after a random step from U(-epsilon, epsilon), projected back into the ball (section 4.1)."""
    return _pgd(logits, x, y, threat, steps=1, step_size=threat.epsilon, seed=seed)


def ifgsm(logits, x, y, seed, threat: ThreatModel, *, steps: int = 10):
    """`steps` steps of epsilon / steps along the gradient's sign; Equations 3 and 4."""
    del seed
    return _pgd(logits, x, y, threat, steps=steps, step_size=threat.epsilon / steps)


def mifgsm(logits, x, y, seed, threat: ThreatModel, *, steps: int = 10, decay: float = 1.0):
    """I-FGSM along an accumulated gradient; Equation 5 with mu = decay.

    CleverHans divides by the mean of |g| where Equation 5 has the sum: the factor goes with the sign.
    """
    del seed

    def scaled_gradient(*args):
        gradient = compute_gradient(*args)
        largest = tf.reduce_max(tf.abs(gradient), axis=range(1, gradient.shape.rank), keepdims=True)
        return tf.math.divide_no_nan(gradient, largest)

    # CleverHans divides by 1e-12 at least, and saturated members' gradients are less than that;
    # Equation 5 does not depend on a gradient's scale.
    with mock.patch.object(cleverhans_mim, "compute_gradient", scaled_gradient):
        return cleverhans_mim.momentum_iterative_method(
            logits,
            x,
            eps=threat.epsilon,
            eps_iter=threat.epsilon / steps,
            nb_iter=steps,
            norm=np.inf,
            y=y,
            decay_factor=decay,
            sanity_checks=False,
            **_clip(threat),
        )


def pgd_cw(
    logits, x, y, seed, threat: ThreatModel, *, steps: int = 30, step: float = 0.1, confidence: float = 50.0
):
    """Projected gradient ascent on the hinge of Carlini & Wagner, from a random start (section 4.1).

    Steps are of step x epsilon; each member's hinge saturates once another class leads by `confidence`.
    """

    def hinge(labels, logits):
        is_true = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
        # The true class must not take part in the maximum, nor a masked zero in its place.
        others = tf.reduce_max(tf.where(is_true, logits.dtype.min, logits), axis=-1)
        true = tf.reduce_sum(tf.where(is_true, logits, tf.zeros_like(logits)), axis=-1)
        return tf.minimum(others - true, confidence)

    return _pgd(logits, x, y, threat, steps=steps, step_size=step * threat.epsilon, seed=seed, loss=hinge)


ATTACKS: dict[str, Callable[..., tf.Tensor]] = {
    "fgsm": fgsm,
    "rfgsm": rfgsm,
    "ifgsm": ifgsm,
    "mifgsm": mifgsm,
    "pgd_cw": pgd_cw,
}

# Parameter -> what it must be, in words and as a test.
RANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "steps": ("whole steps >= 1", lambda steps: isinstance(steps, int | np.integer) and steps >= 1),
    "step": ("0 < step <= 1, in units of epsilon", lambda step: 0 < step <= 1),
    "decay": ("finite decay >= 0", lambda decay: decay >= 0),
    "confidence": ("finite confidence >= 0", lambda confidence: confidence >= 0),
}


def _clip(threat: ThreatModel) -> dict[str, float]:
    return {"clip_min": threat.clip_min, "clip_max": threat.clip_max}
