"""Queries of the Square attack: counted as the target is asked, batch by batch, and kept."""

import importlib.util

import numpy as np
import pytest

from divtf.attacks import outside
from divtf.attacks.attack import make_attack
from divtf.attacks.threat import ThreatModel
from divtf.evaluation import query_counts
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.query_counts import queries_taken
from divtf.evaluation.trials import Standing
from divtf.storage.evaluations import QUERY
from divtf.storage.records import unpacked

pytestmark = pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="needs the extra `attacks`")

QUERIES, EPSILON, COUNT = 12, 0.12, 10


def square(epsilon=EPSILON, **params):
    return make_attack("square", ThreatModel(epsilon), **{"queries": QUERIES, "initial": 0.3} | params)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(query_counts, "_BATCH", 4)


@pytest.fixture
def world(tiny_members, rng):
    """A model, images that it classifies as labelled but for numbers 2 and 9, and their labels.

    It is sure of some, and of others not.
    """
    (model,) = tiny_members(1)
    x = rng.random((300, 6, 6, 1), dtype="float32")
    model.layers[-1].bias.assign_sub(model(x).numpy().mean(axis=0))
    logits = np.sort(model(x).numpy(), axis=1)
    x = x[np.argsort(logits[:, -1] - logits[:, -2])[::30][rng.permutation(COUNT)]]
    y = model(x).numpy().argmax(axis=1)
    y[[2, 9]] = (y[[2, 9]] + 1) % 3
    return model, x, y


@pytest.fixture
def asked(monkeypatch):
    """Every image that a target is asked for, in order."""
    images, scores_of = [], outside.scores_of

    def spied(target, shape):
        scores = scores_of(target, shape)

        def spy(x):
            images.extend(np.array(x))
            return scores(x)

        return spy

    monkeypatch.setattr(outside, "scores_of", spied)
    return images


def counted(asked, model, x, y, numbers):
    """What each image took, by the nearest clean image of all that was asked, without the clean ones."""
    asked = np.array(asked)
    distances = np.abs(asked[:, None] - x[numbers]).max(axis=(2, 3, 4))
    assert (np.sort(distances, axis=1)[:, 1] > 0.3).all(), "each is of one image"
    counts = []
    for place, number in enumerate(numbers):
        own = asked[distances.argmin(axis=1) == place]
        wrong = model(own).numpy().argmax(axis=1) != y[number]
        assert (own[0] == x[number]).all()
        counts.append(int(wrong.argmax()) if wrong.any() else QUERIES + 1)
    return counts


def test_counts_are_those_of_what_the_target_was_asked(world, asked, monkeypatch):
    """One query may be the image asked before: then the next ones' numbers are not those of new images."""
    model, x, y = world
    numbers = np.array([0, 1, 2, 3, 5, 6, 7, 9])
    found = queries_taken(AdversarialSets(model), square(), x, y, numbers)
    at_least = counted(asked, model, x, y, numbers)
    assert found[numbers.tolist().index(2)] == found[-1] == 0
    for count, least in zip(found, at_least, strict=True):
        assert (count > QUERIES) == (least > QUERIES) and count >= least
        assert (count == 1) == (least == 1)
    assert len({0, QUERIES + 1} & set(found)) == 2 and any(0 < count <= QUERIES for count in found)


def test_batches_have_seeds_of_their_first_image(world):
    model, x, y = world
    numbers = np.array([1, 2, 3, 4, 6, 8])
    scores = outside.scores_of(model, x.shape[1:])
    expected = []
    for part in (numbers[:4], numbers[4:]):
        given = {"queries": QUERIES, "initial": 0.3, "seed": int(part[0])}
        found = outside.square(lambda x: scores(x).numpy(), x[part], y[part], ThreatModel(EPSILON), **given)
        expected += found.queries.tolist()
    assert queries_taken(AdversarialSets(model), square(), x, y, numbers).tolist() == expected


def test_target_sees_images_as_they_are_stored(world, asked):
    model, x, y = world
    queries_taken(AdversarialSets(model), square(), x, y, np.arange(4), "uint8")
    levels = np.array(asked, "float64") * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def test_no_images_are_no_queries(world, asked):
    model, x, y = world
    assert queries_taken(AdversarialSets(model), square(), x, y, np.arange(0)).shape == (0,)
    assert asked == []


@pytest.fixture
def batches(monkeypatch):
    """The numbers of images of each call of the attack; it may be told to fail."""
    done, attack = [], outside.square

    def counted(scores, x, y, *args, **given):
        if len(done) == done_until[0]:
            raise KeyboardInterrupt
        done.append((len(x), given["seed"]))
        return attack(scores, x, y, *args, **given)

    done_until = [-1]
    monkeypatch.setattr(outside, "square", counted)
    return done, done_until


