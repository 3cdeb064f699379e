"""The attacker who evades detection: on members where it is known who can, and how."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from divtf.attacks.attack import compose_attack
from divtf.attacks.recipe import Recipe
from divtf.attacks.threat import ThreatModel
from divtf.attacks.updates import Sign
from divtf.ensembles.serving.served import expected
from divtf.errors import InputError
from divtf.evaluation.evasion import Evading, evade, lead
from divtf.evaluation.predictions import all_member_logits, predictions
from divtf.evaluation.suspicion import DIFFERENTIABLE, SCORES
from divtf.networks.logits import as_target

THREAT = ThreatModel(0.5)
# Along the first value both members turn to class 1. Along the second one of them turns to class 2, faster.
BOTH = np.array([[0.0, 8.0, 0.0], [0.0, 0.0, 0.0]], "float32")
ONE = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 30.0]], "float32")
BIAS = np.array([2.0, 0.0, 0.0], "float32")
X = np.linspace(0, 0.1, 12, dtype="float32").reshape(6, 2)
Y = np.zeros(6, int)


def first(x):
    return x @ (BOTH + ONE) + BIAS


def second(x):
    return x @ BOTH + BIAS


MEMBERS = [first, second]


def test_who_knows_the_score_fools_unseen():
    unaware = evade(MEMBERS, X, Y, THREAT, "disagreement", 0.1, weights=(0.0,), steps=20)
    aware = evade(MEMBERS, X, Y, THREAT, "disagreement", 0.1, steps=20)
    assert unaware.fooled.all()
    assert aware.unseen.all()
    assert aware.flagged_share == 0
    assert unaware.unseen.sum() < 6
    assert unaware.flagged_share == pytest.approx(1 - unaware.unseen.sum() / 6)


@pytest.mark.parametrize("name", ["disagreement", "one_minus_confidence"])
def test_what_is_found_is_what_the_target_says(name):
    found = evade(MEMBERS, X, Y, THREAT, name, 0.05, steps=6, batch_size=4)
    assert found.images.shape == X.shape
    assert np.abs(found.images - X).max() <= 0.5 + 1e-6
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert (found.fooled == (predictions(MEMBERS, found.images) != Y)).all()
    logits = np.stack([found.images @ (BOTH + ONE) + BIAS, found.images @ BOTH + BIAS]).astype("float64")
    assert found.scores == pytest.approx(SCORES[name](logits), abs=1e-6)
    assert (found.unseen == (found.fooled & (found.scores <= 0.05))).all()
    assert found.images.std(axis=0).max() > 0.01


def test_more_weights_never_see_more():
    several = [
        evade(MEMBERS, X, Y, ThreatModel(0.25), "entropy", 0.8, weights=weights, steps=5)
        for weights in [(0.0,), (0.0, 0.1), (0.0, 0.1, 1.0, 10.0)]
    ]
    counts = [found.unseen.sum() for found in several]
    assert counts == sorted(counts)
    for fewer, more in itertools.pairwise(several):
        assert (more.scores <= fewer.scores + 1e-12)[fewer.fooled].all()


def test_a_narrow_cap_finds_what_a_wide_one_does_not():
    """Of tanh networks; a wide one is tried first, and finds no fewer by what is tried after it."""
    rng = np.random.default_rng(1)
    first = [rng.normal(size=(8, 16)).astype("float32") for _ in range(2)]
    last = [2 * rng.normal(size=(16, 3)).astype("float32") for _ in range(2)]
    members = [lambda x, a=a, b=b: tf.tanh(x @ a) @ b for a, b in zip(first, last, strict=True)]
    x = rng.random((40, 8), dtype="float32")
    y = predictions(members, x)
    unseen = []
    for caps in [(1.0,), (1.0, 0.1)]:
        found = [
            evade(members, x, y, ThreatModel(epsilon), "disagreement", 0.05, caps=caps, steps=15)
            for epsilon in (0.1, 0.2)
        ]
        unseen.append([each.unseen.sum() for each in found])
    assert (np.array(unseen[1]) >= unseen[0]).all() and sum(unseen[1]) > sum(unseen[0])


def test_who_has_no_gradients_begins_where_another_attack_fooled():
    """Rounded images have none: from the images themselves nothing moves, and what is given is kept."""
    rounding = [lambda x, member=member: member(tf.round(20 * x) / 20) for member in MEMBERS]
    start = X.copy()
    start[:3, 0] += 0.5
    alone, helped = (
        evade(rounding, X, Y, THREAT, "disagreement", 0.1, steps=5, start=each) for each in (None, start)
    )
    assert not alone.fooled.any() and helped.fooled.tolist() == [True] * 3 + [False] * 3
    np.testing.assert_array_equal(helped.images[:3], start[:3])


def test_a_start_may_round_to_just_outside_the_ball():
    """As those of attacks do: of pixels up to 255 by more than of those up to 1."""
    threat, x = ThreatModel(8.0, clip_max=255.0), np.full((1, 2), 131.1, "float32")
    start = np.nextafter(x + np.float32(8), np.float32(255))
    assert float(np.abs(start - x).max()) > 8 + 1e-6
    members = [lambda x, member=member: member(x / 255) for member in MEMBERS]
    evade(members, x, Y[:1], threat, "disagreement", 0.1, steps=1, start=start)


def test_another_start_never_finds_less():
    known = (MEMBERS, X, Y, ThreatModel(0.25), "entropy", 0.8)
    start = np.clip(X + 0.25, 0, 1)
    alone, helped = (evade(*known, weights=(1.0,), steps=2, start=each) for each in (None, start))
    assert (helped.fooled >= alone.fooled).all() and helped.fooled.sum() > alone.fooled.sum()
    assert (helped.scores <= alone.scores)[alone.fooled].all()


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (X - 0.2, r"images in \[0\.0, 1\.0\]. Received: values from -0\.2 to"),
        (X[:3], r"start of shape \(6, 2\)\. Received: \(3, 2\)"),
        (X + 0.6, r"start at most 0\.5 from x\. Received: a change of 0\.6"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start, words):
    with pytest.raises(InputError, match=words):
        evade(MEMBERS, X, Y, THREAT, "disagreement", 0.1, start=start)


def test_images_that_cannot_fool_come_closest():
    # Class 1 would need 8 x > 2, class 2 a mean probability above class 0's: 0.02 is far too little.
    x = np.zeros((2, 2), "float32")
    found = evade(MEMBERS, x, Y[:2], ThreatModel(0.02), "disagreement", 0.1, steps=5)
    assert not found.fooled.any()
    assert not found.unseen.any()
    assert np.isnan(found.flagged_share)
    before, after = (lead(all_member_logits(MEMBERS, images), Y[:2]) for images in (x, found.images))
    assert (after > before + 0.1).all()


def test_images_stay_in_the_ball_and_in_the_range():
    # In 30 steps they could go 31/8 epsilons; range and ball end them in either value.
    threat = ThreatModel(0.1, clip_min=0.05, clip_max=0.95)
    # The second is of class 2, and leaves it by more of the first value, which is nearly at its end.
    x = np.array([[0.05, 0.1], [0.94, 0.94], [0.5, 0.5]], "float32")
    y = np.array([0, 2, 2])
    found = evade(MEMBERS, x, y, threat, "disagreement", 1e-6, weights=(0.0, 1.0), steps=30)
    assert np.abs(found.images - x).max() == pytest.approx(0.1, abs=1e-6)
    assert found.images.min() >= np.float32(0.05)
    assert found.images.max() == np.float32(0.95)


def test_images_that_fool_unseen_from_the_start_stay():
    x = np.array([[1.0, 0.0]], "float32")
    found = evade(MEMBERS, x, Y[:1], ThreatModel(0.001), "disagreement", 0.1, weights=(0.0,), steps=1)
    assert found.unseen.all()
    assert found.images == pytest.approx(x, abs=0.001)


def test_the_value_climbed_by_hand(rng):
    logits, y = rng.normal(size=(3, 8, 4)), rng.integers(4, size=8)
    mean = np.log(expected(logits)["probabilities"])
    ahead = [max(np.delete(row, label)) - row[label] for row, label in zip(mean, y, strict=True)]
    assert lead(logits, y) == pytest.approx(ahead)
    found = Evading("disagreement", 0.25, 3.0, cap=0.3)(tf.constant(logits), tf.constant(y))
    by_hand = np.minimum(ahead, 0.3) - 3.0 * expected(logits)["disagreement"] / 0.25
    assert found.numpy() == pytest.approx(by_hand)
    assert 0 < (np.array(ahead) > 0.3).sum() < 8


def test_it_is_a_loss_for_any_attack():
    recipe = Recipe(update=Sign(), loss=Evading("disagreement", 0.1, 1.0), steps=20)
    images = compose_attack("evading", THREAT, recipe)(as_target(MEMBERS), X, Y).numpy()
    scores = SCORES["disagreement"](all_member_logits(MEMBERS, images))
    assert ((predictions(MEMBERS, images) != Y) & (scores <= 0.1)).all()


def test_what_does_not_fit_is_refused():
    def tried(score="disagreement", threshold=0.1, y=Y, **values):
        return evade(MEMBERS, X, y, THREAT, score, threshold, **values)

    for message, values in {
        "score as one of": {"score": "votes_against"},
        "threshold > 0": {"threshold": 0.0},
        "steps >= 1": {"steps": 0},
        "weights >= 0": {"weights": (-1.0,)},
        "as many images as labels": {"y": Y[:3]},
        r"labels in \[0, 3\)": {"y": Y + 3},
    }.items():
        with pytest.raises(InputError, match=f"Expected {message}"):
            tried(**values)
    assert set(SCORES) - set(DIFFERENTIABLE) == {"votes_against"}


@pytest.mark.parametrize("front", [tf.round, lambda x: x + tf.sqrt(0 * x)])
def test_who_has_no_gradient_to_follow_stays(front):
    """As behind rounding, or a square root at 0."""
    members = [lambda x, member=member: member(front(x)) for member in MEMBERS]
    found = evade(members, X, Y, THREAT, "disagreement", 0.1, steps=3)
    np.testing.assert_array_equal(found.images, X)
    assert not found.fooled.any()
