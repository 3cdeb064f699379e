"""What gradient an attack takes: pieces that stand between it and the members.

A piece is a frozen dataclass that is called with `gradient`, a function of images [B, ...] and a `Context`
that gives each image's gradient in their shape, with images x, and with the context; it gives the gradient to
climb at x. Copies of an image are looked at one after the other, so that memory does not grow with their
number; `cost` says how many there are. Pieces are put one into the other. One that works on images
[B, H, W, C] alone has `pictures`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import scipy.fft
import scipy.stats
import tensorflow as tf

from divtf.attacks.context import Context
from divtf.errors import is_number, require

Gradient = Callable[[tf.Tensor, Context], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class DiverseInputs:
    """The gradient at a randomly shrunk image with a border of zeros: DI, Xie et al. (2019), section 3.2.

    Images are shrunk, where others enlarge them: members may take one size only.

    Attributes:
        smallest: least side of a shrunk image, as a share of the image's; 28 of 32 by default.
        probability: of shrinking an image; each step draws anew.
    """

    smallest: float = 0.875
    probability: float = 0.5

    pictures: ClassVar[bool] = True

    def __post_init__(self):
        _require_number(self, "smallest", "a share in (0, 1]", lambda share: 0 < share <= 1)
        _require_number(self, "probability", "a probability in [0, 1]", lambda share: 0 <= share <= 1)

    def __call__(self, gradient: Gradient, x: tf.Tensor, context: Context) -> tf.Tensor:
        """The gradient at x, of its shape."""
        _, height, width, _ = x.shape
        shrunk, size, *offsets = tf.unstack(context.fold(0).uniform([4]), axis=1)
        # The whole size, where an image is left as it is.
        scale = tf.where(shrunk < self.probability, self.smallest + (1 - self.smallest) * size, 1.0)
        rows = _resizing(height, scale, offsets[0])
        columns = _resizing(width, scale, offsets[1])
        resized = tf.einsum("bij,bjlc,bkl->bikc", rows, x, columns)
        moved = gradient(resized, context.fold(1))
        return tf.einsum("bij,bikc,bkl->bjlc", rows, moved, columns)


def _resizing(side: int, scale: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Matrices [B, side, side] that shrink a side by linear interpolation and put it somewhere.

    Args:
        side: pixels.
        scale: of the shrunk side, a share [B], rounded to whole pixels, at least one.
        place: where the shrunk side begins, a share [B] of the room that there is.
    """
    size = tf.maximum(tf.round(scale * side), 1.0)[:, None, None]
    begin = tf.floor(place[:, None, None] * (side - size + 1))
    target = tf.range(side, dtype=tf.float32)[None, :, None] - begin
    source = tf.clip_by_value((target + 0.5) * side / size - 0.5, 0.0, side - 1.0)
    weights = tf.maximum(0.0, 1 - tf.abs(source - tf.range(side, dtype=tf.float32)))
    return tf.where((target >= 0) & (target < size), weights, 0.0)


@dataclasses.dataclass(frozen=True)
class TranslationKernel:
    """The gradient smoothed by a normal kernel, as if of shifted images: TI, Dong et al. (2019), section 3.2.

    Attributes:
        kernel: its side in pixels, odd; the kernel ends at three deviations.
    """

    kernel: int = 5

    pictures: ClassVar[bool] = True

    def __post_init__(self):
        holds = is_count(self.kernel) and self.kernel % 2 == 1
        require(holds, "kernel as an odd number of pixels >= 1", f"kernel={self.kernel!r}")

    def __call__(self, gradient: Gradient, x: tf.Tensor, context: Context) -> tf.Tensor:
        """The gradient at x, of its shape."""
        profile = scipy.stats.norm.pdf(np.linspace(-3, 3, self.kernel)) if self.kernel > 1 else np.ones(1)
        weights = np.outer(profile, profile) / profile.sum() ** 2
        filters = tf.constant(np.repeat(weights[:, :, None, None], x.shape[-1], axis=2), x.dtype)
        return tf.nn.depthwise_conv2d(gradient(x, context), filters, [1, 1, 1, 1], "SAME")


@dataclasses.dataclass(frozen=True)
class ScaledCopies:
    """The mean gradient of the losses at x, x / 2, x / 4 ...: SI, Lin et al. (2020), section 3.3.

    Attributes:
        scales: number of copies, x itself among them.
    """

    scales: int = 3

    def __post_init__(self):
        _require_count(self, "scales")

    @property
    def cost(self) -> int:
        """Gradients that it takes."""
        return self.scales

    def __call__(self, gradient: Gradient, x: tf.Tensor, context: Context) -> tf.Tensor:
        """The gradient at x, of its shape."""

        def of_copy(number):
            factor = tf.pow(0.5, tf.cast(number, x.dtype))
            return factor * gradient(factor * x, context.fold(number))

        return mean_of(self.scales, of_copy, x)


@dataclasses.dataclass(frozen=True)
class MixedImages:
    """The mean gradient at x plus a share of another class's images: Admix, Wang et al. (2021), section 3.2.

    Attributes:
        others: number of images that are mixed in, one at a time, drawn anew in each step.
        strength: their share.
    """

    others: int = 3
    strength: float = 0.2

    def __post_init__(self):
        _require_count(self, "others")
        _require_number(self, "strength", "a share in [0, 1]", lambda share: 0 <= share <= 1)

    @property
    def cost(self) -> int:
        """Gradients that it takes."""
        return self.others

    def __call__(self, gradient: Gradient, x: tf.Tensor, context: Context) -> tf.Tensor:
        """The gradient at x, of its shape."""
        foreign = tf.cast(context.labels[:, None] != context.pool_labels, tf.float32)

        def of_mixture(number):
            # Of its own class an image gets another one only if there is no other class.
            drawn = context.fold(number).uniform([]) * tf.maximum(tf.reduce_sum(foreign, axis=1), 1.0)
            other = tf.argmax(tf.cumsum(foreign, axis=1) > drawn[:, None], axis=1)
            return gradient(x + self.strength * tf.gather(context.pool, other), context.fold(number))

        return mean_of(self.others, of_mixture, x)


