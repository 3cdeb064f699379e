"""The paper's attacks against NumPy twins, and what guards the inputs and results of all."""

import dataclasses
import gc
import importlib.util
import json
import math
import weakref

import attack_reference
import keras
import numpy as np
import pytest
import tensorflow as tf
from attacked import (
    CLASSES,
    EPSILON,
    SEED,
    SHAPE,
    Draws,
    agree,
    conv_members,
    images_and_labels,
    linear_ensemble,
    plain_losses,
    quick_attack,
    random_start,
    tape_gradient,
)
from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
from keras import layers

from divtf import CrossEntropy, TransferResult, evaluate_transfer
from divtf.attacks import losses, pieces, updates
from divtf.attacks.attack import compose_attack, make_attack
from divtf.attacks.methods import ATTACKS
from divtf.attacks.names import NAMES, ON_SURROGATES
from divtf.attacks.recipe import Recipe
from divtf.attacks.threat import ThreatModel
from divtf.data import paper
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError, require

# What the attacks compute.


# Those of today have their twins in `test_twins.py`.
PLAIN = attack_reference.ATTACKS


def mean_loss(name, closed, x, y):
    of_members = closed.hinges if name == "pgd_cw" else closed.cross_entropies
    return of_members(np.asarray(x), y).mean(axis=0)


def loss_of(name):
    return "margin" if name == "pgd_cw" else "cross_entropy"


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", PLAIN)
def test_attack_equals_the_closed_form_on_linear_members(name, count):
    ensemble, closed = linear_ensemble(count)
    x, y = images_and_labels()
    gradient = closed.hinge_gradient if name == "pgd_cw" else closed.cross_entropy_gradient
    twin = attack_reference.ATTACKS[name](
        lambda images: gradient(images, y),
        attack_reference.Climb(x, EPSILON),
        random_start(x.shape, EPSILON),
    )
    agree(make_attack(name, ThreatModel(EPSILON))(ensemble, x, y, seed=SEED), twin)


@pytest.mark.parametrize("name", PLAIN)
def test_attack_equals_the_equations_on_curved_members(name):
    x, y = images_and_labels()
    wide = conv_members(2, "float64")
    twin = attack_reference.ATTACKS[name](
        tape_gradient(wide, y, loss_of(name)),
        attack_reference.Climb(x, EPSILON),
        random_start(x.shape, EPSILON),
    )
    ensemble = Ensemble(conv_members(2), CrossEntropy())
    agree(make_attack(name, ThreatModel(EPSILON))(ensemble, x, y, seed=SEED), twin)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ifgsm", {"steps": 3}),
        ("mifgsm", {"steps": 4, "decay": 0.5}),
        ("pgd_cw", {"steps": 5, "step": 0.3}),
        ("pgd", {"steps": 4, "step": 0.4}),
    ],
)
def test_parameters_change_what_they_name(name, params):
    x, y = images_and_labels()
    twin = attack_reference.ATTACKS[name](
        tape_gradient(conv_members(2, "float64"), y, loss_of(name)),
        attack_reference.Climb(x, EPSILON),
        random_start(x.shape, EPSILON),
        **params,
    )
    attack = make_attack(name, ThreatModel(EPSILON), **params)
    agree(attack(Ensemble(conv_members(2), CrossEntropy()), x, y, seed=SEED), twin)
    assert attack.describe()["params"].items() >= params.items()


# The loops, against those of CleverHans: the same to the last bit where no member is saturated, though the
# gradients' sizes are others: a step is their sign.


@pytest.fixture(name="curved")
def fixture_curved():
    """An Ensemble, its logits by image, images, labels, and each label once for every member."""
    x, y = images_and_labels(20)
    ensemble = Ensemble(conv_members(3), CrossEntropy())

    def logits(images):
        return tf.transpose(ensemble.member_logits(images), [1, 0, 2])

    return ensemble, logits, x, y, tf.repeat(tf.constant(y)[:, None], 3, axis=1)


def lead_up_to_fifty(labels, logits):
    others = tf.reduce_max(logits - 1e9 * tf.one_hot(labels, CLASSES), axis=-1)
    return tf.minimum(others - tf.gather(logits, labels, batch_dims=2), 50.0)


@pytest.mark.parametrize("epsilon", [0.03, 0.3])
@pytest.mark.parametrize(
    ("recipe", "loss"),
    [
        (ATTACKS["fgsm"], None),
        (ATTACKS["ifgsm"].replace({"steps": 5}), None),
        (Recipe(update=updates.Sign(), loss=losses.Margin(50.0), steps=5, step=0.2), lead_up_to_fifty),
    ],
)
def test_loop_equals_cleverhans_s_projected_gradient_descent(recipe, loss, epsilon, curved):
    """Random starts are CleverHans's own, and compared with the twins alone."""
    ensemble, logits, x, y, labels = curved
    size = epsilon / recipe.steps
    expected = projected_gradient_descent(
        logits, x, epsilon, size, recipe.steps, np.inf, loss, clip_min=0.0, clip_max=1.0, y=labels
    )
    x_adv = compose_attack("loop", ThreatModel(epsilon), recipe)(ensemble, x, y)
    np.testing.assert_array_equal(x_adv, expected)
    assert np.abs(x_adv - x).max() > epsilon / 2


