"""How an attack moves: what is kept of earlier gradients, and what step it makes of them.

An update is a frozen dataclass with `start(x)`, which gives what it keeps from step to step, a tuple of
tensors, and `move(ascent, x, kept, context)`, which gives the next images and what it keeps then.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from cleverhans.tf2.utils import clip_eta, optimize_linear

from divtf.attacks.context import Context
from divtf.attacks.pieces import Gradient, is_count, mean_of, of_mean_one, within
from divtf.attacks.threat import ThreatModel
from divtf.errors import is_number, require

Kept = tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Ascent:
    """What an update climbs.

    Attributes:
        gradient: of all members together, through the attack's pieces.
        member_gradients: the same of each member alone.
        origin: the images that the attack began with, about which the ball is.
        threat: the threat model.
        step_size: of a step, in units of the pixels.
    """

    gradient: Gradient
    member_gradients: Sequence[Gradient]
    origin: tf.Tensor
    threat: ThreatModel
    step_size: float | tf.Tensor

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """The nearest images in the ball and in the image range."""
        change = clip_eta(x - self.origin, np.inf, self.threat.epsilon)
        return tf.clip_by_value(self.origin + change, self.threat.clip_min, self.threat.clip_max)

    def climb(self, x: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
        """One step from x along the direction's sign; Equation 4."""
        return self.project(x + optimize_linear(direction, self.step_size, np.inf))


@dataclasses.dataclass(frozen=True)
class Sign:
    """The sign of the gradient, and nothing is kept: FGSM and I-FGSM, Equations 2 and 4."""

    def start(self, x: tf.Tensor) -> Kept:
        """Nothing."""
        return ()

    def move(self, ascent: Ascent, x: tf.Tensor, kept: Kept, context: Context) -> tuple[tf.Tensor, Kept]:
        """The next images."""
        return ascent.climb(x, ascent.gradient(x, context)), kept


@dataclasses.dataclass(frozen=True)
class Momentum:
    """The sign of an accumulated gradient: MI, Equation 5; NI, Lin et al. (2020), section 3.2.

    Each gradient is divided by the mean of its absolute entries, where Equation 5 has the sum: the factor
    goes with the sign. NI's look ahead is then about a step long.

    Attributes:
        decay: mu.
        nesterov: whether the gradient is taken ahead, where the momentum leads.
    """

    decay: float = 1.0
    nesterov: bool = False

    def __post_init__(self):
        _require_decay(self.decay)
        require(isinstance(self.nesterov, bool), "nesterov as a bool", f"nesterov={self.nesterov!r}")

    def start(self, x: tf.Tensor) -> Kept:
        """No momentum yet."""
        return (tf.zeros_like(x),)

    def move(self, ascent: Ascent, x: tf.Tensor, kept: Kept, context: Context) -> tuple[tf.Tensor, Kept]:
        """The next images, and the momentum."""
        (velocity,) = kept
        ahead = x + ascent.step_size * self.decay * velocity if self.nesterov else x
        velocity = self.decay * velocity + of_mean_one(ascent.gradient(ahead, context))
        return ascent.climb(x, velocity), (velocity,)


@dataclasses.dataclass(frozen=True)
class VarianceTuning:
    """Momentum of gradients that the last step's variance corrects: VMI, Wang & He (2021), algorithm 1.

    The variance is the mean gradient at neighbours less the gradient at the images.

    Attributes:
        neighbours: their number.
        reach: they are within so many epsilon.
        decay: of the momentum.
    """

    neighbours: int = 20
    reach: float = 1.5
    decay: float = 1.0

    def __post_init__(self):
        require(is_count(self.neighbours), "whole neighbours >= 1", f"neighbours={self.neighbours!r}")
        _require_positive("reach", self.reach)
        _require_decay(self.decay)

    @property
    def cost(self) -> int:
        """Gradients that a step takes."""
        return self.neighbours + 1

    def start(self, x: tf.Tensor) -> Kept:
        """No momentum and no variance yet."""
        return (tf.zeros_like(x), tf.zeros_like(x))

    def move(self, ascent: Ascent, x: tf.Tensor, kept: Kept, context: Context) -> tuple[tf.Tensor, Kept]:
        """The next images; the momentum and the variance."""
        velocity, variance = kept
        here = ascent.gradient(x, context.fold(0))
        velocity = self.decay * velocity + of_mean_one(here + variance)

        def near(number):
            drawn = context.fold(1 + number)
            moved = x + within(self.reach * ascent.threat.epsilon, x, drawn)
            return ascent.gradient(moved, drawn.fold(0))

        return ascent.climb(x, velocity), (velocity, mean_of(self.neighbours, near, x) - here)


