"""Training batches: the augmented, noisy and adversarial images of sections 4.1 and 4.2.

A batch is a function of (seed, step) and nothing else, so that training may stop anywhere and go on.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from divtf.data.datasets import ImageData
from divtf.errors import require


@dataclasses.dataclass(frozen=True)
class Draw:
    """All that a source may make its images of.

    Attributes:
        images: clean images, float32 [B, H, W, C] in [0, 1].
        seed: of the stream to draw from, integer [2].
        epsilon: the largest l_inf budget.
        flips: whether a mirrored image is still an image of its class.
        signs: sign of the static model's loss gradient at each image, float32 [B, H, W, C]; None where no
            source is "adversarial".
    """

    images: tf.Tensor
    seed: tf.Tensor
    epsilon: float
    flips: bool
    signs: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The union of image sources over which each epoch passes once, shuffled.

    Attributes:
        data: the images D.
        sources: names of `SOURCES`; each contributes every training image once an epoch.
        epsilon: the largest l_inf budget; noise and adversarial steps have sigma = epsilon / 2.
        batch_size: images a step, over all replicas.
        seed: of shuffling, augmentation and noise.
        signs: sign of the static model's loss gradient at each training image, int8 [n, H, W, C]; for
            the source "adversarial".
    """

    data: ImageData
    sources: Sequence[str]
    epsilon: float
    batch_size: int
    seed: int
    signs: np.ndarray | None = None

    def __post_init__(self):
        for source in self.sources:
            require(source in SOURCES, f"sources among {sorted(SOURCES)}", repr(source))
        require(
            ("adversarial" in self.sources) == (self.signs is not None),
            "gradient signs if, and only if, adversarial images are a source",
            f"sources={list(self.sources)} and {'no ' if self.signs is None else ''}signs",
        )
        require(self.batch_size >= 1, "batch_size >= 1", f"batch_size={self.batch_size}")

    @property
    def examples_per_epoch(self) -> int:
        """Images an epoch, all sources together."""
        return len(self.sources) * len(self.data.x_train)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-self.examples_per_epoch // self.batch_size)

    def batches(self, first_step: int = 0) -> tf.data.Dataset:
        """Endless batches (images float32 [B, H, W, C] in [0, 1], labels int64 [B]) from a step on.

        Args:
            first_step: batches that came before, counted over all epochs.
        """
        x_train, y_train = tf.constant(self.data.x_train), tf.constant(self.data.y_train)
        signs = None if self.signs is None else tf.constant(self.signs)
        count = tf.shape(x_train, tf.int64)[0]
        first_epoch, skipped = divmod(first_step, self.steps_per_epoch)

        # Without control flow on tensors: converting it would take longer than all the rest.
        @tf.autograph.experimental.do_not_convert
        def epoch_indices(epoch):
            order = tf.random.experimental.stateless_shuffle(
                tf.range(self.examples_per_epoch, dtype=tf.int64), seed=tf.stack([self.seed, epoch])
            )
            return tf.data.Dataset.from_tensor_slices(order).batch(self.batch_size)

        @tf.autograph.experimental.do_not_convert
        def make_batch(step, indices):
            source, image = indices // count, indices % count
            seed = tf.stack([tf.constant(self.seed, tf.int64), step])
            clean = Draw(
                images=tf.cast(tf.gather(x_train, image), tf.float32) / 255,
                seed=seed,
                epsilon=self.epsilon,
                flips=self.data.spec.flips,
                signs=None if signs is None else tf.cast(tf.gather(signs, image), tf.float32),
            )
            result = clean.images
            for number, name in enumerate(self.sources):
                # Each source of each step draws from a stream of its own.
                stream = tf.random.experimental.stateless_fold_in(seed, number)
                drawn = SOURCES[name](dataclasses.replace(clean, seed=stream))
                result = tf.where(_per_image(source == number), drawn, result)
            return result, tf.gather(y_train, image)

        indices = tf.data.Dataset.counter(first_epoch).flat_map(epoch_indices).skip(skipped)
        numbered = tf.data.Dataset.zip(tf.data.Dataset.counter(first_step), indices)
        return numbered.map(make_batch, num_parallel_calls=2, deterministic=True).prefetch(2)


def augmented(draw: Draw) -> tf.Tensor:
    """D': images shifted by up to an eighth of their size, cropped to it; mirrored if flips are fair.

    Pixels that come in from outside are zero. Padding and cropping at random is both the random shift
    and the random crop of section 4.1.
    """
    shift_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(draw.seed, 2))
    down_seed, right_seed = tf.unstack(tf.random.experimental.stateless_split(shift_seed, 2))
    images = _shifted(_shifted(draw.images, 1, down_seed), 2, right_seed)
    if draw.flips:
        mirrored = tf.random.stateless_uniform([tf.shape(images)[0]], flip_seed) < 0.5
        images = tf.where(_per_image(mirrored), images[:, :, ::-1], images)
    return images


def _shifted(images: tf.Tensor, axis: int, seed: tf.Tensor) -> tf.Tensor:
    """Each image moved along an axis, 1 or 2, by up to an eighth of its size; zeros come in."""
    size = images.shape[axis]
    reach = size // 8
    offsets = tf.random.stateless_uniform([tf.shape(images)[0], 1], seed, 0, 2 * reach + 1, tf.int32)
    padded = tf.pad(images, [[reach, reach] if i == axis else [0, 0] for i in range(4)])
    # `gather` takes from the first axis after the images' own: axis 2 changes places with axis 1 for it.
    order = [0, axis, 3 - axis, 3]
    moved = tf.gather(tf.transpose(padded, order), offsets + tf.range(size), batch_dims=1)
    return tf.transpose(moved, order)


def noisy(draw: Draw) -> tf.Tensor:
    """D_noise: images + normal noise (sigma = epsilon / 2, cut at 2 sigma), clipped; section 4.1."""
    noise = tf.random.stateless_truncated_normal(tf.shape(draw.images), draw.seed, stddev=draw.epsilon / 2)
    return tf.clip_by_value(draw.images + noise, 0, 1)


def adversarial(draw: Draw) -> tf.Tensor:
    """D_adv: FGSM of a static model with a budget of its own for each image; section 4.2.

    The budget is the absolute value of a normal draw of sigma = epsilon / 2, cut at 2 sigma (Kurakin et
    al. 2017). Since the static model and the clean images stay as they are, so does the sign of the
    gradient: it is computed once, and a new epoch costs only new budgets.
    """
    shape = [tf.shape(draw.images)[0], 1, 1, 1]
    budgets = tf.abs(tf.random.stateless_truncated_normal(shape, draw.seed, stddev=draw.epsilon / 2))
    return tf.clip_by_value(draw.images + budgets * draw.signs, 0, 1)


SOURCES: dict[str, Callable[[Draw], tf.Tensor]] = {
    "augmented": augmented,
    "noise": noisy,
    "adversarial": adversarial,
}


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, 1, 1, 1])
