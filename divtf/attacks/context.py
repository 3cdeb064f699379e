"""What an attack's pieces know of the images at hand, and where they draw random numbers."""

import dataclasses

import tensorflow as tf

from divtf.attacks.threat import ThreatModel


def streams(seed: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """A stream of random numbers for each image, int32 [B, 2], from the seed [] and the images' numbers [B].

    What is drawn for an image then depends on nothing beside: no other image, no batch size, no device.
    """
    return _each(lambda number: tf.random.experimental.stateless_fold_in([seed, 0], number), numbers, [2])


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

        def folded(stream):
            return tf.random.experimental.stateless_fold_in(stream, number)

        return dataclasses.replace(self, streams=_each(folded, self.streams, [2]))

    def uniform(self, shape: list[int] | tf.Tensor, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """Uniform numbers in [low, high), float32 [B, *shape]; the same ones each time."""

        def drawn(stream):
            return tf.random.stateless_uniform(shape, stream, low, high)

        return _each(drawn, self.streams, shape, tf.float32)

    def normal(self, shape: list[int], deviation: float) -> tf.Tensor:
        """Normal numbers of mean 0, float32 [B, *shape]; the same ones each time."""

        def drawn(stream):
            return tf.random.stateless_normal(shape, stream, stddev=deviation)

        return _each(drawn, self.streams, shape, tf.float32)


def _each(function, items: tf.Tensor, shape: list[int] | tf.Tensor, dtype: tf.DType = tf.int32) -> tf.Tensor:
    """The function of each item, stacked: TensorFlow draws from one stream at a time."""
    known = [None] * shape.shape[0] if isinstance(shape, tf.Tensor) else shape
    return tf.map_fn(function, items, fn_output_signature=tf.TensorSpec(known, dtype))
