"""Attacks in turn: what stands is the same whether images that fooled every target are left out or not."""

import itertools

import numpy as np
import pytest
import reference
import tensorflow as tf

from divtf.attacks.attack import Attack, make_attack, towards
from divtf.attacks.threat import ThreatModel
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.trials import Attempt, Standing, draws
from divtf.networks.logits import MemberList
from divtf.storage.evaluations import TRANSFER, WHITE_BOX
from divtf.storage.records import unpacked

COUNT, EPSILON = 40, 0.06


def attempt(name, versions=1, **params):
    return Attempt(make_attack(name, ThreatModel(EPSILON), **params), versions)


ON_SURROGATES = [attempt("fgsm"), attempt("pgd", 2, steps=4), attempt("dim", steps=4), attempt("mifgsm")]
ON_TARGETS = [attempt("pgd", 2, steps=2, step=0.2), attempt("mifgsm")]


class World:
    """Two targets and two surrogates of two members, of arrays; images that most targets are right on."""

    def __init__(self):
        rng = np.random.default_rng(20190128)
        self.weights = {name: weights(rng) for name in ("A", "B")}
        near = {
            f"near {name}": [w + rng.normal(0, 0.2, w.shape) for w in self.weights[name]] for name in "AB"
        }
        self.targets = {name: ensemble_of(self.weights[name]) for name in self.weights}
        self.surrogates = {name: ensemble_of(near[name]) for name in near}
        x = rng.random((400, 6, 6, 1), dtype="float32")
        a, b = self.classes("A", x), self.classes("B", x)
        # Both right, of which 4 are made wrong, then either.
        places = [np.flatnonzero(a == b)[:24], np.flatnonzero(a != b)[:16]]
        self.x, self.y = x[np.concatenate(places)], np.concatenate([a[place] for place in places])
        self.y[20:24] = (self.y[20:24] + 1) % 3
        self.y[32:] = b[places[1]][8:]

    def classes(self, name, x):
        """By the mean of the members' probabilities."""
        first, second = self.weights[name]
        hidden = np.tanh(np.einsum("bp,mph->mbh", np.reshape(x, (len(x), -1)).astype("float64") - 0.5, first))
        return reference.softmax(np.einsum("mbh,mhc->mbc", hidden, second)).mean(axis=0).argmax(axis=-1)

    def standing(self, **options):
        return Standing(self.targets, self.x, options.pop("y", self.y), **options)

    def sets(self, models):
        return {name: AdversarialSets(model, batch_size=7) for name, model in models.items()}


def weights(rng):
    """Of two members with a hidden layer, [2][36, 8] and [2][8, 3]."""
    return rng.normal(0, 0.5, (2, 36, 8)), rng.normal(0, 1, (2, 8, 3))


def ensemble_of(arrays):
    def member(number):
        first, second = (tf.constant(array[number], tf.float32) for array in arrays)
        return lambda x: tf.tanh((tf.reshape(x, [-1, 36]) - 0.5) @ first) @ second

    return MemberList([member(0), member(1)])


@pytest.fixture(scope="module")
def world():
    return World()


def seen_of(images, stored_as):
    return images if stored_as == "float32" else np.float32(np.rint(images * np.float64(255)) / 255)


def tried(result):
    return np.flatnonzero(unpacked(result.tried, COUNT))


def hits(result):
    return np.flatnonzero(unpacked(result.hits, COUNT))


def left(standing):
    return {name: np.flatnonzero(stands).tolist() for name, stands in standing.items()}


@pytest.mark.parametrize("rank", [1, 2])
def test_an_attack_of_a_rank_leads_to_the_wrong_class_of_that_rank(world, rank):
    """By the clean image's probabilities; it fools where the image is no more what it is labelled as."""
    aimed = Attempt(
        towards(make_attack("pgd", ThreatModel(0.2), loss="mean_probability"), "aimed"), rank=rank
    )
    standing = world.standing()
    standing.by_gradients(world.sets(world.targets), [aimed])
    for name, target in world.targets.items():
        (result,) = standing.results[name]
        assert (result.attack, result.settings["loss"]) == ("aimed", "towards mean_probability")
        scores = target(tf.constant(world.x)).numpy()
        classes = np.array(
            [sorted(set(range(3)) - {y}, key=lambda c: -s[c]) for s, y in zip(scores, world.y, strict=True)]
        )
        given, seed = classes[:, rank - 1], draws(aimed.attack, 0)
        x_adv = aimed.attack(target, world.x, given, seed=seed).numpy()
        stand = (world.classes(name, world.x) == world.y) & (world.classes(name, x_adv) == world.y)
        assert left(standing.standing)[name] == np.flatnonzero(stand).tolist()
        reached = world.classes(name, x_adv)[tried(result)] == given[tried(result)]
        assert reached.mean() > (0.9, 0.4)[rank - 1], "else it leads elsewhere"


