"""Labels as Keras takes them: class indices, one-hot, or the classes' probabilities."""

import tensorflow as tf

from divtf.ensembles import step_checks
from divtf.errors import require


def checked_labels(y: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Labels as class indices, int64 [B], or as the classes' probabilities, floating [B, C].

    Args:
        y: class indices [B] or [B, 1], or one-hot or soft labels [B, C]; of any real type.
        num_classes: C.

    Raises:
        InputError: for another shape or type; when the step runs, also for an index that is not a whole
            number in [0, C), or rows that are not probabilities. See `step_checks.clear_errors`.
    """
    indices = y.shape.rank == 1 or (y.shape.rank == 2 and y.shape[-1] == 1)
    y = tf.cast(y, tf.int32) if y.dtype.is_bool else y
    real = y.dtype.is_integer or y.dtype.is_floating
    require(
        real and (indices or (y.shape.rank == 2 and y.shape[-1] == num_classes)),
        f"labels as class indices [batch] or as one-hot or soft labels [batch, {num_classes}]",
        f"{y.dtype.name} of shape {y.shape}",
    )
    if indices:
        return step_checks.class_indices(tf.reshape(y, [-1]), num_classes)
    return step_checks.probabilities(y if y.dtype.is_floating else tf.cast(y, tf.float32))


def likeliest_class(y: tf.Tensor) -> tf.Tensor:
    """The class index of labels [B] or [B, C], int64 [B]."""
    return y if y.shape.rank == 1 else tf.argmax(y, axis=-1)
