"""Attacks of the extra `attacks`: Square against a twin in NumPy, AutoPGD against closed forms."""

import dataclasses
import importlib.util
import itertools
import math
import re
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf import CrossEntropy
from divtf.attacks import auto_pgd as pgd_module
from divtf.attacks.attack import compose_attack, make_attack, towards
from divtf.attacks.auto_pgd import auto_pgd
from divtf.attacks.outside import scores_of, square
from divtf.attacks.searches import Search
from divtf.attacks.threat import ThreatModel
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError
from divtf.evaluation.adversarial_sets import AdversarialSets

needs_art = pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="needs the extra `attacks`")
SHAPE, CLASSES = (8, 8, 3), 4
RNG = np.random.default_rng(3)
X = RNG.random((24, *SHAPE), dtype="float32")
WEIGHTS = RNG.normal(size=(math.prod(SHAPE), CLASSES)) / 8


def linear(x, weights=WEIGHTS):
    """Logits in NumPy and float64."""
    return np.reshape(x, (len(x), -1)).astype("float64") @ weights


def linear_target(weights=WEIGHTS):
    return lambda x: tf.reshape(x, (-1, len(weights))) @ tf.constant(weights, tf.float32)


Y = linear(X).argmax(axis=1)


def square_twin(logits, x, y, epsilon, queries, initial, seed):
    """Algorithms 1 and 2 of Andriushchenko et al. (2020) as AutoAttack draws them: images, and queries taken.

    One square an iteration, at one place for all images, each channel up or down by 2 epsilon and back into
    the ball. Its side is that of a share p of the image, p halved at these shares of the iterations.
    """
    halvings = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    draw, origin, x = np.random.RandomState(seed), np.float64(x), np.float64(x)
    height, width, channels = x.shape[1:]

    def margins(images):
        z = logits(images)
        own = z[np.arange(len(z)), y]
        z[np.arange(len(z)), y] = -np.inf
        return own - z.max(axis=1)

    best = margins(x)
    taken = np.where(best < 0, 0, queries + 1)
    for query in range(1, queries + 1):
        standing = best >= 0
        if not standing.any():
            break
        change = np.zeros(x.shape)
        if query == 1:
            size = (standing.sum(), 1, width, channels)
            change[standing] += epsilon * draw.choice([-1, 1], size=size)
        else:
            share = (query - 2) / (queries - 1)
            p = initial / 2 ** sum(share > halving for halving in halvings)
            side = max(round(math.sqrt(p * height * width)), 1)
            top, left = draw.randint(0, height - side), draw.randint(0, width - side)
            signs = draw.choice([-2 * epsilon, 2 * epsilon], size=channels)
            change[:, top : top + side, left : left + side] = signs
        proposed = np.clip(np.clip(x + change, origin - epsilon, origin + epsilon), 0, 1)
        found = margins(proposed)
        better = standing & (found < best)
        x[better], best[better] = proposed[better], found[better]
        taken[better & (best < 0)] = query
    return x, taken


@needs_art
@pytest.mark.parametrize("epsilon", [0.05, 0.1])
def test_square_is_its_twin_in_numpy(epsilon):
    y = np.where(np.arange(len(X)) < 3, (Y + 1) % CLASSES, Y)
    found = square(linear, X, y, ThreatModel(epsilon), queries=60, initial=0.5, seed=5)
    images, taken = square_twin(linear, X, y, epsilon, 60, 0.5, 5)
    assert found.queries.tolist() == taken.tolist()
    np.testing.assert_allclose(found.images, images, atol=1e-6)
    # Of every kind: wrong from the start, fooled on the way, never fooled.
    assert (taken == 0).sum() == 3 and len(set(taken)) > 4 and (taken == 61).any()


@needs_art
@pytest.mark.parametrize("shape", [(8, 24, 1), (24, 8, 3), (4, 4, 1), (2, 5, 1)])
def test_square_takes_images_of_any_sides(shape):
    """Its first squares are as large as fit, where a square of that share of the image does not."""
    rng = np.random.default_rng(0)
    x = rng.random((6, *shape), dtype="float32")
    weights = rng.normal(size=(x[0].size, 3))
    y = np.argmax(x.reshape(6, -1) @ weights, axis=1)
    found = square(partial(linear, weights=weights), x, y, ThreatModel(0.1), queries=30)
    assert np.abs(found.images - x).max() == pytest.approx(0.1, abs=1e-6)
    assert (found.queries > 0).all()
    before, after = (linear(images, weights)[np.arange(6), y] for images in (x, found.images))
    assert (after < before).any()