@pytest.mark.parametrize("epsilon", [0.03, 0.3])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_loop_equals_cleverhans_s_momentum_iterative_method(decay, epsilon, curved):
    ensemble, logits, x, y, labels = curved
    expected = momentum_iterative_method(
        logits, x, epsilon, epsilon / 5, 5, np.inf, 0.0, 1.0, labels, decay_factor=decay, sanity_checks=False
    )
    x_adv = make_attack("mifgsm", ThreatModel(epsilon), steps=5, decay=decay)(ensemble, x, y)
    np.testing.assert_array_equal(x_adv, expected)


_ONCE = {"shrink": False, "random_start": False, "restarts": 1}
_OWN = {"steps": 10, "step": 0.1, "loss": "cross_entropy"} | _ONCE
_MIXING = {"others": 3, "strength": 0.2, "scales": 3}
_SHRINKING = {"smallest": 0.875, "probability": 0.5}
_HINGE = {"loss": "margin", "confidence": 50.0}
_BY_MEMBER = {"step": 0.2, "decay": 1.0}
_MI = {"decay": 1.0, "nesterov": False}
DEFAULTS = {
    "fgsm": {"steps": 1, "step": 1.0},
    "rfgsm": {"steps": 1, "step": 1.0, "random_start": True},
    "ifgsm": {},
    "mifgsm": _MI,
    "pgd_cw": {"steps": 30, "random_start": True} | _HINGE,
    "pgd": {"steps": 40, "step": 0.25, "shrink": True, "random_start": True},
    "dim": _MI | _SHRINKING,
    "tim": _MI | {"kernel": 5},
    "sim": {"decay": 1.0, "nesterov": True, "scales": 3},
    "mi_di_ti_si": _MI | _SHRINKING | {"kernel": 5, "scales": 3},
    "admix": _MI | _MIXING,
    "vmi": {"neighbours": 20, "reach": 1.5, "decay": 1.0},
    "pgn": _MI | {"samples": 20, "reach": 3.0, "balance": 0.5},
    "ssa": _MI | {"copies": 20, "spread": 0.5, "noise": 1.0},
    "cwa": _BY_MEMBER | {"reverse": 1 / 15, "inner": 10.0},
    "cse": _BY_MEMBER | {"reverse": 0.0, "inner": 2.0},
}


def test_defaults_are_those_of_section_4_1_and_of_the_others_papers():
    described = {name: make_attack(name, ThreatModel(0.3)).describe() for name in ON_SURROGATES}
    params = {name: values["params"] for name, values in described.items()}
    assert {name: {**values} | {"parts": None} for name, values in params.items()} == {
        name: _OWN | values | {"parts": None} for name, values in DEFAULTS.items()
    }
    assert described["mifgsm"] == {
        "attack": "mifgsm",
        "revision": 4,
        "params": _OWN
        | _MI
        | {"parts": ["Momentum(decay=1.0, nesterov=False)", repr(losses.LOSSES["cross_entropy"])]},
        "epsilon": 0.3,
        "norm": "linf",
        "clip_min": 0.0,
        "clip_max": 1.0,
    }
    assert json.loads(json.dumps(described)) == described
    in_full = [json.dumps(values) for values in params.values()]
    assert len(set(in_full)) == len(in_full), "no two attacks are described alike"


def test_iterative_attacks_climb_higher_than_one_step_on_curved_members():
    members = conv_members(2)
    x, y = images_and_labels(count=20)
    reached = {}
    for name in ("fgsm", "ifgsm"):
        x_adv = quick_attack(name, ThreatModel(0.3))(Ensemble(members, CrossEntropy()), x, y)
        logits = tf.stack([member(x_adv) for member in members])
        reached[name] = np.mean(plain_losses(logits, y))
    assert reached["ifgsm"] > reached["fgsm"]


def test_objective_is_the_mean_of_the_members_losses_not_the_loss_of_their_mean():
    """Losses log(1 + e^-m_n) of margins m_n: the mean weighs each member by 1 - p_n, the log of the mean
    probability by p_n (1 - p_n). One sure member, one member sure of another class, both along one pixel:
    the mean follows the second, the log of the mean probability the first."""
    weights = np.zeros((2, math.prod(SHAPE), CLASSES), "float32")
    weights[0, 0, 0], weights[1, 0, 0] = -1.0, 1.0  # the true class's logit, by member
    biases = np.zeros((2, CLASSES), "float32")
    biases[0, 0], biases[1, 0] = 2.0, -4.0
    ensemble, _ = linear_ensemble(2, biases=biases)
    for member, weight, bias in zip(ensemble.members, weights, biases, strict=True):
        member.set_weights([weight, bias])
    x = np.full((1, *SHAPE), 0.5, "float32")
    attack = make_attack("fgsm", ThreatModel(EPSILON))
    of_members = attack(ensemble, x, [0]).numpy() - x
    of_ensemble = attack(lambda images: ensemble(images), x, [0]).numpy() - x
    # Raising pixel 0 lowers member 0's loss by weight -1 (p small slope) and raises member 1's logit.
    assert of_members.ravel()[0] == pytest.approx(-EPSILON)
    assert of_ensemble.ravel()[0] == pytest.approx(EPSILON)
    assert not of_members.ravel()[1:].any()


