"""Training batches: the augmented, noisy and adversarial images of sections 4.1 and 4.2.

A batch is a function of (seed, step) and nothing else, so that training may stop anywhere and go on.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.data.datasets import ImageData
from divtf.errors import require

# Batches that are made at a time: each takes memory, and within one Pillow has threads of its own.
_THREADS = min(os.cpu_count() or 1, 8)


@dataclasses.dataclass(frozen=True)
class Draw:
    """All that a source may make an image of.

    Attributes:
        image: clean, float32 [H, W, C] in [0, 1].
        seed: of the stream to draw from, integer [2]; each image of each step has its own.
        epsilon: the largest l_inf budget.
        flips: whether a mirrored image is still an image of its class.
        change: by a static attack, float32 [H, W, C] in [-1, 1]; None where no source is "adversarial".
        uniform_budgets: whether the budget of that change is uniform up to epsilon.
    """

    image: tf.Tensor
    seed: tf.Tensor
    epsilon: float
    flips: bool
    change: tf.Tensor | None = None
    uniform_budgets: bool = False


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The union of image sources over which each epoch passes once, shuffled.

    Attributes:
        data: the images D.
        sources: names of `SOURCES`; each contributes every training image once an epoch.
        epsilon: the largest l_inf budget; noise and adversarial steps have sigma = epsilon / 2.
        batch_size: images a step, over all replicas.
        seed: of shuffling, augmentation and noise.
        changes: of every training image by static attacks, int8 [n, H, W, C] each, 127 for a whole budget,
            arrays or `LazyImages`; for the source "adversarial", which draws one of them for each image.
        uniform_budgets: whether the budgets of changes are uniform in [0, epsilon), and not as in section
            4.2.
    """

    data: ImageData
    sources: Sequence[str]
    epsilon: float
    batch_size: int
    seed: int
    changes: Sequence[Any] = ()
    uniform_budgets: bool = False

    def __post_init__(self):
        for source in self.sources:
            require(source in SOURCES, f"sources among {sorted(SOURCES)}", repr(source))
        require(
            ("adversarial" in self.sources) == (len(self.changes) > 0),
            "changes by static attacks if, and only if, adversarial images are a source",
            f"sources={list(self.sources)} and {len(self.changes)} changes",
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

    def batches(self, first_step: int = 0, cut: Callable[[Any], Any] | None = None) -> tf.data.Dataset:
        """Endless batches (images float32 [B, H, W, C] in [0, 1], labels int64 [B]) from a step on.

        With the source "outside" a third part holds weights as `Ensemble` takes them, {"cross_entropy":
        float32 [B]}: 0 for its images, whose labels are those of what they are made of, and 1 for others.

        What is in a batch is decided before anything is read: a worker reads and augments its share only.

        Args:
            first_step: batches that came before, counted over all epochs.
            cut: makes of a data set of tuples of arrays [B] one of a worker's shares of each; None takes all.
        """
        plan = self._plan(first_step)
        # Several at a time, but in order, which is the seed's.
        batches = (cut(plan) if cut else plan).map(
            self._make, num_parallel_calls=_THREADS, deterministic=True
        )
        return batches.prefetch(2)

    def _plan(self, first_step: int) -> tf.data.Dataset:
        """Endless batches (step, place in the batch, number of the example), each int64 [B]."""
        first_epoch, skipped = divmod(first_step, self.steps_per_epoch)

        # Without control flow on tensors: converting it would take longer than all the rest.
        @tf.autograph.experimental.do_not_convert
        def examples(epoch):
            order = tf.random.experimental.stateless_shuffle(
                tf.range(self.examples_per_epoch, dtype=tf.int64), seed=tf.stack([self.seed, epoch])
            )
            return tf.data.Dataset.from_tensor_slices(order).batch(self.batch_size)

        @tf.autograph.experimental.do_not_convert
        def with_places(step, numbers):
            places = tf.range(tf.shape(numbers, tf.int64)[0])
            return tf.fill(tf.shape(numbers), step), places, numbers

        numbers = tf.data.Dataset.counter(first_epoch).flat_map(examples).skip(skipped)
        return tf.data.Dataset.zip(tf.data.Dataset.counter(first_step), numbers).map(with_places)

    @tf.autograph.experimental.do_not_convert
    def _make(self, steps: tf.Tensor, places: tf.Tensor, numbers: tf.Tensor) -> tuple[Any, ...]:
        """A batch of the examples, each drawn by its own stream of (seed, step, place)."""
        count = len(self.data.x_train)
        source, image = numbers // count, numbers % count
        clean = tf.cast(_read(self.data.x_train, image), tf.float32) / 255
        streams = tf.map_fn(
            lambda example: tf.random.experimental.stateless_fold_in([self.seed, example[0]], example[1]),
            (steps, places),
            fn_output_signature=tf.TensorSpec([2], tf.int64),
        )
        changes = self._changes(image, streams) if self.changes else clean

        def make_one(example):
            image, change, source, stream = example
            flips, uniform = self.data.spec.flips, self.uniform_budgets
            draw = Draw(image, stream, self.epsilon, flips, change, uniform)
            made = [lambda name=name: SOURCES[name](draw) for name in self.sources]
            return tf.switch_case(tf.cast(source, tf.int32), made)

        images = tf.map_fn(
            make_one,
            (clean, changes, source, streams),
            fn_output_signature=tf.TensorSpec(self.data.spec.image_shape),
        )
        labels = _read(self.data.y_train, image)
        if "outside" not in self.sources:
            return images, labels
        inside = source != list(self.sources).index("outside")
        return images, labels, {"cross_entropy": tf.cast(inside, tf.float32)}

    def _changes(self, image: tf.Tensor, streams: tf.Tensor) -> tf.Tensor:
        """A change of each image, by one of the static attacks drawn for it, float32 in [-1, 1]."""

        def drawn(stream):
            # Another stream than the budget's.
            own = tf.random.experimental.stateless_fold_in(stream, 1)
            return tf.random.stateless_uniform([], own, 0, len(self.changes), tf.int64)

        def read(numbers, attacks):
            changes = np.empty((len(numbers), *self.data.spec.image_shape), np.int8)
            for attack in np.unique(attacks):
                changes[attacks == attack] = self.changes[attack][numbers[attacks == attack]]
            return changes

        attacks = tf.map_fn(drawn, streams, fn_output_signature=tf.TensorSpec([], tf.int64))
        changes = tf.numpy_function(read, [image, attacks], tf.int8)
        return tf.cast(tf.ensure_shape(changes, [None, *self.data.spec.image_shape]), tf.float32) / 127


def _read(array: Any, numbers: tf.Tensor) -> tf.Tensor:
    """The entries of these numbers of what is indexed like an array; they never are part of a graph."""
    entries = tf.numpy_function(lambda wanted: array[wanted], [numbers], tf.as_dtype(array.dtype))
    return tf.ensure_shape(entries, [None, *array.shape[1:]])


def clean_batches(
    images: Any, labels: np.ndarray, batch_size: int, cut: Callable[[Any], Any] | None = None
) -> tf.data.Dataset:
    """Batches (images, labels) in order, once; the arguments are as those of `Mixture.batches`."""
    plan = tf.data.Dataset.range(len(images)).batch(batch_size).map(lambda numbers: (numbers,))
    batches = (cut(plan) if cut else plan).map(
        lambda numbers: (_read(images, numbers), _read(labels, numbers))
    )
    return batches.prefetch(1)


def augmented(draw: Draw) -> tf.Tensor:
    """D': an image shifted by up to an eighth of its size, cropped to it; mirrored if flips are fair.

    Pixels that come in from outside are zero. Padding and cropping at random is both the random shift
    and the random crop of section 4.1.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(draw.seed, 2))
    height, width, channels = draw.image.shape
    rows, columns = height // 8, width // 8
    padded = tf.pad(draw.image, [[rows, rows], [columns, columns], [0, 0]])
    image = tf.image.stateless_random_crop(padded, [height, width, channels], crop_seed)
    return tf.image.stateless_random_flip_left_right(image, flip_seed) if draw.flips else image


def noisy(draw: Draw) -> tf.Tensor:
    """D_noise: an image + normal noise (sigma = epsilon / 2, cut at 2 sigma), clipped; section 4.1."""
    noise = tf.random.stateless_truncated_normal(draw.image.shape, draw.seed, stddev=draw.epsilon / 2)
    return tf.clip_by_value(draw.image + noise, 0, 1)


def adversarial(draw: Draw) -> tf.Tensor:
    """D_adv: FGSM of a static model with a budget of its own for each image; section 4.2.

    The budget is the absolute value of a normal draw of sigma = epsilon / 2, cut at 2 sigma (Kurakin et
    al. 2017), or uniform up to epsilon. Since the static model and the clean images stay as they are, so does
    the sign of the gradient, or what another attack changes: a new epoch costs only new budgets.
    """
    if draw.uniform_budgets:
        budget = tf.random.stateless_uniform([], draw.seed, 0, draw.epsilon)
    else:
        budget = tf.abs(tf.random.stateless_truncated_normal([], draw.seed, stddev=draw.epsilon / 2))
    return tf.clip_by_value(draw.image + budget * draw.change, 0, 1)


def outside(draw: Draw) -> tf.Tensor:
    """An image outside the distribution: its quarters by height, and those by width, change places at random.

    What the paper leaves open (section 6): the image keeps its strokes and textures, and loses its class.
    """
    height, width, _ = draw.image.shape
    row_seed, column_seed = tf.unstack(tf.random.experimental.stateless_split(draw.seed, 2))
    shuffled = tf.gather(draw.image, _quarters_shuffled(height, row_seed))
    return tf.gather(shuffled, _quarters_shuffled(width, column_seed), axis=1)


def _quarters_shuffled(length: int, seed: tf.Tensor) -> tf.Tensor:
    """The numbers below `length`, in order within each quarter, and the quarters in random order."""
    numbers = tf.range(length)
    turns = tf.random.experimental.stateless_shuffle(tf.range(4), seed)
    return tf.argsort(tf.gather(turns, numbers * 4 // length), stable=True)


SOURCES: dict[str, Callable[[Draw], tf.Tensor]] = {
    "augmented": augmented,
    "noise": noisy,
    "adversarial": adversarial,
    "outside": outside,
}