@needs_art
def without_gradients():
    """Of a Keras model that rounds its images, and of one that is asked as a server is, in NumPy."""
    images = keras.Input(SHAPE)
    logits = layers.Dense(CLASSES)(
        layers.Flatten()(layers.Lambda(lambda x: keras.ops.round(8 * x) / 8)(images))
    )
    model = keras.Model(images, logits)
    return {"rounding": model, "served": lambda x: model.predict(np.asarray(x), verbose=0)}


@needs_art
@pytest.mark.parametrize("name", ["rounding", "served"])
def test_square_attacks_what_has_no_gradients_and_others_say_that_there_are_none(name):
    target = without_gradients()[name]
    y = np.asarray(target(X)).argmax(axis=1)
    x_adv = make_attack("square", ThreatModel(0.3), queries=30)(target, X, y)
    assert (np.asarray(target(x_adv)).argmax(axis=1) != y).any()
    assert float(np.abs(x_adv - X).max()) <= 0.3 + 1e-6
    for other in ("auto_pgd", "pgd"):
        with pytest.raises(InputError, match=r"^Expected a target that TensorFlow can differentiate"):
            make_attack(other, ThreatModel(0.3))(target, X, y)


@needs_art
def test_auto_pgd_refuses_gradients_that_are_not_finite():
    """Its best image so far would hide that it has followed none."""

    def target(x):
        x = tf.cast(x, tf.float32)
        return tf.reshape(x + tf.sqrt(0 * x), [-1, X[0].size])[:, :3]

    with pytest.raises(InputError, match=r"^Expected finite gradients of the target\. Received: NaN"):
        make_attack("auto_pgd", ThreatModel(0.3))(target, X, np.asarray(target(X)).argmax(axis=1))


def test_what_another_library_does_cannot_be_led_to_a_class():
    attack = make_attack("auto_pgd", ThreatModel(0.1))
    with pytest.raises(InputError, match=r"^Expected an attack composed of pieces.*\. Received: auto_pgd$"):
        towards(attack, "aimed")


def test_queries_tell_the_accuracy_after_each():
    found = square(linear, X, Y, ThreatModel(0.05), queries=40, seed=1)
    right = linear(found.images).argmax(axis=1) == Y
    assert ((found.queries > 40) == right).all() and 0 < right.sum() < len(X)
    assert found.images.dtype == "float32" and found.queries.dtype.kind == "i"


@needs_art
@pytest.mark.parametrize("call", [2, 3, 9])
def test_a_query_is_one_question_for_each_image_that_stands(call):
    """Constant scores: no proposal is taken over, so each is of the clean image, and new."""
    asked = []

    def fake(x):
        asked.append(x)
        wrong = len(asked) >= call
        return np.tile([0.0, 1.0] if wrong else [1.0, 0.0], (len(x), 1))

    images = 0.3 + 0.4 * X[:5]
    found = square(fake, images, np.zeros(5, int), ThreatModel(0.1), queries=20)
    # The first call is for the images as they are.
    assert found.queries.tolist() == [call - 1] * 5
    assert [len(x) for x in asked] == [5] * call
    np.testing.assert_array_equal(asked[0], images)


@needs_art
def test_nothing_is_asked_of_fooled_images_nor_twice():
    asked = []

    def remembering(x):
        asked.extend(image.tobytes() for image in x)
        return linear(x)

    found = square(remembering, X, Y, ThreatModel(0.05), queries=50)
    assert len(asked) <= len(X) + np.minimum(found.queries, 50).sum()
    assert len(set(asked[len(X) :])) >= 0.95 * len(asked[len(X) :])