def test_momentum_matters_on_curved_members():
    """The twin without momentum goes elsewhere, so the equality above can tell the two apart."""
    x, y = images_and_labels()
    ensemble = Ensemble(conv_members(2), CrossEntropy())
    threat = ThreatModel(0.3)
    plain = make_attack("ifgsm", threat, steps=5)(ensemble, x, y).numpy()
    with_momentum = make_attack("mifgsm", threat, steps=5)(ensemble, x, y)
    assert (np.abs(with_momentum - plain) > 1e-3).mean() > 0.05
    without = make_attack("mifgsm", threat, steps=5, decay=0.0)(ensemble, x, y)
    np.testing.assert_allclose(without, plain, atol=1e-6)


# The hinge.


def sure_ensemble(lead, others=0.0):
    """Two linear members whose true class 0 leads by about `lead`; the others' logits start at `others`."""
    biases = np.full((2, CLASSES), others, "float32")
    biases[:, 0] += lead
    return linear_ensemble(2, biases=biases)


@pytest.mark.parametrize("others", [0.0, -30.0, -1000.0])
def test_hinge_gradient_does_not_vanish_for_sure_members(others):
    """Were the masked true class left at 0, it would win over negative logits and the gradient would be
    that of minus the true logit alone."""
    ensemble, closed = sure_ensemble(6.0, others)
    x, y = images_and_labels(count=10)[0], np.zeros(10, int)
    # Six logits ahead, less the spread of the linear part.
    assert np.exp(-closed.cross_entropies(x, y)).min() > 0.9
    x_adv = quick_attack("pgd_cw", ThreatModel(EPSILON))(ensemble, x, y, seed=SEED)
    twin = attack_reference.pgd_cw(
        lambda images: closed.hinge_gradient(images, y),
        attack_reference.Climb(x, EPSILON),
        random_start(x.shape, EPSILON),
        steps=3,
    )
    agree(x_adv, twin)
    assert (closed.hinges(x_adv, y) > closed.hinges(x, y)).all()


@pytest.mark.parametrize(("lead", "moves"), [(49.0, True), (70.0, False)])
def test_hinge_saturates_once_another_class_leads_by_fifty(lead, moves):
    ensemble, _ = sure_ensemble(-lead)
    x, y = images_and_labels(count=4)[0], np.zeros(4, int)
    x_adv = quick_attack("pgd_cw", ThreatModel(1e-3))(ensemble, x, y, seed=SEED)
    start = np.clip(x + random_start(x.shape, 1e-3), 0, 1)
    assert (np.abs(x_adv - start).max(axis=(1, 2, 3)) > 1e-4).all() == moves
    if not moves:
        np.testing.assert_allclose(x_adv, start, atol=1e-6)


def test_hinge_of_one_saturated_member_leaves_the_other_to_be_attacked():
    biases = np.zeros((2, CLASSES), "float32")
    biases[0, 0] = -80.0
    ensemble, closed = linear_ensemble(2, biases=biases)
    x, y = images_and_labels(count=4)[0], np.zeros(4, int)
    x_adv = quick_attack("pgd_cw", ThreatModel(EPSILON))(ensemble, x, y)
    assert (closed.hinges(x, y)[0] == 50).all()
    assert (closed.hinges(x_adv, y)[1] > closed.hinges(x, y)[1]).all()


# Saturation: p_y rounds to 1 in float32, and losses to 0.


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "pgd_cw"])
def test_saturated_members_are_attacked_along_the_signs_of_float64(name):
    biases = np.zeros((3, CLASSES), "float32")
    biases[:, 0] = 60
    ensemble, closed = linear_ensemble(3, scale=4.0, biases=biases)
    x, y = images_and_labels(count=12)[0], np.zeros(12, int)
    assert closed.cross_entropies(x, y).max() < 1e-12
    twin = attack_reference.ATTACKS[name](
        lambda images: closed.cross_entropy_gradient(images, y),
        attack_reference.Climb(x, 0.01, resolution=1e-3),
        random_start(x.shape, 0.01),
    )
    agree(make_attack(name, ThreatModel(0.01))(ensemble, x, y, seed=SEED), twin)


def test_momentum_weighs_saturated_gradients_by_direction_alone():
    """Logits (70 - m, 0) with a quadratic margin m = 2 x A x + b x: the gradient, sigmoid(m - 70) (4 A x + b)
    for symmetric A, turns on the way, and is far below the 1e-12 by which CleverHans divides at least."""
    rng = np.random.default_rng(5)
    size = math.prod(SHAPE)
    bend = rng.normal(size=(size, size)) / 6
    bend, slope = bend + bend.T, rng.normal(size=size)

    def target(images):
        flat = tf.reshape(images, [-1, size])
        curved = 2 * tf.reduce_sum(flat * (flat @ tf.constant(bend, tf.float32)), axis=1)
        margin = curved + tf.reduce_sum(flat * tf.constant(slope, tf.float32), axis=1)
        return tf.stack([70 - margin, tf.zeros_like(margin)], axis=-1)

    def gradient(images):
        flat = np.reshape(images, (len(images), size))
        margin = 2 * np.sum(flat * (flat @ bend), axis=1) + flat @ slope - 70
        along = 4 * flat @ bend + slope
        return np.reshape(along / (1 + np.exp(-margin))[:, None], images.shape)

    x, y = images_and_labels()[0], np.zeros(6, int)
    assert np.abs(gradient(x)).mean(axis=(1, 2, 3)).max() < 1e-12
    twin = attack_reference.mifgsm(gradient, attack_reference.Climb(x, 0.1))
    agree(make_attack("mifgsm", ThreatModel(0.1))(target, x, y), twin)


