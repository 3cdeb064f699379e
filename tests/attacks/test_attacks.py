"""The five attacks against NumPy twins, and what guards their inputs and results."""

import gc
import json
import math
import weakref

import attack_reference
import keras
import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
from keras import layers

from divtf import TransferResult, evaluate_transfer
from divtf.attacks.attack import make_attack
from divtf.attacks.methods import ATTACKS, Method, Parameter
from divtf.attacks.names import NAMES
from divtf.attacks.threat import ThreatModel
from divtf.data import paper
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.objectives import CrossEntropy
from divtf.errors import InputError

SHAPE, CLASSES = (6, 6, 2), 4
EPSILON = 0.1
SEED = 7


def linear_ensemble(count, scale=1.0, seed=0, biases=None):
    """An Ensemble of linear members, and their closed forms."""
    rng = np.random.default_rng(seed)
    weights = scale * rng.normal(size=(count, math.prod(SHAPE), CLASSES)).astype("float32") / 6
    biases = np.zeros((count, CLASSES), "float32") if biases is None else biases
    members = []
    for n in range(count):
        images = keras.Input(SHAPE)
        member = keras.Model(images, layers.Dense(CLASSES)(layers.Flatten()(images)), name=f"linear_{n}")
        member.set_weights([weights[n], biases[n]])
        members.append(member)
    return Ensemble(members, CrossEntropy()), attack_reference.LinearMembers(weights, biases)


def conv_members(count, dtype="float32", scale=2.0):
    """Curved members with the same weights for every dtype."""
    rng, members = np.random.default_rng(4), []
    for n in range(count):
        images = keras.Input(SHAPE, dtype=dtype)
        x = layers.Conv2D(5, 3, padding="same", dtype=dtype)(images)
        x = layers.LeakyReLU(negative_slope=0.1, dtype=dtype)(x)
        x = layers.Conv2D(5, 3, strides=2, activation="tanh", dtype=dtype)(x)
        x = layers.Flatten(dtype=dtype)(x)
        member = keras.Model(images, layers.Dense(CLASSES, dtype=dtype)(x), name=f"conv_{n}")
        member.set_weights([scale * rng.normal(size=w.shape) / 3 for w in member.get_weights()])
        members.append(member)
    return members


def images_and_labels(count=6, seed=1):
    """Images with many pixels at the borders of the range."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.3, 1.3, (count, *SHAPE)), 0, 1).astype("float32")
    return x, rng.integers(0, CLASSES, count)


def quick_attack(name, threat):
    """The attack, with fewer steps where more would only take time."""
    return make_attack(name, threat, **({"steps": 3} if name in ("ifgsm", "mifgsm", "pgd_cw") else {}))


def random_start(shape, epsilon, seed=SEED):
    return tf.random.stateless_uniform(shape, [seed, 0], -epsilon, epsilon).numpy()


def mean_loss(name, closed, x, y):
    losses = closed.hinges if name == "pgd_cw" else closed.cross_entropies
    return losses(np.asarray(x), y).mean(axis=0)


def tape_gradient(members, y, *, hinge=False, confidence=50.0):
    """Gradient of the members' mean loss by float64 members, written as plainly as it reads."""
    count = len(members)

    def gradient(x):
        x = tf.constant(x, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.zeros([len(x)], tf.float64)
            for member in members:
                logits = member(x)
                if hinge:
                    true = tf.gather(logits, y, batch_dims=1)
                    others = tf.reduce_max(logits - 1e9 * tf.one_hot(y, CLASSES, dtype=tf.float64), axis=1)
                    total += tf.minimum(others - true, confidence) / count
                else:
                    total += keras.losses.sparse_categorical_crossentropy(y, logits, True) / count
        return tape.gradient(total, x).numpy()

    return gradient


def agree(x_adv, climb, least_sure=0.9):
    """Equal wherever no sign on the way was within rounding of zero."""
    assert climb.sure.mean() > least_sure
    np.testing.assert_allclose(x_adv.numpy()[climb.sure], climb.images[climb.sure], rtol=0, atol=2e-6)


# What the attacks compute.


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ATTACKS)
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


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_equals_the_equations_on_curved_members(name):
    x, y = images_and_labels()
    wide = conv_members(2, "float64")
    twin = attack_reference.ATTACKS[name](
        tape_gradient(wide, y, hinge=name == "pgd_cw"),
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
    ],
)
def test_parameters_change_what_they_name(name, params):
    x, y = images_and_labels()
    twin = attack_reference.ATTACKS[name](
        tape_gradient(conv_members(2, "float64"), y, hinge=name == "pgd_cw"),
        attack_reference.Climb(x, EPSILON),
        random_start(x.shape, EPSILON),
        **params,
    )
    attack = make_attack(name, ThreatModel(EPSILON), **params)
    agree(attack(Ensemble(conv_members(2), CrossEntropy()), x, y, seed=SEED), twin)
    assert attack.describe()["params"].items() >= params.items()