@dataclasses.dataclass(frozen=True)
class Neighbourhood:
    """Gradients around x, penalised where they change: PGN, Ge et al. (2023), algorithm 1.

    Half of each is taken at a neighbour x', half at x' less a step of the context's size along the gradient.

    Attributes:
        samples: number of neighbours.
        reach: they are within so many epsilon.
        balance: weight of the second half.
    """

    samples: int = 20
    reach: float = 3.0
    balance: float = 0.5

    def __post_init__(self):
        _require_count(self, "samples")
        _require_number(self, "reach", "a number of epsilons >= 0", lambda reach: reach >= 0)
        _require_number(self, "balance", "a share in [0, 1]", lambda share: 0 <= share <= 1)

    @property
    def cost(self) -> int:
        """Gradients that it takes."""
        return 2 * self.samples

    def __call__(self, gradient: Gradient, x: tf.Tensor, context: Context) -> tf.Tensor:
        """The gradient at x, of its shape."""

        def around(number):
            drawn = context.fold(number)
            near = x + within(self.reach * context.threat.epsilon, x, drawn)
            here = gradient(near, drawn.fold(0))
            there = gradient(near - context.step_size * of_mean_one(here), drawn.fold(1))
            return (1 - self.balance) * here + self.balance * there

        return mean_of(self.samples, around, x)


@dataclasses.dataclass(frozen=True)
class SpectralCopies:
    """The mean gradient at copies of randomly scaled frequencies: SSA, Long et al. (2022), section 3.3.

    Attributes:
        copies: their number.
        spread: frequencies of the cosine transform are scaled by U(1 - spread, 1 + spread).
        noise: deviation of the normal noise that is added before, in epsilons.
    """

    copies: int = 20
    spread: float = 0.5
    noise: float = 1.0

    pictures: ClassVar[bool] = True

    def __post_init__(self):
        _require_count(self, "copies")
        _require_number(self, "spread", "a number in [0, 1]", lambda spread: 0 <= spread <= 1)
        _require_number(self, "noise", "a number of epsilons >= 0", lambda noise: noise >= 0)

    @property
    def cost(self) -> int:
        """Gradients that it takes."""
        return self.copies

    def __call__(self, gradient: Gradient, x: tf.Tensor, context: Context) -> tf.Tensor:
        """The gradient at x, of its shape."""
        rows, columns = (tf.constant(_cosines(side), x.dtype) for side in x.shape[1:3])
        shape = x.shape[1:].as_list()

        def of_copy(number):
            drawn = context.fold(number)
            noise = drawn.fold(0).normal(shape, self.noise * context.threat.epsilon)
            mask = drawn.fold(1).uniform(shape, 1 - self.spread, 1 + self.spread)
            scaled = mask * tf.einsum("ij,bjlc,kl->bikc", rows, x + noise, columns)
            moved = gradient(tf.einsum("ij,bikc,kl->bjlc", rows, scaled, columns), drawn.fold(2))
            # Back the same way: the transform is orthogonal.
            spectrum = mask * tf.einsum("ij,bjlc,kl->bikc", rows, moved, columns)
            return tf.einsum("ij,bikc,kl->bjlc", rows, spectrum, columns)

        return mean_of(self.copies, of_copy, x)


def _cosines(side: int) -> np.ndarray:
    """The orthogonal matrix of the cosine transform of a side."""
    return scipy.fft.dct(np.eye(side), axis=0, norm="ortho")


def within(reach: float, x: tf.Tensor, context: Context) -> tf.Tensor:
    """A change U(-reach, reach) of each value of the images x."""
    known = x.shape[1:].is_fully_defined()
    return context.uniform(x.shape[1:].as_list() if known else tf.shape(x)[1:], -reach, reach)


def mean_of(count: int, gradient_of: Callable[[tf.Tensor], tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    """The mean of what is given for 0, 1, ..., count - 1, one after the other, in the shape of `like`."""

    def add(number, total):
        return number + 1, tf.ensure_shape(total + gradient_of(number), like.shape)

    _, total = tf.while_loop(
        lambda number, _: number < count, add, (0, tf.zeros_like(like)), parallel_iterations=1
    )
    return total / count


def of_mean_one(gradient: tf.Tensor) -> tf.Tensor:
    """Each image's gradient over the mean of its absolute entries; one that is zero stays zero.

    It is divided by its largest entry before: a saturated member's gradient is far below the 1e-12 that
    CleverHans divides by at least, and its mean may underflow.
    """
    axes = range(1, gradient.shape.rank)
    scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axes, keepdims=True))
    return tf.math.divide_no_nan(scaled, tf.reduce_mean(tf.abs(scaled), axes, keepdims=True))


def _require_number(piece: Any, name: str, expected: str, fits: Callable[[Any], bool]) -> None:
    value = getattr(piece, name)
    require(is_number(value) and fits(value), f"{name} as {expected}", f"{name}={value!r}")


def _require_count(piece: Any, name: str) -> None:
    value = getattr(piece, name)
    require(is_count(value), f"whole {name} >= 1", f"{name}={value!r}")


def is_count(value: Any) -> bool:
    """Whether the value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