# Where the results lie.


@dataclasses.dataclass(frozen=True)
class Once:
    """An update of one's own, that goes where it is told by `to(x, epsilon)`."""

    share: float = 0.5

    def __post_init__(self):
        require(0 < self.share <= 1, "0 < share <= 1", f"share={self.share}")

    def to(self, x, epsilon):
        return tf.clip_by_value(x + self.share * epsilon, 0, 1)

    def start(self, x):
        return ()

    def move(self, ascent, x, kept, context):
        return self.to(x, ascent.threat.epsilon), kept


class LeavesTheBall(Once):
    def to(self, x, epsilon):
        return tf.clip_by_value(x + 1.01 * epsilon * tf.where(x < 0.5, 1.0, -1.0), 0, 1)


class LeavesTheRange(Once):
    def to(self, x, epsilon):
        return x + epsilon


class GivesOneNaN(Once):
    def to(self, x, epsilon):
        corner = tf.one_hot(0, tf.size(x), on_value=float("nan"), off_value=0.0)
        return x + tf.reshape(corner, tf.shape(x))


def own(update, **values):
    return compose_attack("bad", ThreatModel(EPSILON), Recipe(update=update, steps=1, **values))


@pytest.mark.parametrize("values", [{}, {"random_start": True, "restarts": 2}])
def test_result_that_is_not_finite_is_refused(values):
    ensemble, _ = linear_ensemble(2)
    with pytest.raises(InputError, match=r"Expected finite images of bad\. Received: NaN or infinity"):
        own(GivesOneNaN(), **values)(ensemble, *images_and_labels())


@dataclasses.dataclass(frozen=True)
class SometimesNaN(Once):
    """NaN where an image has begun with its first pixel moved up: after some random starts."""

    def move(self, ascent, x, kept, context):
        up = (x - ascent.origin)[:, :1, :1, :1] > 0
        return tf.where(up, float("nan"), x), kept


def test_start_that_ends_in_nan_is_not_hidden_by_a_later_one():
    """Of twenty images and three starts each, some have NaN in the first or second only."""
    ensemble, _ = linear_ensemble(2)
    x, y = np.full((20, *SHAPE), 0.5, "float32"), np.zeros(20, int)
    attack = own(SometimesNaN(), random_start=True, restarts=3)
    for i in range(20):
        batch = (x[i : i + 1], y[i : i + 1], [i])
        begun = [first_pixel(restart, i) for restart in range(3)]
        if max(begun) > 0:
            with pytest.raises(InputError, match="finite images"):
                list(attack.on_batches(ensemble, [batch], pool=(x, y), seed=SEED))
        else:
            list(attack.on_batches(ensemble, [batch], pool=(x, y), seed=SEED))


def first_pixel(restart, number, seed=SEED):
    start = Draws.of([number], seed).fold(restart).fold(0).uniform(SHAPE, -EPSILON, EPSILON)
    return start[0, 0, 0, 0]


@dataclasses.dataclass(frozen=True)
class EndsWhereItBegan(Once):
    def move(self, ascent, x, kept, context):
        return x, kept


@pytest.mark.parametrize("towards", [False, True])
def test_a_start_that_fools_is_kept_whatever_the_loss_is_elsewhere(towards):
    """Where the first pixel is moved up, class 0 has 0.45 of the probability for 0.46 of class 1, else 0.40.

    So its loss, 0.80 and 0.92, is greater where the image stands. Towards class 1 it is the other way round.
    """
    here, there = np.log([[0.40, 0.30, 0.30]]), np.log([[0.45, 0.46, 0.09]])

    def target(images):
        up = images[:, 0, 0, :1] > 0.5
        return tf.cast(tf.where(up, there, here), tf.float32) + 0 * images[:, 0, 0, :1]

    x, y = np.full((20, *SHAPE), 0.5, "float32"), np.full(20, int(towards))
    loss = losses.Towards() if towards else "cross_entropy"
    x_adv = own(EndsWhereItBegan(), random_start=True, restarts=3, loss=loss)(target, x, y)
    up = [max(first_pixel(restart, i, seed=0) for restart in range(3)) > 0 for i in range(20)]
    assert 0 < sum(up) < 20
    assert (np.asarray(target(x_adv)).argmax(axis=1) == 1).tolist() == up


def test_a_loss_that_leads_to_a_class_is_taken_whole():
    """Not put into itself, which would lead away again, though it has a field called loss, too."""
    meant = losses.Towards(losses.MeanProbability())
    attack = make_attack("pgd", ThreatModel(EPSILON), loss=meant, steps=3)
    assert (attack.method.loss, attack.method.steps) == (meant, 3)


@pytest.mark.parametrize("ahead", [9.0, 60.0, 5000.0])
def test_a_margin_leads_to_a_class_however_far_another_one_is_ahead(ahead):
    """And no further than its confidence: the hinge of the class that is led to saturates, not the other."""
    logits = tf.Variable([[[ahead, 0.0, 0.0]]])
    with tf.GradientTape(persistent=True) as tape:
        values = [losses.Towards(losses.Margin(50.0))(logits, tf.constant([label])) for label in (1, 0)]
    np.testing.assert_allclose(tf.concat(values, 0), [-ahead, min(ahead, 50)])
    np.testing.assert_array_equal(tape.gradient(values[0], logits), [[[-1, 1, 0]]])
    towards_the_first = tape.gradient(values[1], logits)
    assert bool(tf.reduce_any(towards_the_first != 0)) == (ahead < 50)