# The loops, against those of CleverHans: the same to the last bit where no member is saturated.


@pytest.fixture(name="curved")
def fixture_curved():
    """Logits of three members, images, and each label once for every member."""
    x, y = (tf.constant(part) for part in images_and_labels(20))
    ensemble = Ensemble(conv_members(3), CrossEntropy())

    def logits(images):
        return tf.transpose(ensemble.member_logits(images), [1, 0, 2])

    return logits, x, tf.repeat(y[:, None], 3, axis=1)


def lead_up_to_fifty(labels, logits):
    others = tf.reduce_max(logits - 1e9 * tf.one_hot(labels, CLASSES), axis=-1)
    return tf.minimum(others - tf.gather(logits, labels, batch_dims=2), 50.0)


@pytest.mark.parametrize("epsilon", [0.03, 0.3])
@pytest.mark.parametrize(
    ("name", "params", "steps", "loss"),
    [
        ("rfgsm", {}, 1, None),
        ("ifgsm", {"steps": 5}, 5, None),
        ("pgd_cw", {"steps": 5, "step": 0.2, "confidence": 50.0}, 5, lead_up_to_fifty),
    ],
)
def test_loop_equals_cleverhans_s_projected_gradient_descent(name, params, steps, loss, epsilon, curved):
    logits, x, labels = curved
    expected = projected_gradient_descent(
        logits, x, epsilon, epsilon / steps, steps, np.inf, loss, clip_min=0.0, clip_max=1.0, y=labels
    )
    start = {"start": x} if ATTACKS[name].random_start else {}
    x_adv = ATTACKS[name].function(logits, x, labels, ThreatModel(epsilon), **params, **start)
    np.testing.assert_array_equal(x_adv, expected)
    assert np.abs(x_adv - x).max() > epsilon / 2


@pytest.mark.parametrize("epsilon", [0.03, 0.3])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_loop_equals_cleverhans_s_momentum_iterative_method(decay, epsilon, curved):
    logits, x, labels = curved
    expected = momentum_iterative_method(
        logits, x, epsilon, epsilon / 5, 5, np.inf, 0.0, 1.0, labels, decay_factor=decay, sanity_checks=False
    )
    x_adv = ATTACKS["mifgsm"].function(logits, x, labels, ThreatModel(epsilon), steps=5, decay=decay)
    np.testing.assert_array_equal(x_adv, expected)