@needs_art
def test_square_finds_what_an_exhaustive_search_finds():
    """Of 3 x 3 pixels the published draw leaves out the last row and column, whose weights are 0 here."""
    rng = np.random.default_rng(0)
    x = 0.3 + 0.4 * rng.random((40, 3, 3, 1), dtype="float32")
    weights = np.zeros((3, 3, 2))
    weights[:2, :2] = rng.normal(size=(2, 2, 2))
    weights = weights.reshape(9, 2)
    y, epsilon = linear(x, weights).argmax(axis=1), 0.1
    corners = np.zeros((16, 3, 3, 1))
    corners[:, :2, :2, 0] = np.array(list(itertools.product([-epsilon, epsilon], repeat=4))).reshape(-1, 2, 2)
    stands = np.all([linear(x + corner, weights).argmax(axis=1) == y for corner in corners], axis=0)
    found = square(lambda x: linear(x, weights), x, y, ThreatModel(epsilon), queries=120, initial=0.4)
    assert ((found.queries == 121) == stands).all() and 5 < stands.sum() < 35


def worst_leads(x, y, weights, epsilon):
    """The largest lead of another class over y in the ball and in [0, 1]: linear, so pixel by pixel."""
    flat = x.reshape(len(x), -1).astype("float64")
    down, up = np.maximum(flat - epsilon, 0), np.minimum(flat + epsilon, 1)
    leads = []
    for other in range(weights.shape[1]):
        slope = weights[:, other] - weights[:, y].T
        lead = (np.where(slope > 0, up, down) * slope).sum(axis=1)
        leads.append(np.where(y == other, -np.inf, lead))
    return np.max(leads, axis=0)


def leads_of(logits, y):
    others = np.where(np.eye(logits.shape[1], dtype=bool)[y], -np.inf, logits)
    return others.max(axis=1) - logits[np.arange(len(y)), y]


# The third class is far below: with one rival the closed form is what a climb has to reach.
RIVALS = np.concatenate([WEIGHTS[:, :2], WEIGHTS.mean(axis=1, keepdims=True) - 0.3], axis=1)
Y_RIVALS = linear(X, RIVALS).argmax(axis=1)


@needs_art
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_auto_pgd_reaches_the_worst_corner_of_a_linear_target(loss, scale):
    """Also of a sure one, whose float32 cross-entropy and its gradient are 0: 1e4 times the logits."""
    target, epsilon = linear_target(scale * RIVALS), 0.02
    x_adv = auto_pgd(target, X, Y_RIVALS, ThreatModel(epsilon), loss=loss, steps=40)
    expected = worst_leads(X, Y_RIVALS, RIVALS, epsilon)
    found = leads_of(linear(x_adv, RIVALS), Y_RIVALS)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert ((found > 0) == (expected > 0)).all() and 3 < (expected > 0).sum() < 21


def test_of_all_images_that_are_looked_at_the_best_are_kept():
    ask = pgd_module.traced(linear_target(), SHAPE, "dlr")
    best = pgd_module._Best(ask, X, Y)
    steps = [np.clip(X + change, 0, 1) for change in RNG.normal(0, 0.1, (5, *X.shape)).astype("float32")]
    for step in steps:
        best.model(tf.constant(step), training=False)
    leads = np.array([leads_of(linear(step), Y) for step in steps])
    first = leads.argmax(axis=0)
    assert len(set(first)) > 2
    np.testing.assert_array_equal(best.images, np.array(steps)[first, np.arange(len(X))])
    np.testing.assert_allclose(best.leads, leads.max(axis=0), atol=1e-5)


@needs_art
@pytest.mark.parametrize(("steps", "restarts"), [(1, 1), (5, 1), (5, 3), (25, 1), (100, 1)])
def test_what_auto_pgd_is_said_to_cost_is_what_it_asks_for_at_most(steps, restarts, monkeypatch):
    """Of images of which some stand to the end; the same ones are not asked for twice."""
    asked, traced = [], pgd_module.traced

    def counted(target, image_shape, loss):
        ask = traced(target, image_shape, loss)

        def count(x, y):
            if not isinstance(x, tf.Tensor) or tf.executing_eagerly():  # ART's own trace has no gradient.
                asked.append(len(x))
            return ask(x, y)

        return count

    monkeypatch.setattr(pgd_module, "traced", counted)
    attack = make_attack("auto_pgd", ThreatModel(0.01), steps=steps, restarts=restarts)
    attack(conv_ensemble(), X, np.asarray(conv_ensemble()(X)).argmax(axis=1))
    assert steps * restarts < len(asked) <= attack.gradients <= len(asked) + 3 * restarts