@pytest.mark.parametrize("seed", [2**31, -(2**31) - 1, 2**40, 0.5])
def test_seed_that_is_none_is_refused_in_one_line(seed):
    ensemble, _ = linear_ensemble(2)
    with pytest.raises(InputError, match=r"a seed of 32 bits, in \[-2\^31, 2\^31\)\. Received: seed="):
        make_attack("pgd", ThreatModel(EPSILON))(ensemble, *images_and_labels(), seed=seed)


@pytest.mark.parametrize("epsilon", [1, np.float32(0.25), np.int64(1)])
def test_threat_model_of_any_number_attacks_and_travels_as_json(epsilon):
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    for name in ("fgsm", "pgd_cw", "cwa"):
        attack = quick_attack(name, ThreatModel(epsilon))
        assert attack(ensemble, x, y).shape == x.shape
        assert json.loads(json.dumps(attack.describe()))["epsilon"] == float(epsilon)


@pytest.mark.parametrize("bad", [LeavesTheBall(), LeavesTheRange()])
def test_result_that_breaks_the_threat_model_raises(bad):
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    with pytest.raises(FloatingPointError, match="Expected bad images within ThreatModel"):
        own(bad)(ensemble, x, y)


def test_registered_attack_is_made_and_run_like_the_others(monkeypatch):
    monkeypatch.setitem(ATTACKS, "halfway", Recipe(update=Once(), steps=1))
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    plain, given = (make_attack("halfway", ThreatModel(EPSILON), **own) for own in ({}, {"share": 0.25}))
    np.testing.assert_allclose(plain(ensemble, x, y), np.minimum(x + 0.05, 1), atol=1e-6)
    np.testing.assert_allclose(given(ensemble, x, y), np.minimum(x + 0.025, 1), atol=1e-6)
    shares = [attack.describe()["params"]["share"] for attack in (plain, given)]
    assert shares == [0.5, 0.25] and "Once(share=0.25)" in given.describe()["params"]["parts"]
    with pytest.raises(InputError, match=r"Expected 0 < share <= 1\. Received: share=2"):
        make_attack("halfway", ThreatModel(EPSILON), share=2)


@dataclasses.dataclass(frozen=True)
class Downhill:
    """A piece of one's own."""

    times: float = 1.0

    def __call__(self, gradient, x, context):
        return -self.times * gradient(x, context)


@dataclasses.dataclass(frozen=True)
class FirstMember:
    """A loss of one's own."""

    def __call__(self, logits, y):
        return -tf.gather(logits[0], y, batch_dims=1)


def test_pieces_and_losses_of_one_s_own_are_composed_and_described():
    ensemble, closed = linear_ensemble(2)
    x, y = images_and_labels()
    recipe = Recipe((Downhill(2.0),), updates.Sign(), FirstMember(), steps=1)
    attack = compose_attack("mine", ThreatModel(EPSILON), recipe)
    weights = np.moveaxis(closed.weights[0][:, y], 1, 0).reshape(x.shape)
    expected = np.clip(x + EPSILON * np.sign(weights), 0, 1)
    np.testing.assert_allclose(attack(ensemble, x, y), expected, atol=1e-6)
    params = attack.describe()["params"]
    assert (params["times"], params["loss"]) == (2.0, "FirstMember")
    assert params["parts"] == ["Downhill(times=2.0)", "Sign()", "FirstMember()"]
    assert attack.describe()["attack"] == attack.name == "mine"


def test_random_start_is_uniform_in_the_image_s_own_stream():
    """An update that stays where it is shows the start."""
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    start = own(Stays(), random_start=True)(ensemble, x, y, seed=SEED)
    np.testing.assert_allclose(start, np.clip(x + random_start(x.shape, EPSILON), 0, 1), atol=1e-7)


class Stays(Once):
    def to(self, x, epsilon):
        return x


def test_every_attack_of_the_paper_is_there():
    assert set(paper.ATTACKS) <= set(ATTACKS)


# Randomness.


def test_random_start_reaches_the_whole_ball():
    """Where the hinge is saturated the start stays as it is drawn: U(-epsilon, epsilon), standard deviation
    epsilon / sqrt(3)."""
    ensemble, _ = sure_ensemble(-500.0)
    x = np.full((60, *SHAPE), 0.5, "float32")
    change = quick_attack("pgd_cw", ThreatModel(0.1))(ensemble, x, np.zeros(60, int)).numpy() - x
    assert change.min() == pytest.approx(-0.1, abs=1e-3) and change.max() == pytest.approx(0.1, abs=1e-3)
    assert change.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    assert abs(change.mean()) < 4 * 0.1 / math.sqrt(3 * change.size)


# Targets and traces.


class CountingTarget:
    """A callable target that counts how often Python runs it: once for each trace."""

    def __init__(self, members=None):
        self.calls = 0
        self._weights = tf.constant(
            np.random.default_rng(0).normal(size=(math.prod(SHAPE), CLASSES)), "float32"
        )

    def __call__(self, x):
        self.calls += 1
        return tf.reshape(x, [-1, self._weights.shape[0]]) @ self._weights


