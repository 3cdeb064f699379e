"""What an attack's pieces know of the images at hand, and where they draw random numbers."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from divtf.attacks.threat import ThreatModel

# Left to TensorFlow, XLA draws by another one from streams that hold a number below zero.
_ALGORITHM = "philox"


def streams(seed: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """A stream of random numbers for each image, int32 [B, 2], from the seed [] and the images' numbers [B].

    What is drawn for an image then depends on nothing beside: no other image, no batch size, no device.
    """
    # As each number by itself: TensorFlow folds a number in by putting it beside what it draws of the seed.
    of_seed = _folded([seed, 0], 0)[0]
    return tf.stack([tf.fill(tf.shape(numbers), of_seed), numbers], axis=1)


@dataclasses.dataclass(frozen=True)
class Context:
    """The images under attack, without their values, which each piece is given.

    Attributes:
        threat: the threat model.
        labels: true classes, integer [B].
        streams: the images' streams of random numbers, int32 [B, 2].
        step_size: of a step, in units of the pixels.
        pool: other images, [P, ...], for pieces that mix them in.
        pool_labels: their true classes, integer [P].
    """

    threat: ThreatModel
    labels: tf.Tensor
    streams: tf.Tensor
    step_size: float
    pool: tf.Tensor
    pool_labels: tf.Tensor

    def fold(self, number: int | tf.Tensor) -> "Context":
        """The same with streams of their own: for a step, for a copy, or for one of several draws."""
        folded = for_each(lambda stream: _folded(stream, number), self.streams, [2])
        return dataclasses.replace(self, streams=folded)

    def uniform(self, shape: list[int] | tf.Tensor, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """Uniform numbers in [low, high), float32 [B, *shape]; the same ones each time, compiled or not."""
        drawn = for_each(lambda stream: _shares(shape, stream), self.streams, shape, tf.float32)
        least, most = (tf.convert_to_tensor(end, tf.float32) for end in (low, high))
        return drawn * (most - least) + least

    def normal(self, shape: list[int], deviation: float) -> tf.Tensor:
        """Normal numbers of mean 0, float32 [B, *shape]; the same ones each time.

        Where XLA compiles they are others, which it makes of the same bits by a formula of its own.
        """

        def drawn(stream):
            return tf.random.stateless_normal(shape, stream, stddev=deviation, alg=_ALGORITHM)

        return for_each(drawn, self.streams, shape, tf.float32)


def _folded(stream: tf.Tensor | list, number: int | tf.Tensor) -> tf.Tensor:
    """Another stream of random numbers, int32 [2], for each number."""
    return tf.random.experimental.stateless_fold_in(stream, number, alg=_ALGORITHM)


def _shares(shape: list[int] | tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1), float32 of that shape: TensorFlow's own, to the bit.

    They are made of whole numbers as its kernels do it, since XLA makes others of the same bits.
    """
    bits = tf.random.stateless_uniform(shape, stream, None, None, tf.int32, alg=_ALGORITHM)
    # The lowest 23 bits, as the fraction of a float32 in [1, 2).
    return tf.bitcast((bits & 0x7FFFFF) | 0x3F800000, tf.float32) - 1


def for_each(
    function: Callable[[tf.Tensor], tf.Tensor],
    streams: tf.Tensor,
    shape: list[int] | tf.Tensor,
    dtype: tf.DType = tf.int32,
) -> tf.Tensor:
    """What is drawn from each of the streams [B, 2], stacked: TensorFlow draws from one at a time.

    Args:
        function: from a stream [2] to what is drawn.
        streams: of random numbers.
        shape: of what is drawn from one of them.
        dtype: its type.
    """
    known = [None] * shape.shape[0] if isinstance(shape, tf.Tensor) else shape
    with tf.device("CPU"):  # A GPU takes longer to launch each of so many small draws than to wait for them.
        return tf.map_fn(function, streams, fn_output_signature=tf.TensorSpec(known, dtype))