@pytest.mark.parametrize("stored_as", ["float32", "uint8"])
@pytest.mark.parametrize("kind", [TRANSFER, WHITE_BOX])
def test_what_stands_is_that_of_all_attacks_on_all_images(world, kind, stored_as):
    """With images left out or not; and by attacks on all images, with predictions of our own."""
    transfer = kind == TRANSFER
    models, attempts = (world.surrogates, ON_SURROGATES) if transfer else (world.targets, ON_TARGETS)
    found = {}
    for skip in (True, False):
        found[skip] = world.standing(stored_as=stored_as, skip=skip)
        attack = found[skip].by_transfer if transfer else found[skip].by_gradients
        attack(world.sets(models), attempts)
    expected = {name: world.classes(name, world.x) == world.y for name in world.targets}
    before = left(expected)
    for of, model in models.items():
        for each in attempts:
            for version in range(each.versions):
                seed = draws(each.attack, version)
                x_adv, _ = AdversarialSets(model).images(each.attack, world.x, world.y, seed=seed)
                for name in world.targets if transfer else [of]:
                    expected[name] &= world.classes(name, seen_of(x_adv, stored_as)) == world.y
    assert left(found[True].standing) == left(found[False].standing) == left(expected)
    assert all(0 < len(left(expected)[name]) < len(before[name]) for name in before)
    for name in world.targets:
        whole, part = (sum(len(tried(r)) for r in found[skip].results[name]) for skip in (False, True))
        assert part < (whole if transfer else 0.8 * whole), "images are left out"


def test_results_are_in_the_order_of_the_attacks(world):
    standing = world.standing()
    standing.by_transfer(world.sets(world.surrogates), ON_SURROGATES)
    standing.by_gradients(world.sets(world.targets), ON_TARGETS)
    versions = [("fgsm", 0), ("pgd", 0), ("pgd", 1), ("dim", 0), ("mifgsm", 0)]
    expected = []
    for attack in ("fgsm", "pgd", "dim", "mifgsm"):
        for surrogate in world.surrogates:
            expected += [(TRANSFER, surrogate, *of) for of in versions if of[0] == attack]
    expected += [(WHITE_BOX, "", *of) for of in [("pgd", 0), ("pgd", 1), ("mifgsm", 0)]]
    for results in standing.results.values():
        assert [(r.kind, r.surrogate, r.attack, r.version) for r in results] == expected
        for result in results:
            of = next(e.attack for e in ON_SURROGATES + ON_TARGETS if _is(e.attack, result))
            assert (result.epsilon, result.gradients, result.queries) == (EPSILON, of.gradients, 0)
            assert set(hits(result)) <= set(tried(result))


def _is(attack, result):
    return (attack.name, attack.method.params) == (result.attack, result.settings)


@pytest.mark.parametrize("surrogate", ["near A", "near B"])
def test_a_surrogate_attacks_the_images_that_stand_under_it_for_any_target(world, surrogate):
    standing = world.standing()
    standing.by_transfer(world.sets(world.surrogates), ON_SURROGATES)
    expected = {name: world.classes(name, world.x) == world.y for name in world.targets}
    for each in ON_SURROGATES:
        attacked = np.flatnonzero(expected["A"] | expected["B"])
        for name, results in standing.results.items():
            of_attack = [r for r in results if (r.attack, r.surrogate) == (each.attack.name, surrogate)]
            assert len(of_attack) == each.versions
            assert all(tried(result).tolist() == attacked.tolist() for result in of_attack)
            for result in of_attack:
                expected[name][np.setdiff1d(attacked, hits(result))] = False