def test_target_is_kept_alive_by_nobody():
    target, (x, y) = CountingTarget(), images_and_labels()
    attacks = [quick_attack(name, ThreatModel(EPSILON)) for name in ("fgsm", "vmi", "pgd_cw", "cwa")]
    if importlib.util.find_spec("art"):
        attacks.append(make_attack("square", ThreatModel(EPSILON), queries=2, initial=0.3))
        attacks.append(make_attack("auto_pgd", ThreatModel(EPSILON), steps=1))
    for attack in attacks:
        attack(target, x, y)
    reference = weakref.ref(target)
    del target
    gc.collect()
    assert reference() is None


def test_one_attack_keeps_several_targets_apart():
    x, y = images_and_labels()
    attack = make_attack("fgsm", ThreatModel(EPSILON))
    for seed in (0, 1, 0):
        ensemble, closed = linear_ensemble(2, seed=seed)
        twin = attack_reference.fgsm(
            lambda images, closed=closed: closed.cross_entropy_gradient(images, y),
            attack_reference.Climb(x, EPSILON),
        )
        agree(attack(ensemble, x, y), twin)


def test_weights_trained_after_the_first_batch_take_effect():
    ensemble, _ = linear_ensemble(1)
    x, y = images_and_labels()
    attack = make_attack("fgsm", ThreatModel(EPSILON, clip_min=-1.0, clip_max=2.0))
    before = attack(ensemble, x, y).numpy() - x
    member = ensemble.members[0]
    member.set_weights([-w for w in member.get_weights()])
    assert not np.array_equal(attack(ensemble, x, y).numpy() - x, before)


def test_members_are_attacked_in_inference_mode():
    images = keras.Input(SHAPE)
    logits = layers.Dense(CLASSES)(layers.Dropout(0.9)(layers.Flatten()(images)))
    ensemble = Ensemble([keras.Model(images, logits, name="dropping")], CrossEntropy())
    x, y = images_and_labels()
    # With dropout nine pixels in ten would stay as they are.
    assert (make_attack("fgsm", ThreatModel(EPSILON, clip_min=-1))(ensemble, x, y) != x).numpy().mean() > 0.8


# What is refused.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epsilon": 0.0}, "epsilon in (0, 1]"),
        ({"epsilon": -0.1}, "epsilon in (0, 1], the pixels being in [0, 1]. Received: epsilon=-0.1"),
        ({"epsilon": 8}, "epsilon in (0, 1], the pixels being in [0, 1]. Received: epsilon=8"),
        ({"epsilon": 256, "clip_max": 255}, "epsilon in (0, 255], the pixels being in [0, 255]"),
        ({"epsilon": float("nan")}, "epsilon in (0, 1]"),
        ({"epsilon": float("inf")}, "epsilon in (0, 1]"),
        ({"epsilon": 0.1, "norm": "l2"}, "norm as one of {linf}. Received: norm='l2'"),
        ({"epsilon": 0.1, "clip_min": 1.0, "clip_max": 1.0}, "clip_min < clip_max"),
        ({"epsilon": 0.1, "clip_min": float("nan")}, "clip_min < clip_max"),
    ],
)
def test_bad_threat_model_is_refused(values, expected):
    with pytest.raises(InputError) as caught:
        ThreatModel(**values)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("deepfool", {}, f"attack as one of {sorted(ATTACKS)}. Received: attack='deepfool'"),
        (
            "fgsm",
            {"decay": 0.5},
            "parameters among ['steps', 'step', 'path', 'shrink', 'random_start', 'restarts', 'loss']",
        ),
        ("ifgsm", {"confidence": 3.0}, "Received: ['confidence']"),
        ("pgd_cw", {"rate": 1, "steps": 3}, "'loss', 'confidence']. Received: ['rate']"),
        ("mifgsm", {"pieces": ()}, "Received: ['pieces']"),
        ("mifgsm", {"update": updates.Sign()}, "Received: ['update']"),
        ("pgd_cw", {"loss": "cross_entropy", "confidence": 1.0}, "Received: ['confidence']"),
        ("ifgsm", {"steps": 0}, "whole steps >= 1. Received: steps=0"),
        ("mifgsm", {"decay": -1.0}, "finite decay >= 0. Received: decay=-1.0"),
        ("pgd_cw", {"step": "a"}, "0 < step <= 1, in units of epsilon. Received: step='a'"),
        ("pgd", {"loss": "hinge"}, f"loss as one of {sorted(losses.LOSSES)}. Received: loss='hinge'"),
        ("ifgsm", {"restarts": 2}, "a random start for several restarts. Received: restarts=2"),
        ("pgn", {"samples": 2.5}, "whole samples >= 1. Received: samples=2.5"),
    ],
)
def test_unknown_attacks_and_bad_parameters_are_refused(name, params, expected):
    with pytest.raises(InputError) as caught:
        make_attack(name, ThreatModel(0.1), **params)
    assert expected in str(caught.value)


def test_loss_that_is_named_brings_its_own_parameters():
    attack = make_attack("ifgsm", ThreatModel(0.1), loss="margin", confidence=5.0)
    assert attack.method.loss == losses.Margin(5.0) and attack.method == ATTACKS["ifgsm"].replace(
        {"loss": losses.Margin(5.0)}
    )