@dataclasses.dataclass(frozen=True)
class MemberByMember:
    """One member after the other, and then a step to where they led: MI-CWA and MI-CSE, Chen et al. (2024).

    Steps along each member's gradient in turn raise the cosine between the members' gradients, to second
    order: the natural adversary of GAL. A step against the gradient before them finds flat maxima.

    Attributes:
        reverse: the step against the gradient, in epsilons; 0 leaves it out.
        inner: root mean square of a member's step, in epsilons. The paper's 250 and 50 are lengths in
            224 x 224 x 3 values at epsilon 16/255.
        decay: of the momentum over members, and of that over steps.
    """

    reverse: float = 0.0
    inner: float = 2.0
    decay: float = 1.0

    def __post_init__(self):
        holds = is_number(self.reverse) and self.reverse >= 0
        require(holds, "reverse as a number of epsilons >= 0", f"reverse={self.reverse!r}")
        _require_positive("inner", self.inner)
        _require_decay(self.decay)

    @property
    def cost(self) -> int:
        """Gradients of all members that a step takes."""
        return 2 if self.reverse else 1

    def start(self, x: tf.Tensor) -> Kept:
        """No momentum yet, of members or of steps."""
        return (tf.zeros_like(x), tf.zeros_like(x))

    def move(self, ascent: Ascent, x: tf.Tensor, kept: Kept, context: Context) -> tuple[tf.Tensor, Kept]:
        """The next images; the momentum of the members and that of the steps."""
        along_members, velocity = kept
        epsilon, inner = ascent.threat.epsilon, x
        if self.reverse:
            back = optimize_linear(ascent.gradient(x, context.fold(0)), self.reverse * epsilon, np.inf)
            inner = ascent.project(x - back)
        for number, gradient in enumerate(ascent.member_gradients, 1):
            of_member = gradient(inner, context.fold(number))
            along_members = self.decay * along_members + _of_root_mean_square_one(of_member)
            inner = ascent.project(inner + self.inner * epsilon * along_members)
        velocity = self.decay * velocity + of_mean_one(inner - x)
        return ascent.climb(x, velocity), (along_members, velocity)


def _of_root_mean_square_one(gradient: tf.Tensor) -> tf.Tensor:
    """Each image's gradient over the root of its mean square; one that is zero stays zero."""
    scaled = of_mean_one(gradient)
    axes = range(1, gradient.shape.rank)
    return tf.math.divide_no_nan(scaled, tf.sqrt(tf.reduce_mean(tf.square(scaled), axes, keepdims=True)))


def _require_decay(decay: float) -> None:
    require(is_number(decay) and decay >= 0, "finite decay >= 0", f"decay={decay!r}")


def _require_positive(name: str, value: float) -> None:
    require(is_number(value) and value > 0, f"{name} as a number of epsilons > 0", f"{name}={value!r}")


def repeat(steps: int, step: Callable[..., tuple[tf.Tensor, Kept]], x: tf.Tensor, kept: Kept) -> tf.Tensor:
    """The images after so many steps, each given its number, the images and what is kept.

    A loop of TensorFlow: the graph has one step, however many are taken.
    """

    def body(number, images, kept):
        images, kept = step(number, images, kept)
        return number + 1, tf.ensure_shape(images, x.shape), kept

    _, x, _ = tf.while_loop(lambda number, *_: number < steps, body, (0, x, kept), parallel_iterations=1)
    return x
