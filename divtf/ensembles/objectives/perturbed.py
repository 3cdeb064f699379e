"""Images that an objective changes within a ball before it trains on them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from divtf.attacks.context import Context, for_each
from divtf.attacks.pieces import within
from divtf.attacks.threat import ThreatModel
from divtf.attacks.updates import Ascent, Sign, repeat
from divtf.ensembles import step_checks
from divtf.ensembles.objectives.objective import Objective, count, setting

_SIGN = Sign()


def epsilon(default: float) -> Any:
    """A field for the largest change of a pixel."""
    return setting(default, "a finite epsilon > 0", lambda value: value > 0)


def step(default: float) -> Any:
    """A field for the size of a step in epsilons."""
    return setting(default, "0 < step <= 1, in units of epsilon", lambda value: 0 < value <= 1)


@dataclasses.dataclass(frozen=True)
class Perturbed(Objective):
    """What objectives share that change images by steps along a gradient's sign; Madry et al. (2018).

    The members run in inference mode meanwhile, so that moving statistics move by the training step alone.
    What is random is drawn from an image's own pixels: a step depends on its batch alone, and training goes
    on after an interruption as without one.

    Attributes:
        epsilon: largest change of a pixel.
        steps: number of steps.
        step: their size in epsilons.
        clip_min: least pixel value.
        clip_max: largest pixel value.
    """

    epsilon: float = epsilon(8 / 255)
    steps: int = count(10, "steps")
    step: float = step(0.25)
    clip_min: float = setting(0.0, "a finite clip_min", lambda value: True, kw_only=True)
    clip_max: float = setting(1.0, "a finite clip_max", lambda value: True, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        _ = self.threat  # Holds the ball to the image range.

    @property
    def threat(self) -> ThreatModel:
        """The ball in the image range."""
        return ThreatModel(self.epsilon, clip_min=self.clip_min, clip_max=self.clip_max)

    def checked(self, x: tf.Tensor) -> tf.Tensor:
        """The images, which are there only if they are in [clip_min, clip_max]."""
        return step_checks.images_within(x, self.clip_min, self.clip_max)

    def climbed(
        self,
        x: tf.Tensor,
        value: Callable[[tf.Tensor], tf.Tensor],
        *,
        update: Any = _SIGN,
        random_start: bool,
    ) -> tf.Tensor:
        """Images in the ball about x, [B, ...], after all steps up; constants to an outer tape.

        Args:
            x: images [B, ...].
            value: from images [B, ...] to what is climbed, of which the sum counts.
            update: how gradients are accumulated, of `attacks.updates`.
            random_start: whether to begin anywhere in the ball, and not at x.
        """
        x = self.checked(tf.stop_gradient(x))
        size = tf.constant(self.step * self.epsilon, x.dtype)

        def gradient(images, _):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                climbed = value(images)
            return tape.gradient(climbed, images)

        ascent = Ascent(gradient, [], x, self.threat, size)
        context = Context(self.threat, x, image_streams(x), size, x, x)
        start = x
        if random_start:  # What is drawn is float32, whatever the images are.
            start = ascent.project(x + tf.cast(within(self.epsilon, x, context), x.dtype))

        def move(_, images, kept):
            return update.move(ascent, images, kept, context)

        return tf.stop_gradient(repeat(self.steps, move, start, update.start(start)))


def image_streams(x: tf.Tensor) -> tf.Tensor:
    """A stream of random numbers for each of the images [B, ...], int32 [B, 2], from its pixels' bits."""
    bits = tf.reshape(tf.bitcast(tf.cast(x, tf.float32), tf.int32), [tf.shape(x)[0], -1])
    places = 2 * tf.range(tf.shape(bits)[1]) + 1
    return tf.stack([tf.reduce_sum(bits, axis=1), tf.reduce_sum(bits * places, axis=1)], axis=1)


def image_numbers(x: tf.Tensor, count: int) -> tf.Tensor:
    """A number below `count` for each of the images [B, ...], uniform, from its own pixels, int32 [B]."""

    def drawn(stream):
        return tf.random.stateless_uniform([], stream, 0, count, tf.int32, alg="philox")

    return for_each(drawn, image_streams(x), [])