def test_defaults_are_those_of_section_4_1():
    described = {name: make_attack(name, ThreatModel(0.3)).describe() for name in ATTACKS}
    assert {name: values["params"] for name, values in described.items()} == {
        "fgsm": {},
        "rfgsm": {},
        "ifgsm": {"steps": 10},
        "mifgsm": {"steps": 10, "decay": 1.0},
        "pgd_cw": {"steps": 30, "step": 0.1, "confidence": 50.0},
    }
    assert described["fgsm"] == {
        "attack": "fgsm",
        "revision": 2,
        "params": {},
        "epsilon": 0.3,
        "norm": "linf",
        "clip_min": 0.0,
        "clip_max": 1.0,
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_loss_rises_for_every_image(name):
    ensemble, closed = linear_ensemble(3)
    x, y = images_and_labels(count=20)
    x_adv = quick_attack(name, ThreatModel(EPSILON))(ensemble, x, y)
    assert (mean_loss(name, closed, x_adv, y) > mean_loss(name, closed, x, y)).all()


def test_iterative_attacks_climb_higher_than_one_step_on_curved_members():
    members = conv_members(2)
    x, y = images_and_labels(count=20)
    losses = {}
    for name in ("fgsm", "ifgsm"):
        x_adv = quick_attack(name, ThreatModel(0.3))(Ensemble(members, CrossEntropy()), x, y)
        logits = [member(x_adv) for member in members]
        losses[name] = np.mean([keras.losses.sparse_categorical_crossentropy(y, z, True) for z in logits])
    assert losses["ifgsm"] > losses["fgsm"]


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


@pytest.mark.parametrize("name", ATTACKS)
def test_true_labels_are_used_where_the_prediction_differs(name):
    ensemble, _ = linear_ensemble(2)
    x, _ = images_and_labels(count=20)
    predicted = ensemble.predict(x, verbose=0).argmax(axis=-1)
    wrong = (predicted + 1) % CLASSES
    attack = quick_attack(name, ThreatModel(EPSILON))
    by_label, by_prediction = attack(ensemble, x, wrong).numpy(), attack(ensemble, x, predicted).numpy()
    assert (np.abs(by_label - by_prediction).max(axis=(1, 2, 3)) > EPSILON / 2).all()


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


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "pgd_cw"])
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


@pytest.mark.parametrize("epsilon", [0.01, 1.0])
@pytest.mark.parametrize("name", ATTACKS)
def test_result_is_inside_the_ball_and_the_image_range(name, epsilon):
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    x[0], x[1] = 0, 1
    x_adv = quick_attack(name, ThreatModel(epsilon))(ensemble, x, y, seed=3).numpy()
    assert x_adv.dtype == np.float32 and x_adv.shape == x.shape
    assert np.abs(x_adv - x).max() <= epsilon + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert np.abs(x_adv - x).max() > 0.5 * min(epsilon, 1)


@pytest.mark.parametrize("name", ATTACKS)
def test_another_image_range_is_kept(name):
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    threat = ThreatModel(0.5, clip_min=-1.0, clip_max=2.0)
    x_adv = quick_attack(name, threat)(ensemble, 3 * x - 1, y).numpy()
    assert x_adv.min() == -1 and x_adv.max() == 2


def leaves_the_ball(logits, x, y, threat):
    return tf.clip_by_value(x + 1.01 * threat.epsilon * tf.where(x < 0.5, 1.0, -1.0), 0, 1)


def leaves_the_range(logits, x, y, threat):
    return x + threat.epsilon


def gives_one_nan(logits, x, y, threat):
    corner = tf.one_hot(0, tf.size(x), on_value=float("nan"), off_value=0.0)
    return x + tf.reshape(corner, tf.shape(x))


def test_result_that_is_not_finite_is_refused(monkeypatch):
    monkeypatch.setitem(ATTACKS, "bad", Method(gives_one_nan))
    ensemble, _ = linear_ensemble(2)
    with pytest.raises(InputError, match=r"Expected finite images of bad\. Received: NaN or infinity"):
        make_attack("bad", ThreatModel(EPSILON))(ensemble, *images_and_labels())


@pytest.mark.parametrize("epsilon", [1, np.float32(0.25), np.int64(1)])
def test_threat_model_of_any_number_attacks_and_travels_as_json(epsilon):
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    for name in ATTACKS:
        attack = make_attack(name, ThreatModel(epsilon))
        assert attack(ensemble, x, y).shape == x.shape
        assert json.loads(json.dumps(attack.describe()))["epsilon"] == float(epsilon)


