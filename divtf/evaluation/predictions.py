"""What a target predicts, batch by batch, on the devices that it is on."""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.attacks.threat import ThreatModel
from divtf.data.images import LazyImages, as_images, blocks, value_range
from divtf.errors import require
from divtf.networks.logits import (
    as_target,
    member_logits,
    require_labels,
    require_one_label_each,
    require_one_tensor,
)
from divtf.runtime.devices import devices_of, map_batches

_PREDICTIONS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def predictions(target, x: Any, batch_size: int = 250) -> np.ndarray:
    """Class indices [n] that the target gives the images.

    Raises:
        InputError: if its outputs are NaN, which would count as a class.
    """
    scores = outputs(target, x, batch_size)
    lost = int(np.isnan(scores).any(axis=-1).sum())
    require(lost == 0, "a target whose outputs are numbers", f"NaN for {lost} of {len(x)} images")
    return scores.argmax(axis=-1)


def outputs(target, x: Any, batch_size: int = 250) -> np.ndarray:
    """What the target gives the images, [n, C]: an Ensemble the logarithms of its mean probabilities."""
    target = as_target(target)
    devices = devices_of(target)
    if isinstance(target, keras.Model) and not devices:
        # Keras would copy what is mapped or read later into memory.
        parts = blocks(x, batch_size) if isinstance(x, LazyImages | np.memmap) else [x]
        predicted = [target.predict(part, batch_size=batch_size, verbose=0) for part in parts]
        require_one_tensor(predicted[0])
        return np.concatenate(predicted)
    batches = ((tf.constant(block),) for block in blocks(x, batch_size))
    # Keras would split each batch over the devices, and sums may depend on how much is summed at once.
    outputs = map_batches(_prediction(target, x.shape[1:]) if devices else target, batches, devices)
    return np.concatenate([np.asarray(output) for output in outputs])


def all_member_logits(target, x: Any, batch_size: int = 250) -> np.ndarray:
    """Logits of every member for all images, [N, n, C]; a callable counts as its only member."""
    target = as_target(target)
    parts = (member_logits(target, tf.constant(block)) for block in blocks(as_images(x), batch_size))
    return np.concatenate([part.numpy() for part in parts], axis=1)


def require_fitting(target, x: Any, y: np.ndarray, threat: ThreatModel) -> None:
    """Hold images [n, ...] to the threat model's range, and labels [n] to them and the target's classes.

    Raises:
        InputError: says what does not fit.
    """
    require_one_label_each(x, y)
    threat.require_in_range(*value_range(x))
    require_labels(y, all_member_logits(target, x[:1]).shape[-1])


def _prediction(model: keras.Model, image_shape: tuple[int, ...]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model's prediction as one graph, traced once: it is asked for after every attack."""
    if model not in _PREDICTIONS:
        reference: Any = weakref.ref(model)  # The cache must not keep the model alive.
        signature = [tf.TensorSpec([None, *image_shape], tf.float32)]
        traced = tf.function(
            lambda x: reference()(x, training=False), input_signature=signature, autograph=False
        )
        _PREDICTIONS[model] = traced.get_concrete_function()
    return _PREDICTIONS[model]
