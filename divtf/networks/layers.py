"""Layers whose derivatives stay exact to second order, as the gradient of GAL needs them."""

import keras
import tensorflow as tf

from divtf.errors import require
from divtf.networks.normalization import batch_normalize, synchronized_batch_normalize

_REGISTER = keras.saving.register_keras_serializable(package="divtf")


@_REGISTER
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation (Ioffe & Szegedy 2015) that may be differentiated twice.

    Keras takes the variance about `stop_gradient(mean)`, whose gradient is right but whose gradient's
    gradient is not, which makes the gradient of GAL wrong by some per cent and more. Here both derivatives
    are written out (`normalization`). Statistics are those of the replica's own batch, or with
    `synchronized=True` of the batches of all replicas. Arguments as in Keras, without `renorm` and masks.
    """

    def __init__(self, **kwargs):
        require(not kwargs.get("renorm"), "renorm=False in divtf's BatchNormalization", "renorm=True")
        super().__init__(**kwargs)
        self.supports_masking = False

    def call(self, inputs, training=None, mask=None):
        """Normalise [..., channels on `axis`] by the batch's (training) or the moving statistics."""
        # Models that had Keras's layer here pass the argument on when they are cloned.
        require(mask is None, "no mask in divtf's BatchNormalization", "an input with a mask")
        x = tf.cast(inputs, tf.float32) if inputs.dtype.size < 4 else inputs
        gamma = self._factor(self.gamma, tf.ones, x.dtype)
        beta = self._factor(self.beta, tf.zeros, x.dtype)
        if training and self.trainable:
            outputs = self._by_batch(x, gamma, beta)
        else:
            scale = gamma * tf.math.rsqrt(tf.cast(self.moving_variance, x.dtype) + self.epsilon)
            shift = beta - tf.cast(self.moving_mean, x.dtype) * scale
            # One multiply-add with per-channel factors is the fewest passes over x.
            outputs = x * self._along_axis(scale, x) + self._along_axis(shift, x)
        return tf.cast(outputs, self.compute_dtype)

    def _by_batch(self, x, gamma, beta):
        """Normalise by the statistics of x, and let the moving ones follow."""
        x = self._with_channels_last(x)
        flat = x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
        normalize = synchronized_batch_normalize if self.synchronized else batch_normalize
        y, mean, variance = normalize(flat, gamma, beta, self.epsilon)
        self._track(self.moving_mean, mean)
        self._track(self.moving_variance, variance)
        return self._with_channels_last(tf.reshape(y, tf.shape(x)))

    def _with_channels_last(self, x):
        """x with `axis` and the last axis exchanged, which is its own inverse."""
        order = list(range(x.shape.rank))
        order[self.axis], order[-1] = order[-1], order[self.axis]
        return tf.transpose(x, order) if order[-1] != x.shape.rank - 1 else x

    def _factor(self, variable, default, dtype):
        """The layer's scale or shift [C], or what takes its place where it has none."""
        return default(self.moving_mean.shape, dtype) if variable is None else tf.cast(variable, dtype)

    def _along_axis(self, vector, x):
        shape = [1] * x.shape.rank
        shape[self.axis] = -1
        return tf.reshape(vector, shape)

    def _track(self, moving, value):
        moving.assign(moving * self.momentum + tf.cast(value, moving.dtype) * (1.0 - self.momentum))


@_REGISTER
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalisation (Ba et al. 2016) that may be differentiated twice.

    Keras's has the fault told of in `BatchNormalization`. Here automatic differentiation sees the whole
    formula. Arguments as in Keras.
    """

    def call(self, inputs):
        """Normalise over `axis`; `rms_scaling` divides by the deviation alone, as in Keras."""
        x = tf.cast(inputs, tf.float32) if inputs.dtype.size < 4 else inputs
        axes = [axis % x.shape.rank for axis in self.axis]
        shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
        centred, deviation = _moments(x, axes, self.epsilon)
        outputs = (x if self.rms_scaling else centred) / deviation
        if self.gamma is not None:
            outputs *= tf.reshape(tf.cast(self.gamma, x.dtype), shape)
        if self.beta is not None:
            outputs += tf.reshape(tf.cast(self.beta, x.dtype), shape)
        return tf.cast(outputs, self.compute_dtype)


@_REGISTER
class GroupNormalization(keras.layers.GroupNormalization):
    """Group normalisation (Wu & He 2018) that may be differentiated twice; see `LayerNormalization`."""

    def call(self, inputs):
        """Normalise each group of channels of an example."""
        x = tf.cast(inputs, tf.float32) if inputs.dtype.size < 4 else inputs
        axis, sizes = self.axis % x.shape.rank, tf.unstack(tf.shape(x))
        grouped = tf.reshape(x, [*sizes[:axis], self.groups, -1, *sizes[axis + 1 :]])
        axes = [each for each in range(1, grouped.shape.rank) if each != axis]
        centred, deviation = _moments(grouped, axes, self.epsilon)
        outputs = tf.reshape(centred / deviation, sizes)
        shape = [-1 if each == axis else 1 for each in range(x.shape.rank)]
        if self.gamma is not None:
            outputs *= tf.reshape(tf.cast(self.gamma, x.dtype), shape)
        if self.beta is not None:
            outputs += tf.reshape(tf.cast(self.beta, x.dtype), shape)
        outputs = tf.cast(outputs, self.compute_dtype)
        outputs.set_shape(inputs.shape)  # Not `tf.ensure_shape`, an operation that LiteRT lacks.
        return outputs


def _moments(x: tf.Tensor, axes: list[int], epsilon: float) -> tuple[tf.Tensor, tf.Tensor]:
    """x less its mean over the axes, and the root of its variance + epsilon, with ones for the axes."""
    centred = x - tf.reduce_mean(x, axes, keepdims=True)
    return centred, tf.sqrt(tf.reduce_mean(centred * centred, axes, keepdims=True) + epsilon)


@_REGISTER
class Logits(keras.layers.Layer):
    """What takes the place of a softmax at a model's end: gives what it is given, whatever the mask."""

    def get_config(self):
        """Keras's own, which without this would not take a dtype policy for a configuration's value."""
        return super().get_config()

    def call(self, inputs, mask=None):
        """The inputs."""
        return inputs


@_REGISTER
class ParameterFreeShortcut(keras.layers.Layer):
    """Identity shortcut across a change of shape: subsample, then pad new channels with zeros.

    Args:
        stride: spatial subsampling factor.
        filters: channels of the result, at least those of the input.

    Source: He et al. (2016), section 3.3, option A.
    """

    def __init__(self, stride: int, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride
        self.filters = filters

    def call(self, inputs):
        """[B, H, W, c] -> [B, ceil(H / stride), ceil(W / stride), filters]."""
        return tf.pad(
            inputs[:, :: self.stride, :: self.stride, :],
            [[0, 0], [0, 0], [0, 0], [0, self.filters - inputs.shape[-1]]],
        )

    def compute_output_shape(self, input_shape):
        """Shape of the result."""
        batch, height, width, _ = input_shape
        return (batch, *(None if n is None else -(-n // self.stride) for n in (height, width)), self.filters)

    def get_config(self):
        """Arguments of `__init__`."""
        return super().get_config() | {"stride": self.stride, "filters": self.filters}