@pytest.mark.parametrize("bad", [leaves_the_ball, leaves_the_range])
def test_result_that_breaks_the_threat_model_raises(bad, monkeypatch):
    monkeypatch.setitem(ATTACKS, "bad", Method(bad))
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    with pytest.raises(FloatingPointError, match="Expected bad images within ThreatModel"):
        make_attack("bad", ThreatModel(EPSILON))(ensemble, x, y)


def test_registered_attack_is_made_and_run_like_the_others(monkeypatch):
    def halfway(logits, x, y, threat, *, share):
        return tf.clip_by_value(x + share * threat.epsilon, threat.clip_min, threat.clip_max)

    share = Parameter(0.5, "0 < share <= 1", lambda share: 0 < share <= 1)
    monkeypatch.setitem(ATTACKS, "halfway", Method(halfway, {"share": share}))
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    plain, given = (make_attack("halfway", ThreatModel(EPSILON), **own) for own in ({}, {"share": 0.25}))
    np.testing.assert_allclose(plain(ensemble, x, y), np.minimum(x + 0.05, 1), atol=1e-6)
    np.testing.assert_allclose(given(ensemble, x, y), np.minimum(x + 0.025, 1), atol=1e-6)
    assert plain.describe()["params"] == {"share": 0.5} and given.describe()["params"] == {"share": 0.25}
    with pytest.raises(InputError, match=r"Expected 0 < share <= 1\. Received: share=2"):
        make_attack("halfway", ThreatModel(EPSILON), share=2)


def test_registered_attack_with_a_random_start_is_given_one(monkeypatch):
    monkeypatch.setitem(
        ATTACKS, "start", Method(lambda logits, x, y, threat, *, start: start, random_start=True)
    )
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    start = make_attack("start", ThreatModel(EPSILON))(ensemble, x, y, seed=SEED)
    np.testing.assert_allclose(start, np.clip(x + random_start(x.shape, EPSILON), 0, 1), atol=1e-7)


def test_every_attack_of_the_paper_is_there():
    assert set(paper.ATTACKS) <= set(ATTACKS)


# Randomness.


@pytest.mark.parametrize("name", ["rfgsm", "pgd_cw"])
def test_random_start_is_a_function_of_the_seed_alone(name):
    ensemble = Ensemble(conv_members(2), CrossEntropy())
    x, y = images_and_labels()
    attack = quick_attack(name, ThreatModel(EPSILON))
    tf.random.set_seed(1)
    first = attack(ensemble, x, y, seed=3).numpy()
    other = attack(ensemble, x, y, seed=4).numpy()
    tf.random.set_seed(2)
    tf.random.normal([5])
    np.testing.assert_array_equal(attack(ensemble, x, y, seed=3), first)
    np.testing.assert_array_equal(quick_attack(name, ThreatModel(EPSILON))(ensemble, x, y, seed=3), first)
    assert (np.abs(first - other) > 1e-3).mean() > 0.02


@pytest.mark.parametrize("name", ["fgsm", "ifgsm", "mifgsm"])
def test_attack_without_a_random_start_does_not_see_the_seed(name):
    ensemble, _ = linear_ensemble(2)
    x, y = images_and_labels()
    attack = quick_attack(name, ThreatModel(EPSILON))
    np.testing.assert_array_equal(attack(ensemble, x, y, seed=3), attack(ensemble, x, y, seed=4))


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


@pytest.mark.parametrize("name", ATTACKS)
def test_one_trace_serves_all_batches_a_smaller_last_one_included(name):
    target, (x, y) = CountingTarget(), images_and_labels()
    attack = quick_attack(name, ThreatModel(EPSILON))
    attack(target, x, y)
    calls = target.calls
    # A trace runs the target for its output's shape, and once for the gradient of all steps.
    assert calls <= 3
    for count in (6, 6, 2, 1):
        attack(target, x[:count], y[:count], seed=count)
    assert target.calls == calls


