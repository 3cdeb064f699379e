"""How suspicious an image is by its members' logits: scores by which an ensemble may refuse it (section 6).

Each is larger for what is more suspicious, and is computed twice: in NumPy and float64, to be compared with a
threshold, and in TensorFlow, for an attacker who knows it and keeps it small.
"""

import itertools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from divtf.ensembles.serving.served import expected
from divtf.networks.logits import log_mean_probability


def log_probabilities(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the members' probabilities [N, B, C] and of their mean [B, C], in float64."""
    each = logits.astype("float64")
    each = each - each.max(axis=-1, keepdims=True)
    each = each - np.log(np.exp(each).sum(axis=-1, keepdims=True))
    return each, np.logaddexp.reduce(each, axis=0) - np.log(len(each))


def disagreement(logits: np.ndarray) -> np.ndarray:
    """Mean Kullback-Leibler divergence of the members from their mean, as exported ensembles give it."""
    return expected(logits)["disagreement"]


def one_minus_confidence(logits: np.ndarray) -> np.ndarray:
    """Mean probability of all classes but the likeliest: summed, since 1 - p rounds to 0 for sure members."""
    _, mean = log_probabilities(logits)
    return np.exp(np.sort(mean, axis=-1)[:, :-1]).sum(axis=-1)


def entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy of the mean probabilities, in nats."""
    _, mean = log_probabilities(logits)
    return -(np.exp(mean) * mean).sum(axis=-1)


def pair_divergence(logits: np.ndarray) -> np.ndarray:
    """Largest Jensen-Shannon divergence of two members, in nats; 0 of a single member."""
    pairs = itertools.combinations(logits, 2)
    return np.max([np.zeros(logits.shape[1]), *(disagreement(np.stack(pair)) for pair in pairs)], axis=0)


def pair_distance(logits: np.ndarray) -> np.ndarray:
    """Largest total variation distance of two members, in [0, 1]; 0 of a single member."""
    probabilities = np.exp(log_probabilities(logits)[0])
    pairs = itertools.combinations(probabilities, 2)
    return np.max([np.zeros(logits.shape[1]), *(abs(a - b).sum(axis=-1) / 2 for a, b in pairs)], axis=0)


def top_variance(logits: np.ndarray) -> np.ndarray:
    """Variance over the members of their probability of the class that the ensemble gives."""
    each, mean = log_probabilities(logits)
    top = mean.argmax(axis=-1)[None, :, None]
    return np.take_along_axis(np.exp(each), top, axis=-1)[..., 0].var(axis=0)


def votes_against(logits: np.ndarray) -> np.ndarray:
    """Share of the members whose likeliest class is not the ensemble's: N values only, so many ties."""
    _, mean = log_probabilities(logits)
    return (logits.argmax(axis=-1) != mean.argmax(axis=-1)).mean(axis=0)


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "disagreement": disagreement,
    "one_minus_confidence": one_minus_confidence,
    "entropy": entropy,
    "pair_divergence": pair_divergence,
    "pair_distance": pair_distance,
    "top_variance": top_variance,
    "votes_against": votes_against,
}


def _tensor_disagreement(logits: tf.Tensor) -> tf.Tensor:
    each = tf.nn.log_softmax(logits)
    divergence = tf.reduce_sum(tf.exp(each) * (each - log_mean_probability(logits)), axis=-1)
    return tf.reduce_mean(divergence, axis=0)


def _tensor_one_minus_confidence(logits: tf.Tensor) -> tf.Tensor:
    mean = log_mean_probability(logits)
    is_top = tf.one_hot(tf.argmax(mean, axis=-1), mean.shape[-1], on_value=True, off_value=False)
    return tf.reduce_sum(tf.where(is_top, tf.zeros_like(mean), tf.exp(mean)), axis=-1)


def _tensor_entropy(logits: tf.Tensor) -> tf.Tensor:
    mean = log_mean_probability(logits)
    return -tf.reduce_sum(tf.exp(mean) * mean, axis=-1)


def _tensor_pair_divergence(logits: tf.Tensor) -> tf.Tensor:
    pairs = itertools.combinations(tf.unstack(logits), 2)
    return _largest([_tensor_disagreement(tf.stack(pair)) for pair in pairs], logits)


def _tensor_pair_distance(logits: tf.Tensor) -> tf.Tensor:
    pairs = itertools.combinations(tf.unstack(tf.nn.softmax(logits)), 2)
    return _largest([tf.reduce_sum(abs(a - b), axis=-1) / 2 for a, b in pairs], logits)


def _tensor_top_variance(logits: tf.Tensor) -> tf.Tensor:
    top = tf.one_hot(tf.argmax(log_mean_probability(logits), axis=-1), logits.shape[-1], dtype=logits.dtype)
    return tf.math.reduce_variance(tf.reduce_sum(tf.nn.softmax(logits) * top, axis=-1), axis=0)


def _largest(scores: list[tf.Tensor], logits: tf.Tensor) -> tf.Tensor:
    """The largest of scores [B]; 0 where there are none."""
    return tf.reduce_max(tf.stack([tf.zeros_like(logits[0, :, 0]), *scores]), axis=0)


# Of member logits [N, B, C] to scores [B]. Votes have no gradient.
DIFFERENTIABLE: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "disagreement": _tensor_disagreement,
    "one_minus_confidence": _tensor_one_minus_confidence,
    "entropy": _tensor_entropy,
    "pair_divergence": _tensor_pair_divergence,
    "pair_distance": _tensor_pair_distance,
    "top_variance": _tensor_top_variance,
}
