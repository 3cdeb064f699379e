"""The attacks of today against NumPy twins written from their papers, given the same random numbers."""

import dataclasses

import attack_reference as twin
import numpy as np
import pytest
import scipy.special
from attacked import (
    CLASSES,
    EPSILON,
    SEED,
    Draws,
    agree,
    conv_members,
    images_and_labels,
    linear_ensemble,
    tape_gradient,
)

from divtf import CrossEntropy
from divtf.attacks.attack import compose_attack, make_attack
from divtf.attacks.losses import LOSSES, Towards
from divtf.attacks.methods import ATTACKS
from divtf.attacks.pieces import DiverseInputs, Neighbourhood
from divtf.attacks.recipe import Recipe
from divtf.attacks.threat import ThreatModel
from divtf.attacks.updates import VarianceTuning
from divtf.ensembles.ensemble import Ensemble

# Other values than the defaults where these would take long, or change little on images of 6 x 6.
PARAMS = {
    "dim": {"smallest": 0.5, "probability": 0.7},
    "tim": {"kernel": 3},
    "sim": {"scales": 3, "decay": 0.8},
    "mi_di_ti_si": {"kernel": 3, "scales": 2, "smallest": 0.5},
    "admix": {"others": 2, "scales": 2, "strength": 0.3},
    "vmi": {"neighbours": 3, "decay": 0.9},
    "pgn": {"samples": 2, "balance": 0.4},
    "ssa": {"copies": 2},
    "cwa": {},
    "cse": {"decay": 0.7},
}


def climbed(name, gradient, each, climb, y, steps, *, pool=None):
    """The twin of the attack, its parameters those of PARAMS."""
    alpha = climb.epsilon * min(1.0, (2 if name in ("cwa", "cse") else 1) / steps)
    draws = Draws.of(range(len(climb.images)))

    def plain(x, draws):
        return gradient(x)

    def pieces():
        if name == "dim":
            return twin.diverse(plain, 0.5, 0.7)
        if name == "tim":
            return twin.smoothed(plain, 3)
        if name == "sim":
            return twin.scaled(plain, 3)
        if name == "mi_di_ti_si":
            return twin.smoothed(twin.scaled(twin.diverse(plain, 0.5), 2), 3)
        if name == "admix":
            return twin.mixed(twin.scaled(plain, 2), y, *pool, others=2, strength=0.3)
        if name == "pgn":
            return twin.flat_around(plain, climb.epsilon, alpha, samples=2, balance=0.4)
        return twin.spectral(plain, climb.epsilon, copies=2)

    if name == "vmi":
        return twin.variance_tuned(plain, climb, draws, steps, alpha, neighbours=3, decay=0.9)
    if name in ("cwa", "cse"):
        each = [lambda x, draws, one=one: one(x) for one in each]
        own = {"inner": 10.0, "reverse": 1 / 15} if name == "cwa" else {"inner": 2.0, "decay": 0.7}
        return twin.member_by_member(plain, each, climb, draws, steps, alpha, **own)
    own = {"nesterov": True, "decay": 0.8} if name == "sim" else {}
    return twin.momentum(pieces(), climb, draws, steps, alpha, **own)


@pytest.fixture(name="curved", scope="module")
def fixture_curved():
    """An Ensemble of curved members, and the same members in float64."""
    return Ensemble(conv_members(2), CrossEntropy()), conv_members(2, "float64")


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", PARAMS)
def test_attack_equals_its_paper_s_on_curved_members(name, steps, curved):
    ensemble, wide = curved
    x, y = images_and_labels(4)
    expected = climbed(
        name,
        tape_gradient(wide, y),
        [tape_gradient([member], y) for member in wide],
        twin.Climb(x, EPSILON),
        y,
        steps,
        pool=(x, y),
    )
    attack = make_attack(name, ThreatModel(EPSILON), steps=steps, **PARAMS[name])
    agree(attack(ensemble, x, y, seed=SEED), expected)


def wrong_value(value):
    """Another one that the field may have."""
    if isinstance(value, bool):
        return not value
    return value + 2 if value >= 1 else value / 2 or 0.5


def mutations():
    """An attack's name, what is wrong, and the recipe made wrong so."""
    for name, values in PARAMS.items():
        right = ATTACKS[name].replace(values | {"steps": 3})
        yield name, "descends", dataclasses.replace(right, loss=Towards(right.loss))
        for place, piece in enumerate(right.pieces):
            others = right.pieces[:place] + right.pieces[place + 1 :]
            yield name, f"without {type(piece).__name__}", dataclasses.replace(right, pieces=others)
        for part in (*right.pieces, right.update):
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                wrong = wrong_value(value)
                yield name, f"{field.name} {wrong:.3g} for {value:.3g}", right.replace({field.name: wrong})