def test_target_is_kept_alive_by_nobody():
    target, (x, y) = CountingTarget(), images_and_labels()
    attacks = [quick_attack(name, ThreatModel(EPSILON)) for name in ("fgsm", "mifgsm", "pgd_cw")]
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


@pytest.mark.parametrize("name", ATTACKS)
def test_callable_target_equals_an_ensemble_of_that_one_member(name):
    member = conv_members(1)[0]
    x, y = images_and_labels()
    attack = quick_attack(name, ThreatModel(EPSILON))
    by_callable = attack(member, x, y, seed=SEED)
    np.testing.assert_allclose(
        by_callable, attack(Ensemble([member], CrossEntropy()), x, y, seed=SEED), atol=1e-6
    )


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
        ("deepfool", {}, "attack as one of ['fgsm', 'ifgsm', 'mifgsm', 'pgd_cw', 'rfgsm']"),
        ("fgsm", {"steps": 3}, "parameters of fgsm among []"),
        ("ifgsm", {"step": 0.1}, "parameters of ifgsm among ['steps']"),
        ("pgd_cw", {"rate": 1}, "parameters of pgd_cw among ['steps', 'step', 'confidence']"),
        ("ifgsm", {"steps": 0}, "whole steps >= 1. Received: steps=0"),
        ("mifgsm", {"steps": 2.5}, "whole steps >= 1. Received: steps=2.5"),
        ("mifgsm", {"decay": -1.0}, "finite decay >= 0"),
        ("mifgsm", {"decay": float("nan")}, "finite decay >= 0"),
        ("pgd_cw", {"step": 1.5}, "0 < step <= 1"),
        ("pgd_cw", {"step": 0.0}, "0 < step <= 1"),
        ("pgd_cw", {"confidence": -5.0}, "finite confidence >= 0"),
        ("pgd_cw", {"step": "a"}, "0 < step <= 1, in units of epsilon. Received: step='a'"),
        ("ifgsm", {"steps": True}, "whole steps >= 1. Received: steps=True"),
    ],
)
def test_unknown_attacks_and_bad_parameters_are_refused(name, params, expected):
    with pytest.raises(InputError) as caught:
        make_attack(name, ThreatModel(0.1), **params)
    assert expected in str(caught.value)


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
    assert set(NAMES) == set(ATTACKS)
    assert make_attack("ifgsm", ThreatModel(0.1), steps=np.int64(3)).describe()["params"] == {"steps": 3}


# Sure members, and the rim of the ball.


@pytest.mark.parametrize("lead", [30.0, 100.0, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("name", ["fgsm", "rfgsm", "ifgsm", "mifgsm"])
def test_members_of_any_sureness_are_attacked_along_the_least_sure_one(name, lead):
    """Of members that lead by 1, 2 and 3 times `lead` the first one's loss counts: exp(-30) to 1."""
    biases = np.zeros((3, CLASSES), "float32")
    biases[:, 0], biases[:, 1] = [lead, 2 * lead, 3 * lead], 10
    ensemble, closed = linear_ensemble(3, biases=biases)
    x, y = images_and_labels(12)[0], np.zeros(12, int)
    direction = np.sign(closed.weights[0, :, 1] - closed.weights[0, :, 0]).reshape(SHAPE)
    x_adv = make_attack(name, ThreatModel(0.01))(ensemble, x, y, seed=SEED).numpy()
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
    "name", [pytest.param(each, marks=[] if each == "mifgsm" else pytest.mark.slow) for each in ATTACKS]
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
    x_adv = make_attack(name, threat)(conv_members(1)[0], x, y, seed=SEED).numpy()
    assert low <= x_adv.min() and x_adv.max() <= high
    ulp = np.spacing(np.float32(max(abs(low), abs(high), 1)))
    assert np.abs(x_adv.astype("float64") - x).max() <= epsilon + 4 * ulp