@needs_art
def test_auto_pgd_attacks_the_mean_probability_of_an_ensemble():
    ensemble = conv_ensemble()
    y = np.asarray(ensemble(X)).argmax(axis=1)
    x_adv = auto_pgd(ensemble, X, y, ThreatModel(0.03), steps=20, restarts=2)
    logits = np.asarray(ensemble.member_logits(x_adv), "float64")
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    right = (p / p.sum(axis=-1, keepdims=True)).mean(axis=0).argmax(axis=-1) == y
    assert right.mean() < 0.5


@needs_art
def test_later_restarts_attack_what_stands_and_keep_what_fell():
    ensemble = conv_ensemble()
    y = np.asarray(ensemble(X)).argmax(axis=1)
    one, three = (
        auto_pgd(ensemble, X, y, ThreatModel(0.01), steps=5, restarts=restarts) for restarts in (1, 3)
    )
    before, after = (leads_of(np.asarray(ensemble(x)), y) for x in (one, three))
    assert (after >= before).all() and (after > before).any()
    np.testing.assert_array_equal(three[before > 0], one[before > 0])


@needs_art
def test_images_between_two_classes_are_attacked_as_the_library_tells_them():
    """Of scores that are level the first class is predicted: it stands if that is the label."""

    def level(x):
        first = tf.reduce_mean(x, axis=[1, 2, 3])
        return tf.stack([first, first, -first], axis=1)

    x_adv = auto_pgd(level, X, np.arange(len(X)) % 2, ThreatModel(0.03), steps=3)
    assert np.abs(x_adv - X).max() <= 0.03 + 1e-6


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("square", {"queries": 1}, "whole queries >= 2"),
        ("square", {"queries": 2.5}, "whole queries >= 2"),
        ("square", {"initial": 1.0}, "initial in (0, 1)"),
        ("square", {"initial": "half"}, "initial in (0, 1)"),
        ("auto_pgd", {"steps": 0}, "whole steps >= 1"),
        ("auto_pgd", {"restarts": 0}, "whole restarts >= 1"),
        ("auto_pgd", {"loss": "foo"}, "loss as one of"),
        ("auto_pgd", {"loss": ["dlr"]}, "loss as one of"),
    ],
)
def test_search_that_cannot_be_is_refused_when_it_is_made(name, values, words):
    with pytest.raises(InputError, match=re.escape(words)):
        make_attack(name, ThreatModel(0.1), **values)


def conv_ensemble():
    rng, members = np.random.default_rng(4), []
    for n in range(2):
        images = keras.Input(SHAPE)
        x = layers.Conv2D(4, 3, activation="tanh")(images)
        member = keras.Model(images, layers.Dense(CLASSES)(layers.Flatten()(x)), name=f"conv_{n}")
        member.set_weights([rng.normal(size=weight.shape) / 3 for weight in member.get_weights()])
        members.append(member)
    return Ensemble(members, CrossEntropy())


def square_images(x, y, threat, seed):
    return square(scores_of(linear_target(), SHAPE), x, y, threat, queries=30, seed=seed).images


def auto_pgd_images(x, y, threat, seed):
    return auto_pgd(linear_target(), x, y, threat, steps=5, seed=seed)


BOTH = pytest.mark.parametrize("attack", [square_images, auto_pgd_images], ids=["square", "auto_pgd"])


