"""Resizing of images that may be differentiated twice.

TensorFlow registers the second derivative of bilinear resizing as none, and that of other kinds not at all.
Resizing is linear in the image, and along height and width apart: two matrices do it, whose derivatives are
right to any order.
"""

import keras
import tensorflow as tf

from divtf.errors import require

_REGISTER = keras.saving.register_keras_serializable(package="divtf")


class _Linear:
    """Height and width multiplied by a matrix each, which the layer makes when it is built."""

    data_format: str
    compute_dtype: str

    def _make_matrices(self, input_shape, output_shape, interpolation: str, antialias: bool = False) -> None:
        height, width = _spatial(input_shape, self.data_format)
        known = height is not None and width is not None
        require(known, f"images of known size in divtf's {type(self).__name__}", f"shape {input_shape}")
        new_height, new_width = _spatial(output_shape, self.data_format)
        self._rows = _matrix(height, new_height, interpolation, antialias)
        self._columns = _matrix(width, new_width, interpolation, antialias)

    def _resized(self, images):
        images = tf.cast(images, self.compute_dtype)
        rows, columns = (tf.cast(each, images.dtype) for each in (self._rows, self._columns))
        # Small ones only: tf2onnx takes H and h for the same.
        letters = "bchw,ih,jw->bcij" if self.data_format == "channels_first" else "bhwc,ih,jw->bijc"
        batched = images if images.shape.rank == 4 else images[None]
        resized = tf.einsum(letters, batched, rows, columns)
        return resized if images.shape.rank == 4 else resized[0]


def _spatial(shape, data_format):
    """Height and width of [..., H, W, C], or of [..., C, H, W]."""
    return shape[-2:] if data_format == "channels_first" else shape[-3:-1]


def _matrix(size: int, new_size: int, interpolation: str, antialias: bool):
    """What TensorFlow's resizing multiplies an axis by, [new_size, size]: its unit matrix resized."""
    with tf.init_scope():
        unit = tf.eye(size)[:, :, None]
        return tf.image.resize(unit, (new_size, size), interpolation, antialias=antialias)[..., 0].numpy()


@_REGISTER
class Resizing(_Linear, keras.layers.Resizing):
    """`keras.layers.Resizing` of images of known size, that may be differentiated twice.

    Arguments as in Keras, without cropping or padding to an aspect ratio. Gives the layer's compute type.

    Raises:
        InputError: for these, and when it is built for images of unknown size.
    """

    def __init__(self, height, width, **kwargs):
        for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
            require(not kwargs.get(option), f"{option}=False in divtf's Resizing", f"{option}=True")
        super().__init__(height, width, **kwargs)

    def build(self, input_shape):
        """Make the matrices for images [..., H, W, C]."""
        output_shape = self.compute_output_shape(input_shape)
        self._make_matrices(input_shape, output_shape, self.interpolation, self.antialias)
        super().build(input_shape)

    def call(self, data):
        """Images of the new height and width."""
        return self._resized(data)


@_REGISTER
class UpSampling2D(_Linear, keras.layers.UpSampling2D):
    """`keras.layers.UpSampling2D` of images of known size, that may be differentiated twice.

    Raises:
        InputError: when it is built for images of unknown size.
    """

    def build(self, input_shape):
        """Make the matrices for images [B, H, W, C]."""
        self._make_matrices(input_shape, self.compute_output_shape(input_shape), self.interpolation)
        super().build(input_shape)

    def call(self, inputs):
        """Images of a multiple of the height and width."""
        return self._resized(inputs)
