"""Scores of suspicion: closed forms, SciPy, and TensorFlow's twins with their gradients."""

import itertools
import math

import numpy as np
import pytest
import reference
import scipy.spatial.distance
import scipy.stats
import tensorflow as tf

from divtf.ensembles.serving.served import expected
from divtf.evaluation.suspicion import DIFFERENTIABLE, SCORES

# Two members, each sure of a class of its own; exp(-800) is 0 in float64.
OPPOSED = np.array([[[800.0, 0.0, 0.0]], [[0.0, 800.0, 0.0]]])
AGREED = np.repeat([[[1.0, 2.0, 0.5], [0.0, 0.0, -1.0]]], 3, axis=0)


def by_hand(logits):
    """The scores of one image, from its members' probabilities [N, C], by SciPy and loops."""
    probabilities = reference.softmax(logits)
    mean = probabilities.mean(axis=0)
    pairs = list(itertools.combinations(probabilities, 2))
    top = int(mean.argmax())
    of_top = [member[top] for member in probabilities]
    return {
        "disagreement": np.mean([scipy.stats.entropy(member, mean) for member in probabilities]),
        "one_minus_confidence": 1 - max(mean),
        "entropy": scipy.stats.entropy(mean),
        "pair_divergence": max(scipy.spatial.distance.jensenshannon(*pair) ** 2 for pair in pairs),
        "pair_distance": max(
            p[event].sum() - q[event].sum() for p, q in pairs for event in events(len(mean))
        ),
        "top_variance": sum((p - sum(of_top) / len(of_top)) ** 2 for p in of_top) / len(of_top),
        "votes_against": sum(int(member.argmax()) != top for member in probabilities) / len(probabilities),
    }


def events(count):
    """All events: total variation is the largest difference of two measures of one."""
    return [list(s) for size in range(1, count) for s in itertools.combinations(range(count), size)]


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_scipys(name, rng):
    logits = 2 * rng.normal(size=(4, 20, 5))
    found = SCORES[name](logits.astype("float64"))
    assert found == pytest.approx([by_hand(logits[:, i])[name] for i in range(20)], abs=1e-12)
    assert len(set(found.round(6))) >= 3


def test_members_who_agree_are_not_suspicious_for_it():
    for name in ("disagreement", "pair_divergence", "pair_distance", "top_variance", "votes_against"):
        assert SCORES[name](AGREED) == pytest.approx([0, 0], abs=1e-15), name


def test_two_members_sure_of_different_classes():
    # The mean is (1/2, 1/2, 0): log 2 nats of it, and of the divergence of either member from it.
    found = {name: float(score(OPPOSED)[0]) for name, score in SCORES.items()}
    assert found == pytest.approx(
        {
            **{"disagreement": math.log(2), "entropy": math.log(2), "pair_divergence": math.log(2)},
            **{"one_minus_confidence": 0.5, "pair_distance": 1.0, "top_variance": 0.25, "votes_against": 0.5},
        }
    )


def test_a_single_member_disagrees_with_nobody(rng):
    logits = rng.normal(size=(1, 6, 3))
    for name in set(SCORES) - {"one_minus_confidence", "entropy"}:
        assert SCORES[name](logits) == pytest.approx(np.zeros(6), abs=1e-15), name


def test_sure_members_differ_in_how_sure_they_are():
    # Beyond p = 1 - 1e-16 the difference from 1 would be 0: it is 2 exp(-margin) / (1 + 2 exp(-margin)).
    logits = np.array([[[60.0, 0, 0], [80.0, 0, 0]]] * 2)
    assert SCORES["one_minus_confidence"](logits) == pytest.approx([2 * math.exp(-60), 2 * math.exp(-80)])


def test_disagreement_is_what_exported_ensembles_give(rng):
    logits = rng.normal(size=(3, 5, 4))
    assert (SCORES["disagreement"](logits) == expected(logits)["disagreement"]).all()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_tensorflows_twin_and_its_gradient(name, rng):
    logits = 1.5 * rng.normal(size=(3, 4, 5))
    values = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(values)
        found = tf.function(DIFFERENTIABLE[name])(values)
    assert found.numpy() == pytest.approx(SCORES[name](logits), rel=1e-9)
    moved = logits.copy()
    slopes = reference.numeric_gradient(lambda: SCORES[name](moved).sum(), moved)
    assert tape.gradient(found, values).numpy() == pytest.approx(slopes, abs=1e-8)
    assert np.abs(slopes).max() > 1e-3


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_stay_finite_where_members_are_sure(name):
    values = tf.constant(OPPOSED, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(values)
        found = DIFFERENTIABLE[name](values)
    assert np.isfinite(tape.gradient(found, values).numpy()).all()
    assert found.numpy() == pytest.approx(SCORES[name](OPPOSED), rel=1e-5)