@needs_art
@BOTH
@pytest.mark.parametrize(("epsilon", "low", "high"), [(0.3, -0.5, 1.25), (0.8, 0.1, 0.9)])
def test_images_stay_in_the_ball_and_in_their_range(attack, epsilon, low, high):
    """The second range's ends are no float32, and x + (0.1 - x) is often just below 0.1."""
    threat, low, high = ThreatModel(epsilon, clip_min=low, clip_max=high), np.float32(low), np.float32(high)
    x = np.clip(2 * X - 0.6, low, high)
    y = linear(x).argmax(axis=1)
    wrong = np.arange(len(x)) < 4
    y[wrong] = (y[wrong] + 1) % CLASSES
    x_adv = attack(x, y, threat, seed=0)
    assert x_adv.dtype == "float32" and x_adv.shape == x.shape
    assert np.abs(x_adv - x).max() <= epsilon + 1e-6
    assert x_adv.min() == low and x_adv.max() == high
    np.testing.assert_array_equal(x_adv[wrong], x[wrong])
    assert (x_adv[~wrong] != x[~wrong]).any(axis=(1, 2, 3)).all()


@needs_art
@BOTH
def test_a_seed_tells_the_images_and_the_global_generator_goes_on_as_before(attack):
    np.random.seed(11)
    expected = np.random.random(3)
    np.random.seed(11)
    one, same, other = (attack(X, Y, ThreatModel(0.02), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(np.random.random(3), expected)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@needs_art
def test_labels_may_be_one_hot():
    threat, one_hot = ThreatModel(0.05), np.eye(CLASSES)[Y]
    found, same = (square(linear, X, y, threat, queries=5) for y in (Y, one_hot))
    np.testing.assert_array_equal(found.images, same.images)


@needs_art
def test_nothing_stands_nothing_is_searched():
    wrong = (Y + 1) % CLASSES
    found = square(linear, X, wrong, ThreatModel(0.05))
    assert not found.queries.any()
    np.testing.assert_array_equal(found.images, X)
    np.testing.assert_array_equal(auto_pgd(linear_target(), X, wrong, ThreatModel(0.05)), X)


def test_losses_are_those_of_their_paper():
    """Equation 6 of Croce & Hein (2020), by sorting; the margin's softplus is the cross-entropy."""
    z = RNG.normal(size=(50, 5))
    y = RNG.integers(5, size=50)
    ranked = np.sort(z, axis=1)
    others = np.where(np.eye(5, dtype=bool)[y], -np.inf, z).max(axis=1)
    own = z[np.arange(50), y]
    expected = -(own - others) / (ranked[:, -1] - ranked[:, -3])
    losses = {name: loss(tf.constant(z), tf.constant(y)).numpy() for name, loss in pgd_module._LOSSES.items()}
    np.testing.assert_allclose(losses["dlr"], expected)
    entropy = np.log(np.exp(z).sum(axis=1)) - own
    np.testing.assert_allclose(np.log1p(np.exp(losses["cross_entropy"])), entropy)


def bad(attack, x=X, y=Y, threat=None, **values):
    return lambda: attack(linear_target(), x, y, threat or ThreatModel(0.1), **values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (bad(square, X.reshape(24, -1)), r"images \[n, H, W, C\] for square.*Received: shape \(24, 192\)"),
        (bad(square, X[:3]), "as many images as labels.*3 and 24"),
        (bad(square, 2 * X), r"images in \[0.0, 1.0\].*values from"),
        (bad(square, y=Y - CLASSES), r"labels in \[0, 4\).*from -"),
        (bad(square, queries=1), "whole queries >= 2.*queries=1"),
        (bad(square, initial=1.0), r"initial in \(0, 1\).*1.0"),
        (bad(square, X[:, :1]), "at least 2 x 2 pixels for square.*1 x 8"),
        (bad(auto_pgd, steps=0), "whole steps >= 1.*steps=0"),
        (bad(auto_pgd, restarts=True), "whole restarts >= 1.*restarts=True"),
        (bad(auto_pgd, loss="hinge"), r"loss as one of \['cross_entropy', 'dlr'\].*'hinge'"),
        (bad(auto_pgd, y=Y + 2), r"labels in \[0, 4\).*from 4 to"),
        (
            lambda: auto_pgd(linear_target(WEIGHTS[:, :2]), X, Y % 2, ThreatModel(0.1), loss="dlr"),
            "3 classes",
        ),
        (
            lambda: auto_pgd(lambda x: tf.nn.softmax(linear_target()(x)), X, Y, ThreatModel(0.1)),
            "probabilities",
        ),
    ],
)
def test_what_does_not_fit_gets_one_line(call, message):
    with pytest.raises(InputError, match=rf"^Expected .*{message}"):
        call()


@needs_art
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: square(lambda x: np.full((len(x), 2), np.nan), X, Y, ThreatModel(0.1)), "finite scores"),
        (lambda: square(lambda x: np.zeros(len(x)), X, Y, ThreatModel(0.1)), r"scores \[b, C\].*\(24,\)"),
        (bad(square, y=Y + 2), r"labels in \[0, 4\).*from 4 to"),
        (bad(square, seed=-1), r"a seed in \[0, 2\^32\).*seed=-1"),
        (bad(auto_pgd, seed=0.5), r"a seed in \[0, 2\^32\).*seed=0.5"),
    ],
)
def test_what_a_target_tells_that_does_not_fit_gets_one_line(call, message):
    with pytest.raises(InputError, match=rf"^Expected .*{message}"):
        call()