@pytest.mark.parametrize(("name", "wrong", "recipe"), list(mutations()))
def test_an_attack_that_is_made_wrong_is_not_its_paper_s(name, wrong, recipe, curved):
    """So that the tests around can fail: a piece left out, a sign, a momentum that is none."""
    ensemble, wide = curved
    x, y = images_and_labels(4)
    each = [tape_gradient([member], y) for member in wide]
    expected = climbed(name, tape_gradient(wide, y), each, twin.Climb(x, EPSILON), y, 3, pool=(x, y))
    found = compose_attack(name, ThreatModel(EPSILON), recipe)(ensemble, x, y, seed=SEED)
    with pytest.raises(AssertionError):
        agree(found, expected)


@pytest.mark.parametrize("name", PARAMS)
def test_attack_equals_its_paper_s_on_linear_members(name):
    """With closed forms; images are sure of their labels, some far more than others."""
    biases = np.zeros((2, CLASSES), "float32")
    biases[:, 0] = 8.0
    ensemble, closed = linear_ensemble(2, scale=6.0, biases=biases)
    x, y = images_and_labels(4)[0], np.array([0, 0, 1, 2])
    alone = [twin.LinearMembers(closed.weights[n : n + 1], closed.biases[n : n + 1]) for n in range(2)]
    expected = climbed(
        name,
        lambda images: closed.cross_entropy_gradient(images, y),
        [lambda images, one=one: one.cross_entropy_gradient(images, y) for one in alone],
        twin.Climb(x, EPSILON),
        y,
        2,
        pool=(x, y),
    )
    attack = make_attack(name, ThreatModel(EPSILON), steps=2, **PARAMS[name])
    agree(attack(ensemble, x, y, seed=SEED), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_restarts_of_every_loss_keep_the_best_start_of_each_image(loss, curved):
    ensemble, wide = curved
    x, y = images_and_labels()
    climbs, values = [], []
    for restart in range(3):
        begun = Draws.of(range(len(x))).fold(restart)
        climb = twin.Climb(x, 0.3)
        climb.move(begun.fold(0).uniform(x.shape[1:], -0.3, 0.3))
        gradient = tape_gradient(wide, y, loss)
        twin.sign_steps(lambda at, _, gradient=gradient: gradient(at), climb, begun.fold(1), 2, 0.15, True)
        climbs.append(climb)
        mean = scipy.special.softmax([member(climb.images) for member in wide], axis=-1).mean(axis=0)
        true = np.eye(CLASSES, dtype=bool)[y]
        values.append(np.log(np.where(true, 0, mean).max(axis=1)) - np.log(mean[true]))
    assert len(set(np.argmax(values, axis=0))) > 1, "no start is best for all"
    attack = make_attack("pgd", ThreatModel(0.3), loss=loss, steps=2, step=0.5, restarts=3)
    agree(attack(ensemble, x, y, seed=SEED), twin.best_of_starts(climbs, values))


def test_pieces_and_updates_of_one_s_choice_go_together(curved):
    """Neighbours of shrunk images, from a random start, and variance: two parts have a `reach`."""
    ensemble, wide = curved
    x, y = images_and_labels(3)
    gradient = tape_gradient(wide, y, "mean_logit")
    diverse = twin.diverse(lambda at, _: gradient(at), 0.5)
    around = twin.flat_around(diverse, EPSILON, EPSILON / 2, samples=2, reach=1.0)
    begun = Draws.of(range(len(x))).fold(0)
    climb = twin.Climb(x, EPSILON)
    climb.move(begun.fold(0).uniform(x.shape[1:], -EPSILON, EPSILON))
    twin.variance_tuned(around, climb, begun.fold(1), 2, EPSILON / 2, neighbours=2, reach=2.0)
    recipe = Recipe(
        (Neighbourhood(samples=2, reach=1.0), DiverseInputs(smallest=0.5)),
        VarianceTuning(neighbours=2, reach=2.0),
        "mean_logit",
        steps=2,
        random_start=True,
    )
    attack = compose_attack("own", ThreatModel(EPSILON), recipe)
    agree(attack(ensemble, x, y, seed=SEED), climb)
    described = attack.describe()["params"]["parts"]
    assert "reach=1.0" in described[0] and "reach=2.0" in described[2]