def test_what_stands_under_a_surrogate_is_that_of_all_its_attacks_on_all_images(world):
    """At a budget where images that fooled both targets from one surrogate would fool from the other, too."""
    attempts = [Attempt(make_attack(name, ThreatModel(0.3))) for name in ("fgsm", "mifgsm")]
    fooled = {}
    for skip in (True, False):
        standing = world.standing(skip=skip)
        standing.by_transfer(world.sets(world.surrogates), attempts)
        for (name, results), surrogate in itertools.product(standing.results.items(), world.surrogates):
            right = world.classes(name, world.x) == world.y
            of_surrogate = [result for result in results if result.surrogate == surrogate]
            moved = np.concatenate([np.setdiff1d(tried(r), hits(r)) for r in of_surrogate])
            fooled[skip, name, surrogate] = {number for number in moved if right[number]}
    for name, surrogate in itertools.product(world.targets, world.surrogates):
        assert fooled[True, name, surrogate] == fooled[False, name, surrogate] != set()


def test_white_box_attacks_a_targets_own_standing_images(world):
    standing = world.standing()
    standing.by_gradients(world.sets(world.targets), ON_TARGETS)
    first = {}
    for name, results in standing.results.items():
        stands = np.flatnonzero(world.classes(name, world.x) == world.y)
        first[name] = stands.tolist()
        for result in results:
            assert tried(result).tolist() == stands.tolist()
            stands = hits(result)
    assert first["A"] != first["B"]


@pytest.mark.parametrize("attack", ["pgd", "dim", "mi_di_ti_si", "admix", "vmi", "cse"])
def test_an_image_is_attacked_the_same_in_any_company(world, attack):
    sets, made = world.sets(world.surrogates)["near A"], make_attack(attack, ThreatModel(EPSILON))
    whole, _ = sets.images(made, world.x, world.y)
    for numbers in ([3], [0, 8, 9, 39], list(range(5, 25))):
        part, _ = sets.images(made, world.x, world.y, numbers=np.array(numbers))
        np.testing.assert_allclose(part, whole[numbers], atol=1e-6)
    assert np.abs(whole[3] - world.x[3]).max() == pytest.approx(EPSILON, abs=1e-6)


def test_versions_draw_otherwise(world, monkeypatch):
    made, images = [], AdversarialSets.images

    def spied(*args, **kwargs):
        made.append(images(*args, **kwargs)[0])
        return made[-1], ""

    monkeypatch.setattr(AdversarialSets, "images", spied)
    attempts = [attempt("pgd", 3, steps=1, step=0.1)]
    world.standing(skip=False).by_transfer(world.sets(world.surrogates), attempts)
    world.standing(skip=False).by_gradients(world.sets(world.targets), attempts)
    assert len(made) == 3 * 2 * 2
    assert len({images.tobytes() for images in made}) == len(made)


def test_attacks_begin_at_places_of_their_own():
    """Two that differ in their loss alone would else try the same starts, and those of each version again."""
    one, other = (make_attack("pgd", ThreatModel(EPSILON), loss=loss) for loss in ("margin", "mean_logit"))
    assert draws(one, 0) == draws(make_attack("pgd", ThreatModel(EPSILON), loss="margin"), 0)
    seeds = {draws(attack, version) for attack in (one, other) for version in range(3)}
    assert len(seeds) == 6 and all(0 <= seed < 2**31 for seed in seeds)


def test_nothing_left_to_attack_is_no_attack(world, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("attacked")

    monkeypatch.setattr(Attack, "on_batches", fail)
    monkeypatch.setattr("divtf.attacks.outside.square", fail)
    right = {name: world.classes(name, world.x) for name in world.targets}
    wrong = np.array([min({0, 1, 2} - {a, b}) for a, b in zip(*right.values(), strict=True)])
    standing = world.standing(y=wrong)
    standing.by_transfer(world.sets(world.surrogates), ON_SURROGATES)
    standing.by_gradients(world.sets(world.targets), ON_TARGETS)
    for results in standing.results.values():
        assert len(results) == 10 + 3
        assert {(len(tried(r)), len(hits(r)), r.adversarial_set) for r in results} == {(0, 0, "")}
    with pytest.raises(AssertionError, match="attacked"):
        world.standing(y=wrong, skip=False).by_transfer(world.sets(world.surrogates), ON_SURROGATES)