NO_COUNTS = (0, -1, 2.5, True, "3", None, float("nan"))
NO_NUMBERS = (-0.1, float("nan"), float("inf"), "a", None, True, [0.5])
NO_SHARES = (*NO_NUMBERS, 1.1)
NO_POSITIVE = (*NO_NUMBERS, 0)
NO_BOOLS = (1, 0, "yes", None)
REFUSED = {
    pieces.DiverseInputs: {"smallest": (*NO_SHARES, 0), "probability": NO_SHARES},
    pieces.TranslationKernel: {"kernel": (*NO_COUNTS, 4, -1, -3, 5.0)},
    pieces.ScaledCopies: {"scales": NO_COUNTS},
    pieces.MixedImages: {"others": NO_COUNTS, "strength": NO_SHARES},
    pieces.Neighbourhood: {"samples": NO_COUNTS, "reach": NO_NUMBERS, "balance": NO_SHARES},
    pieces.SpectralCopies: {"copies": NO_COUNTS, "spread": NO_SHARES, "noise": NO_NUMBERS},
    updates.Sign: {},
    updates.Momentum: {"decay": NO_NUMBERS, "nesterov": NO_BOOLS},
    updates.VarianceTuning: {"neighbours": NO_COUNTS, "reach": NO_POSITIVE, "decay": NO_NUMBERS},
    updates.MemberByMember: {"reverse": NO_NUMBERS, "inner": NO_POSITIVE, "decay": NO_NUMBERS},
    losses.MeanLoss: {},
    losses.MeanLogit: {},
    losses.MeanProbability: {},
    losses.Margin: {"confidence": NO_NUMBERS},
    Recipe: {
        "pieces": (None, 3, pieces.ScaledCopies(), [3], [updates.Momentum()], [pieces.ScaledCopies], [len]),
        "update": (None, "sign", updates.Sign, pieces.ScaledCopies(), losses.MeanLoss()),
        "loss": (None, "hinge", losses.Margin, updates.Sign(), len),
        "steps": NO_COUNTS,
        "step": (*(value for value in NO_SHARES if value is not None), 0),
        "path": (*NO_NUMBERS, 0),
        "shrink": NO_BOOLS,
        "random_start": NO_BOOLS,
        "restarts": (*NO_COUNTS, 2),
    },
}


def test_every_part_has_its_line_in_the_table_of_refusals():
    named = {Recipe}
    for recipe in map(ATTACKS.get, ON_SURROGATES):
        named |= {type(part) for part in (*recipe.pieces, recipe.update, recipe.loss)}
    named |= {type(loss) for loss in losses.LOSSES.values()}
    assert named == set(REFUSED)
    for part, values in REFUSED.items():
        assert set(values) == {field.name for field in dataclasses.fields(part)}, part


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [(part, name, value) for part, by in REFUSED.items() for name, values in by.items() for value in values],
)
def test_bad_value_of_a_part_is_refused_in_one_line_that_names_it(part, name, value):
    with pytest.raises(InputError, match=r"^Expected [^\n]*\. Received: [^\n]+$") as caught:
        part(**{name: value})
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("threat", "recipe"), [(0.1, Recipe()), (ThreatModel(0.1), "mifgsm"), (ThreatModel(0.1), Recipe)]
)
def test_what_is_no_recipe_or_no_threat_model_is_not_composed(threat, recipe):
    with pytest.raises(InputError, match=r"^Expected a (ThreatModel|Recipe), as .* Received: "):
        compose_attack("own", threat, recipe)


def with_pixel(value):
    x = images_and_labels()[0]
    x[2, 3, 1, 0] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (with_pixel(1.5), [0] * 6, "images in [0.0, 1.0]. Received: values from 0 to 1.5"),
        (with_pixel(-1e-3), [0] * 6, "images in [0.0, 1.0]"),
        (with_pixel(float("nan")), [0] * 6, "images in [0.0, 1.0]"),
        (255 * images_and_labels()[0], [0] * 6, "images in [0.0, 1.0]. Received: values from 0 to 255"),
        (images_and_labels()[0], [0] * 5, "as many images as labels, at least one. Received: 6 and 5"),
        (images_and_labels()[0][:0], np.zeros(0, int), "at least one. Received: 0 and 0"),
        (images_and_labels()[0], [0, 1, 2, 3, 4, 0], "labels in [0, 4). Received: labels from 0 to 4"),
        (images_and_labels()[0], [0, 1, 2, -1, 0, 0], "labels in [0, 4). Received: labels from -1 to 2"),
        (images_and_labels()[0], np.ones((6, CLASSES)), "integer labels [n], or one-hot ones"),
        (images_and_labels()[0], [0.5] * 6, "integer labels [n], or one-hot ones"),
    ],
)
def test_bad_images_and_labels_are_refused(x, y, expected):
    ensemble, _ = linear_ensemble(1)
    with pytest.raises(InputError) as caught:
        make_attack("fgsm", ThreatModel(0.1))(ensemble, x, y)
    assert expected in str(caught.value)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32, tf.int64])
def test_labels_of_any_integer_type_give_the_same_images(dtype):
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    attack = make_attack("fgsm", ThreatModel(EPSILON))
    np.testing.assert_array_equal(attack(ensemble, x, tf.cast(y, dtype)), attack(ensemble, x, y))