@pytest.mark.parametrize("attack", [square, auto_pgd])
def test_without_the_extra_one_line_says_how_to_get_it(attack, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "art" else find(name, *rest)
    )
    expected = (
        rf"^Expected what {attack.__name__} needs: pip install 'divtf\[attacks\]'\. Received: no art in"
    )
    with pytest.raises(InputError, match=expected):
        bad(attack)()


SCRIPT = """
import logging, sys, warnings
import keras, numpy as np, tensorflow as tf
from divtf.attacks import outside
from divtf.attacks.searches import Search
from divtf.attacks.threat import ThreatModel
assert "art" not in sys.modules, "the module alone does not need it"
handler = logging.FileHandler(sys.argv[1], mode="w")
logging.getLogger("mine").addHandler(handler)
warnings.simplefilter("error")
logging.getLogger("mine").warning("before")
def state():
    return list(warnings.filters), keras.backend.backend(), keras.config.floatx(), logging.root.handlers[:]
before = state()
x = np.full([2, 4, 4, 1], 0.5, "float32")
outside.square(lambda x: x.reshape(len(x), -1)[:, :2], x, [0, 0], ThreatModel(0.1), queries=3, initial=0.4)
assert "art" in sys.modules
assert before == state() and tf.executing_eagerly()
logging.getLogger("mine").warning("after")
"""


@needs_art
def test_importing_art_leaves_the_program_as_it_is(tmp_path):
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "before\nafter\n" and "it/s" not in done.stderr


@needs_art
@pytest.mark.parametrize(("name", "params"), [("square", {"queries": 30}), ("auto_pgd", {"steps": 5})])
def test_searches_are_attacks_like_the_others(name, params, tmp_path):
    """Made by name, kept in sets, and the same as the function on the same batch and seed."""
    attack = make_attack(name, ThreatModel(0.1), **params)
    weights = [WEIGHTS.astype("float32"), np.zeros(CLASSES, "float32")]
    images = keras.Input(SHAPE)
    member = keras.Model(images, layers.Dense(CLASSES)(layers.Flatten()(images)))
    member.set_weights(weights)
    ensemble = Ensemble([member], CrossEntropy())
    sets = AdversarialSets(ensemble, tmp_path)
    made, kept = sets.images(attack, X, Y, seed=3)
    assert kept and sets.images(attack, X, Y, seed=3)[1] == kept
    if name == "square":
        expected = square(scores_of(ensemble, SHAPE), X, Y, attack.threat, seed=3, **params).images
    else:
        expected = auto_pgd(ensemble, X, Y, attack.threat, seed=3, **params)
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(attack(ensemble, X, Y, seed=3), expected)
    assert attack.describe()["params"].items() >= params.items()
    assert (attack.queries, attack.gradients) == ((30, 0) if name == "square" else (0, 11))
    with pytest.raises(InputError, match="Expected parameters among"):
        make_attack(name, ThreatModel(0.1), nonsense=1)


def test_a_search_of_ones_own_needs_no_art(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Still(Search):
        def prepared(self, target, members, image_shape, threat):
            return lambda x, *_: x

    monkeypatch.setitem(sys.modules, "art", None)
    x_adv = compose_attack("still", ThreatModel(0.1), Still())(linear_target(), X, Y)
    np.testing.assert_array_equal(x_adv, X)
