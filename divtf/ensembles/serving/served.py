"""What an exported ensemble computes, whatever the format: its outputs, and the same in NumPy."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.members import common_input_shape
from divtf.errors import require
from divtf.networks.conversion import takes_bytes

OUTPUTS = ("probabilities", "members", "disagreement")
# What the members leave to be combined is computed in this scope, by which LiteRT's converter finds it.
SCOPE = "combined"


def input_shape(ensemble: Ensemble) -> tuple[int | None, ...]:
    """The shape of the ensemble's images, [None, ...].

    Raises:
        InputError: if it is not built yet.
    """
    shape = common_input_shape(ensemble.members)
    require(shape is not None, "a built ensemble: ensemble.build((None, ...)) builds it", "one that is not")
    return tuple(shape or ())


def signature(ensemble: Ensemble) -> list[tf.TensorSpec]:
    """The only argument of every exported function: float32 `images` [batch, ...]."""
    return [tf.TensorSpec(input_shape(ensemble), tf.float32, name="images")]


def divisor(ensemble: Ensemble) -> float:
    """What bytes are divided by before members see them: 255, or 1 where members rescale bytes themselves.

    Raises:
        InputError: if some do, and others do not.
    """
    rescaling = [member.name for member in ensemble.members if takes_bytes(member)]
    require(
        len(rescaling) in (0, len(ensemble.members)),
        "uint8=True for members that all rescale bytes, or none of them",
        f"some that do: {', '.join(rescaling)}",
    )
    return 1.0 if rescaling else 255.0


def archive(ensemble: Ensemble) -> keras.export.ExportArchive:
    """Keras's archive with the members' weights, and nothing of their training."""
    made = keras.export.ExportArchive()
    for member in ensemble.members:
        made.track(member)
    return made


def outputs(ensemble: Ensemble, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """For images [B, ...]: `probabilities` [B, C], `members` [B, N, C] and `disagreement` [B].

    No constant is added or multiplied: LiteRT's float16 rounds constants.
    """
    logits = ensemble.member_logits(images)
    with tf.name_scope(SCOPE):
        # Logarithms stay finite where probabilities underflow.
        each = tf.nn.log_softmax(tf.transpose(logits, [1, 0, 2]))
        members = tf.exp(each)
        top = tf.reduce_max(each, axis=1, keepdims=True)
        mean = top + tf.math.log(tf.reduce_mean(tf.exp(each - top), axis=1, keepdims=True))
        divergence = tf.reduce_sum(members * (each - mean), axis=-1)
        return {
            "probabilities": tf.reduce_mean(members, axis=1),
            "members": members,
            "disagreement": tf.nn.relu(tf.reduce_mean(divergence, axis=1)),  # Rounding may leave -1e-9.
        }


def expected(logits: np.ndarray) -> dict[str, np.ndarray]:
    """`outputs` in NumPy and float64, from the members' logits [N, B, C]."""
    each = np.swapaxes(logits.astype("float64"), 0, 1)
    each = each - each.max(axis=-1, keepdims=True)
    each = each - np.log(np.exp(each).sum(axis=-1, keepdims=True))
    top = each.max(axis=1, keepdims=True)
    mean = top + np.log(np.exp(each - top).mean(axis=1, keepdims=True))
    members = np.exp(each)
    divergence = (members * (each - mean)).sum(axis=-1)
    values: Sequence[np.ndarray] = (members.mean(axis=1), members, divergence.mean(axis=1))
    return dict(zip(OUTPUTS, values, strict=True))