def test_interrupted_goes_on_with_the_next_batch(world, batches, tmp_path):
    model, x, y = world
    done, until = batches
    whole = queries_taken(AdversarialSets(model), square(), x, y, np.arange(COUNT)).tolist()
    done.clear()
    until[0] = 2
    with pytest.raises(KeyboardInterrupt):
        queries_taken(AdversarialSets(model, tmp_path), square(), x, y, np.arange(COUNT))
    until[0] = -1
    again = [queries_taken(AdversarialSets(model, tmp_path), square(), x, y, np.arange(COUNT)).tolist()] * 2
    assert again == [whole, whole]
    assert done == [(4, 0), (4, 4), (2, 8)]


def test_counts_are_kept_for_what_they_depend_on(world, batches, tmp_path, tiny_members):
    model, x, y = world
    done, _ = batches
    numbers = np.arange(3)
    other = x.copy()
    other[4] += 1e-3  # Beside what is attacked, but the set is another.
    (model_2,) = tiny_members(1, seed=5)
    asked_for = [
        (model, square(), x, y, numbers, "float32"),
        (model, square(queries=5), x, y, numbers, "float32"),
        (model, square(initial=0.2), x, y, numbers, "float32"),
        (model, square(), x, y, np.arange(2), "float32"),
        (model, square(), x, y, numbers, "uint8"),
        (model, square(), np.clip(other, 0, 1), y, numbers, "float32"),
        (model, square(), x, (y + 1) % 3, numbers, "float32"),
        (model_2, square(), x, y, numbers, "float32"),
        (model, square(0.2), x, y, numbers, "float32"),
    ]
    for _ in range(2):
        for target, *given in asked_for:
            queries_taken(AdversarialSets(target, tmp_path), *given)
    assert len(done) == len(asked_for)


@pytest.mark.parametrize("skip", [True, False])
def test_standing_asks_for_the_first_images_that_stand(world, skip):
    model, x, y = world
    standing = Standing({"A": model}, x, y, skip=skip)
    standing.by_queries({"A": AdversarialSets(model)}, square(), 7, {"A": np.zeros(COUNT, bool)})
    (result,) = standing.results["A"]
    numbers = np.array([0, 1, 3, 4, 5, 6])
    taken = queries_taken(AdversarialSets(model), square(), x, y, numbers)
    assert (result.kind, result.queries, result.gradients) == (QUERY, QUERIES, 0)
    assert result.queries_taken == tuple(taken)
    assert np.flatnonzero(unpacked(result.tried, COUNT)).tolist() == numbers.tolist()
    withstood = [*numbers[taken > QUERIES]]
    assert np.flatnonzero(unpacked(result.hits, COUNT)).tolist() == withstood
    assert 0 < len(withstood) < len(numbers)
    assert np.flatnonzero(standing.standing["A"]).tolist() == sorted([*withstood, 7, 8])


def test_standing_asks_for_the_others_that_withstand_all_else(world, batches):
    """Of the images beyond the first four, which are asked as ever; 2 and 9 are wrong when clean."""
    model, x, y = world
    done, _ = batches
    standing, left = Standing({"A": model}, x, y), np.zeros(COUNT, bool)
    left[[0, 4, 6, 7, 9]] = True
    standing.by_queries({"A": AdversarialSets(model)}, square(), 4, {"A": left})
    (result,) = standing.results["A"]
    first, others = np.array([0, 1, 3]), np.array([4, 6, 7])
    assert done == [(3, 0), (3, 4)], "no image of the first is in the others' batches"
    assert np.flatnonzero(unpacked(result.tried, COUNT)).tolist() == [*first, *others]
    taken = [queries_taken(AdversarialSets(model), square(), x, y, part) for part in (first, others)]
    assert result.queries_taken == tuple(np.concatenate(taken))
    withstood = [*first[taken[0] > QUERIES], *others[taken[1] > QUERIES]]
    assert np.flatnonzero(unpacked(result.hits, COUNT)).tolist() == withstood
    assert np.flatnonzero(standing.standing["A"]).tolist() == sorted([*withstood, 5, 8])


def test_no_other_image_is_asked_for_where_none_withstands_or_all_are_first(world, batches):
    model, x, y = world
    done, _ = batches
    for images, withstands in ((7, False), (COUNT + 5, True)):
        done.clear()
        standing = Standing({"A": model}, x, y)
        standing.by_queries(
            {"A": AdversarialSets(model)}, square(), images, {"A": np.full(COUNT, withstands)}
        )
        assert sum(count for count, _ in done) == len(standing.results["A"][0].queries_taken)
        assert done[-1][1] < images
