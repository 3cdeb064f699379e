"""Export for serving: one SavedModel that needs nothing of divtf."""

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.ensemble import Ensemble
from divtf.errors import require

_TOLERANCE = 1e-6


def export_saved_model(ensemble: Ensemble, path: str | os.PathLike) -> Path:
    """Write the ensemble as a SavedModel and check that it predicts what the ensemble does.

    Endpoints, each from float32 `images` [batch, H, W, C] with any batch size:
        serve: `probabilities` [batch, classes], the mean over the members.
        members: `probabilities` [batch, members, classes].
        disagreement: `disagreement` [batch], the mean Kullback-Leibler divergence of the members'
            distributions from their mean, in nats; 0 where all members agree.

    Args:
        ensemble: a trained ensemble.
        path: a directory that does not exist yet, or is empty.

    Returns:
        The path.

    Raises:
        InputError: if something is there already; nothing is overwritten.
        RuntimeError: if the written model predicts otherwise than the ensemble.
    """
    require(isinstance(ensemble, Ensemble), "an Ensemble", f"{ensemble!r:.80}")
    path = Path(path)
    require_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        _archive(ensemble).write_out(str(partial), verbose=False)
        _check_parity(ensemble, partial)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def require_free(path: Path) -> None:
    """Refuse a place for a SavedModel that something takes already, or where nothing can be made.

    An empty directory is free.

    Raises:
        InputError: names the path.
    """
    free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    require(free, "a new path for the SavedModel", f"{path}, which exists")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    usable = there.is_dir() and os.access(there, os.W_OK)
    require(usable, "a path for the SavedModel in a directory that can be written", f"{path}")


def _archive(ensemble: Ensemble) -> keras.export.ExportArchive:
    archive = keras.export.ExportArchive()
    archive.track(ensemble)
    signature = [tf.TensorSpec([None, *ensemble.members[0].input_shape[1:]], tf.float32, name="images")]

    def members(images):
        return {"probabilities": tf.exp(_member_log_probabilities(ensemble, images))}

    def serve(images):
        each = tf.exp(_member_log_probabilities(ensemble, images))
        return {"probabilities": tf.reduce_mean(each, axis=1)}

    def disagreement(images):
        # Logarithms stay finite where probabilities underflow.
        each = _member_log_probabilities(ensemble, images)
        mean = tf.reduce_logsumexp(each, axis=1, keepdims=True) - tf.math.log(float(each.shape[1]))
        divergence = tf.reduce_sum(tf.exp(each) * (each - mean), axis=-1)
        return {"disagreement": tf.reduce_mean(divergence, axis=1)}

    for endpoint in (serve, members, disagreement):
        archive.add_endpoint(endpoint.__name__, endpoint, input_signature=signature)
    return archive


def _member_log_probabilities(ensemble: Ensemble, images: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tf.nn.log_softmax(ensemble.member_logits(images)), [1, 0, 2])


def _check_parity(ensemble: Ensemble, path: Path) -> None:
    shape = [size or 32 for size in ensemble.members[0].input_shape[1:]]
    images = np.random.default_rng(0).random((3, *shape), dtype="float32")
    loaded = tf.saved_model.load(str(path))  # Its functions do not keep it alive.
    served = loaded.serve(tf.constant(images))["probabilities"].numpy()
    worst = float(np.abs(served - np.exp(ensemble.predict(images, verbose=0))).max())
    if not worst <= _TOLERANCE:
        raise RuntimeError(
            f"Expected the SavedModel to predict as the ensemble to {_TOLERANCE}. Received: {worst:g}"
        )
