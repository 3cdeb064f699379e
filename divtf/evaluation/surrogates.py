"""What tells a surrogate whole, and whether attacks find a gradient in it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.data.images import images_digest
from divtf.errors import is_number, require
from divtf.networks.logits import aligned_loss, member_logits, true_class_margin
from divtf.runtime.logs import get_logger
from divtf.storage.digests import array_digest, digest
from divtf.storage.records import is_weak

_LOG = get_logger(__name__)


def settings(surrogate: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an Ensemble tells by itself, its objective and number of members, and what is given; JSON values.

    Raises:
        InputError: if what is given are no names of texts and numbers.
    """
    given = {} if given is None else given
    fits = isinstance(given, Mapping) and all(
        isinstance(name, str) and (isinstance(value, str | bool | None) or is_number(value))
        for name, value in given.items()
    )
    require(fits, "surrogate settings as names with texts or finite numbers", f"{given!r:.80}")
    told = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    return _own(surrogate) | told


def _own(surrogate: Any) -> dict[str, Any]:
    members = getattr(surrogate, "members", None)
    objective = getattr(surrogate, "objective", None)
    return {
        **({"members": len(members)} if members else {}),
        **({"objective": _words(objective)} if objective is not None else {}),
    }


def _words(objective: Any) -> str:
    """An objective in words, as "GradientAlignment, weight 0.5": its class, and its settings but zeros."""
    config = objective.get_config() if hasattr(objective, "get_config") else {}
    parts = [f"{name.replace('_', ' ')} {value}" for name, value in config.items() if value]
    return ", ".join([type(objective).__name__, *parts])


def images_and_labels_digest(x: Any, y: np.ndarray) -> str:
    """A short name of images, an array or `LazyImages`, with their labels."""
    return digest([images_digest(x), array_digest(y)])


def without_gradient(surrogate: Any, x: np.ndarray, y: np.ndarray) -> int:
    """At how many images [b, ...] the surrogate's loss has no finite gradient but zero: attacks are blind.

    A random start moves such images too, so that an attack's own images need not show it.

    Raises:
        InputError: if TensorFlow cannot differentiate it.
    """
    images = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = member_logits(surrogate, images)
        labels = tf.broadcast_to(y[: len(x)], tf.shape(logits)[:-1])
        loss = tf.reduce_sum(aligned_loss(true_class_margin(logits, labels), axis=0))
    gradient = tape.gradient(loss, images)
    received = "one without a gradient, as rounding and stop_gradient make it"
    require(gradient is not None, "a surrogate that TensorFlow can differentiate", received)
    flat = gradient.numpy().reshape(len(x), -1)
    return int(((flat == 0).all(axis=1) | ~np.isfinite(flat).all(axis=1)).sum())


def warn_of_weak(clean_accuracy: float, targets: Mapping[str, np.ndarray]) -> None:
    """Warn of surrogates that get far more images wrong than a target does.

    Args:
        clean_accuracy: of the best surrogate, in [0, 1].
        targets: for each, by name, whether it classifies each clean image as labelled: bool [n].
    """
    for name, hits in targets.items():
        if is_weak(clean_accuracy, float(hits.mean())):
            _LOG.warning(
                f"the surrogate is right on {100 * clean_accuracy:.1f} % of the images and {name} on "
                f"{100 * hits.mean():.1f} %: a weak attacker, under which accuracy says little"
            )