def test_float64_images_are_taken():
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    attack = make_attack("fgsm", ThreatModel(EPSILON))
    for given in (x.astype("float64"), tf.constant(x, tf.float64)):
        np.testing.assert_array_equal(attack(ensemble, given, y), attack(ensemble, x, y))


def test_flags_know_the_names_of_all_attacks():
    assert tuple(ATTACKS) == NAMES
    params = make_attack("ifgsm", ThreatModel(0.1), steps=np.int64(3)).describe()["params"]
    assert type(params["steps"]) is int and params["steps"] == 3


# Sure members, and the rim of the ball.


@pytest.mark.parametrize("name", ["fgsm", "rfgsm", "ifgsm", "mifgsm"])
def test_members_of_any_sureness_are_attacked_along_the_least_sure_one(name):
    """Of members that lead by 1, 2 and 3 times `lead` the first one's loss counts: exp(-30) to 1."""
    ensemble, closed = linear_ensemble(3)
    x, y = images_and_labels(12)[0], np.zeros(12, int)
    direction = np.sign(closed.weights[0, :, 1] - closed.weights[0, :, 0]).reshape(SHAPE)
    attack = make_attack(name, ThreatModel(0.01))
    for lead in (30.0, 100.0, 1e3, 1e4, 1e5):
        for times, member in enumerate(ensemble.members, 1):
            kernel, _ = member.get_weights()
            member.set_weights([kernel, np.array([times * lead, 10, 0, 0], "float32")])
        x_adv = attack(ensemble, x, y, seed=SEED).numpy()
        inner = np.clip(x + 0.01 * direction, 0, 1) if name != "rfgsm" else x_adv
        agreeing = np.abs(x_adv - inner) < 1e-6
        assert agreeing.mean() > 0.98, "class 1 leads the others by exp(10)"
        assert (np.sign(x_adv - x) == direction)[(x > 0.02) & (x < 0.98)].mean() > 0.98


def test_sure_surrogates_move_every_image_and_lower_the_accuracy_as_others():
    x, y = images_and_labels(40)
    accuracies = []
    for scale in (1.0, 100.0, 1e4):
        members = conv_members(2)
        y = Ensemble(members, CrossEntropy()).predict(x, verbose=0).argmax(-1)
        for member in members:
            kernel, bias = member.layers[-1].get_weights()
            member.layers[-1].set_weights([scale * kernel, scale * bias])
        surrogate = Ensemble(members, CrossEntropy())
        _, result, _ = evaluate_transfer(
            surrogate, {"t": surrogate}, (x, y), make_attack("fgsm", ThreatModel(0.1))
        )
        assert result.unmoved == 0
        accuracies.append(result.accuracy)
    assert max(accuracies) - min(accuracies) < 0.1 and max(accuracies) < 1


def test_images_without_any_gradient_are_counted():
    """Of a member that is constant on dark images."""
    images = keras.Input((4,))
    bright = layers.Lambda(lambda x: tf.where(tf.reduce_max(x, 1, keepdims=True) > 0.5, x, tf.zeros_like(x)))(
        images
    )
    member = keras.Model(images, layers.Dense(3)(bright))
    x = np.full((5, 4), 0.1, "float32")
    x[:2] = 0.9
    _, result, worst = evaluate_transfer(
        member, {"t": member}, (x, np.zeros(5, int)), make_attack("fgsm", ThreatModel(0.1))
    )
    assert (result.unmoved, worst.unmoved) == (3, None)
    assert TransferResult.from_json(result.to_json()) == result


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each == "mifgsm" else pytest.mark.slow) for each in ON_SURROGATES]
)
@pytest.mark.parametrize(
    ("low", "high", "epsilon"),
    [
        (0, 1, 0.3),
        (0, 255, 8),
        (-1, 1, 0.06),
        (-128, 127, 8),
        (0, 65535, 3),
        (0, 1e-3, 1e-4),
        (1000, 1001, 0.1),
    ],
)
def test_rounding_at_the_rim_is_no_breach_in_any_range(low, high, epsilon, name):
    unit, y = images_and_labels(8)
    x = np.clip(low + unit * (high - low) + 0.123 * epsilon, low, high).astype("float32")
    threat = ThreatModel(epsilon, clip_min=low, clip_max=high)
    x_adv = quick_attack(name, threat)(conv_members(1)[0], x, y, seed=SEED).numpy()
    assert low <= x_adv.min() and x_adv.max() <= high
    ulp = np.spacing(np.float32(max(abs(low), abs(high), 1)))
    assert np.abs(x_adv.astype("float64") - x).max() <= epsilon + 4 * ulp


@pytest.mark.parametrize("name", ["cwa", "cse"])
@pytest.mark.parametrize(("steps", "size"), [(1, 1.0), (10, 0.2), (100, 0.02)])
def test_steps_of_the_common_weakness_lead_twice_across_the_ball(name, steps, size):
    """2 epsilon / steps, Chen et al. (2024); a given step is as it is given."""
    assert make_attack(name, ThreatModel(0.1), steps=steps).describe()["params"]["step"] == size
    given = make_attack(name, ThreatModel(0.1), steps=steps, step=0.5)
    assert given.describe()["params"]["step"] == 0.5
