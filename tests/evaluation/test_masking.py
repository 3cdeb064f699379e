"""Checks of an evaluation: each judge at its boundary, and targets that hide their gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from divtf.attacks.attack import Attack, make_attack
from divtf.attacks.threat import ThreatModel
from divtf.errors import InputError
from divtf.evaluation import masking
from divtf.evaluation.guarded import Guarded
from divtf.evaluation.masking_report import (
    Effort,
    batch_bound,
    escalated,
    lacking_gradients,
    masking_report,
    unrepeated,
)
from divtf.evaluation.predictions import predictions
from divtf.networks.logits import MemberList, member_logits
from divtf.storage.records import unpacked

# A hundred images, of which the first so many are fooled.
N = 100


def first(count):
    return np.arange(N) < count


def last(count):
    return first(count)[::-1]


class TestJudges:
    @pytest.mark.parametrize(("single", "passed"), [(29, True), (31, True), (32, False)])
    def test_a_single_step_fools_no_more(self, single, passed):
        check = masking.judge_single_step(last(single), first(30))
        assert (check.name, check.passed) == ("single step", passed)
        assert check.figure == pytest.approx((single - 30) / N)
        assert f"fools {single}.0 %" in check.sentence
        assert ("leads astray" in check.sentence) is not passed

    @pytest.mark.parametrize(("alone", "passed"), [(0, True), (1, True), (2, False)])
    def test_no_black_box_fools_what_the_white_box_does_not(self, alone, passed):
        """However many more the white box fools."""
        black = {"square": first(20), "transfer": first(30 + alone) & last(90)}
        check = masking.judge_black_box(first(30), black)
        assert (check.name, check.passed) == ("black box", passed)
        assert check.figure == pytest.approx(alone / N)
        assert check.sentence.startswith("transfer," if alone else "square,")
        assert f"fools {alone} of 100 images that no white-box attack does" in check.sentence

    @pytest.mark.parametrize(("fooled", "passed"), [(100, True), (99, False)])
    def test_nothing_withstands_the_whole_range(self, fooled, passed):
        check = masking.judge_unbounded(first(fooled))
        assert (check.name, check.passed) == ("unbounded", passed)
        assert check.figure == pytest.approx(1 - fooled / N)

    @pytest.mark.parametrize(("lacking", "passed"), [(0, True), (1, True), (2, False), (100, False)])
    def test_gradients_are_there(self, lacking, passed):
        check = masking.judge_gradients({"one loss": first(0), "other loss": last(lacking)})
        assert (check.name, check.passed) == ("gradients", passed)
        assert check.figure == lacking / N
        assert f"of the other loss {lacking}.0 %" in check.sentence

    @pytest.mark.parametrize("further", ["more steps", "more restarts", "other losses"])
    @pytest.mark.parametrize(("fresh", "passed"), [(0, True), (1, True), (2, False)])
    def test_no_stronger_attack_gains_more_than_a_point(self, further, fresh, passed):
        # Those fooled before do not count, and need not be fooled again.
        check = masking.judge_gain(further, first(30), first(30 + fresh) & ~first(20))
        assert (check.name, check.passed, check.figure) == (further, passed, fresh / N)

    @pytest.mark.parametrize("name", ["repeated", "other batches"])
    @pytest.mark.parametrize(("changed", "passed"), [(0, True), (1, False)])
    def test_outputs_stay(self, name, changed, passed):
        check = masking.judge_repetition(name, first(changed))
        assert (check.name, check.passed, check.figure) == (name, passed, changed / N)

    def test_nothing_to_judge_is_refused(self):
        with pytest.raises(InputError, match="at least one black-box attack"):
            masking.judge_black_box(first(3), {})
        with pytest.raises(InputError, match="gradients of at least one loss"):
            masking.judge_gradients({})


THREAT = ThreatModel(0.05)
_RNG = np.random.default_rng(0)
PLACES = _RNG.random((3, 16))
Y = _RNG.integers(3, size=100)
X = (0.35 * PLACES[Y] + 0.3 + 0.1 * _RNG.normal(size=(100, 16))).clip(0, 1).astype("float32")
X = X.reshape(-1, 4, 4, 1)


def linear_member():
    """It tells apart, a little differently each time, images scattered about three places."""
    weights = 6 * (PLACES - PLACES.mean(axis=0)).T + 0.3 * _RNG.normal(size=(16, 3))
    bias = -((0.35 * PLACES + 0.3) @ weights).mean(axis=0)
    weights, bias = tf.constant(weights, tf.float32), tf.constant(bias, tf.float32)
    return lambda x: tf.reshape(x, [-1, 16]) @ weights + bias


HONEST = [linear_member() for _ in range(3)]


def behind(front):
    """The honest members, who see the images through something."""

    def through(member):
        return lambda x: member(front(x))

    return [through(member) for member in HONEST]


def signs(x):
    return 0.5 + 0.25 * tf.sign(x - 0.5)


def rounded(x):
    return keras.ops.round(8 * x) / 8


def noisy(x):
    return x + 0.1 * tf.random.normal(tf.shape(x))


def shattered(x):
    # Moves no value by more than 0.01, and its slope is between -2 and 4.
    return x + 0.01 * tf.sin(300 * x)


def not_a_number(x):
    return x + tf.sqrt(0 * x)


def centred(x):
    return x - tf.reduce_mean(x, axis=0) + 0.5


def scaled(member):
    return lambda x: 1e4 * member(x)


# By the target's name the target, the checks that it must fail, and those that it may fail as well.
BLIND = {"black box", "unbounded", "single step", "more steps", "more restarts", "other losses"}
TARGETS = {
    "honest": (HONEST, set(), set()),
    "signs": (behind(signs), {"gradients", "black box", "unbounded"}, BLIND),
    "rounded": (behind(rounded), {"gradients", "black box", "unbounded"}, BLIND),
    "stopped": (behind(tf.stop_gradient), {"gradients", "black box", "unbounded"}, BLIND),
    "not a number": (behind(not_a_number), {"gradients", "black box", "unbounded"}, BLIND),
    # Members who are that sure vote: fooling one of three moves the mean probability no further.
    "scaled": ([scaled(member) for member in HONEST], {"gradients"}, BLIND),
    "shattered": (behind(shattered), {"black box"}, BLIND),
    "noisy": (behind(noisy), {"repeated", "other batches"}, BLIND - {"unbounded"}),
    "centred": (behind(centred), {"other batches"}, BLIND - {"unbounded"}),
}
EFFORT = Effort(steps=10, times=3, losses=("mean_probability",), others=("margin",))


@pytest.fixture(name="transferred", scope="module")
def fixture_transferred():
    """Images made on the honest members, for black-box attackers of those behind something."""
    return make_attack("pgd", THREAT, steps=10, step=0.25)(MemberList(HONEST), X, Y).numpy()


def failed(name, transferred):
    target, _, _ = TARGETS[name]
    black = {"transfer": predictions(target, transferred) != Y}
    checks = masking_report(target, X, Y, THREAT, black=black, effort=EFFORT).checks
    assert [check.name for check in checks] == [
        *("gradients", "repeated", "other batches", "single step", "black box", "unbounded"),
        *("more steps", "more restarts", "other losses"),
    ]
    return {check.name for check in checks if not check.passed}


def test_honest_members_pass(transferred):
    assert failed("honest", transferred) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_targets_fail_at_what_they_hide(name, transferred):
    _, must, may = TARGETS[name]
    found = failed(name, transferred)
    assert must <= found <= must | may


def test_the_transferred_images_fool_the_honest_members(transferred):
    wrong = predictions(HONEST, X) != Y
    assert wrong.mean() < 0.05
    assert (predictions(HONEST, transferred) != Y).mean() > 0.15


@pytest.mark.parametrize("name", TARGETS)
def test_gradients_that_are_lacking(name):
    target, must, _ = TARGETS[name]
    shares = {loss: none.mean() for loss, none in lacking_gradients(target, X, Y, 30).items()}
    assert set(shares) == {"members' mean loss", "mean probability"}
    if "gradients" not in must:
        assert set(shares.values()) == {0}
    elif name == "scaled":
        # Of images that it gets wrong the mean loss has a gradient, however sure the members are.
        assert shares["mean probability"] == 1
        assert shares["members' mean loss"] > 0.9
    else:
        assert set(shares.values()) == {1}


@pytest.mark.parametrize("name", TARGETS)
def test_outputs_that_change(name):
    target, must, _ = TARGETS[name]
    found = {"repeated": unrepeated(target, X, 30), "other batches": batch_bound(target, X)}
    assert [len(changed) for changed in found.values()] == [100, 64]
    for check, changed in found.items():
        assert changed.any() == (check in must)
        assert changed.mean() in (0, pytest.approx(1, abs=0.05))


def test_outputs_may_change_by_rounding():
    outputs = iter([0.0, 0.0099, 0.0, 0.0101])

    def member(x):
        # Classes are 1 apart, in each of the images.
        return tf.tile([[0.0, next(outputs), 1.0]], [len(x), 1])

    assert not unrepeated(member, X).any()
    assert unrepeated(member, X).all()


@pytest.mark.parametrize("masked", [-1e4, -1e9])
def test_a_class_that_is_masked_away_hides_no_change(masked):
    """As is usual for classes that an image cannot have: its logit is no measure of the others."""
    rng = np.random.default_rng(0)

    def member(x):
        logits = HONEST[0](x) + 0.1 * rng.normal(size=(len(x), 3)).astype("float32")
        return tf.concat([logits, tf.fill([len(x), 1], masked)], axis=1)

    assert unrepeated(member, X).mean() > 0.9


def test_a_prediction_that_changes_is_a_change_however_little_the_outputs_differ():
    outputs = iter([0.9999, 1.0001])

    def member(x):
        return tf.tile([[0.0, -1.0, next(outputs), 1.0]], [len(x), 1])

    assert unrepeated(member, X).all()


def test_a_guarded_target_is_the_target_with_gradients():
    def slopes(target):
        with tf.GradientTape() as tape:
            tape.watch(x := tf.constant(X))
            logits = member_logits(target, x)
            value = tf.reduce_sum(logits * tf.constant([1.0, 2.0, -1.0]))
        return logits.numpy(), tape.gradient(value, x)

    for name in ("honest", "rounded", "not a number", "scaled"):
        target = MemberList(TARGETS[name][0])
        (logits, own), (guarded, given) = slopes(target), slopes(Guarded(target))
        assert (guarded == logits).all()
        assert np.isfinite(given.numpy()).all()
        if name in ("honest", "scaled"):
            assert (given.numpy() == own.numpy()).all()
        else:
            assert (given.numpy() == 0).all()


def test_outcomes_that_were_measured_before_are_judged_as_they_are():
    # An image that is wrong from the start counts, whatever an attack made of it.
    rounding, white, black = TARGETS["rounded"][0], np.arange(100) < 40, np.arange(100) >= 50
    wrong = predictions(rounding, X) != Y
    lazy = Effort(steps=1, times=1, losses=("margin",), others=())
    found = masking_report(rounding, X, Y, THREAT, white=white, black={"square": black}, effort=lazy)
    checks = {check.name: check for check in found.checks}
    further = [~np.array(unpacked(trial.hits, N)) & unpacked(trial.tried, N) for trial in found.trials]
    by_gradients = np.any([white, wrong, *further], axis=0)
    assert checks["black box"].figure == (black & ~by_gradients).mean() > 0
    assert checks["other losses"].figure == 0
    assert {name for name in checks if not checks[name].passed} == {"gradients", "black box", "unbounded"}


def test_what_further_ascents_fool_is_told_image_by_image():
    white = predictions(HONEST, X) != Y
    weak = Effort(steps=1, times=8, losses=("mean_probability",), others=("margin", "cross_entropy"))
    report = masking_report(HONEST, X, Y, THREAT, white=white, effort=weak)
    more_steps, more_restarts, margin, cross_entropy = report.trials
    told = [(trial.settings["loss"], trial.settings["steps"], trial.gradients) for trial in report.trials]
    assert told == [
        *(("mean_probability", 8, 8), ("mean_probability", 1, 8)),
        *(("margin", 1, 1), ("cross_entropy", 1, 1)),
    ]
    fooled = {}
    for trial in report.trials:
        tried, hit = (np.array(unpacked(bits, N)) for bits in (trial.tried, trial.hits))
        assert (trial.kind, trial.epsilon, trial.surrogate) == ("white box", THREAT.epsilon, "")
        assert not (hit & ~tried).any()
        fooled[id(trial)] = tried & ~hit
        if trial is not cross_entropy:
            np.testing.assert_array_equal(tried, ~white)
    # The last one got what the one before it left.
    left = ~white & ~fooled[id(margin)]
    np.testing.assert_array_equal(np.array(unpacked(cross_entropy.tried, N)), left)
    figures = {check.name: check.figure for check in report.checks}
    assert figures["more steps"] == fooled[id(more_steps)].mean() > 0.05
    assert figures["more restarts"] == fooled[id(more_restarts)].mean()
    assert figures["other losses"] == (fooled[id(margin)] | fooled[id(cross_entropy)]).mean()


@pytest.mark.parametrize("batch_size", [7, N])
def test_random_starts_are_those_of_an_image_however_the_images_are_cut(batch_size, monkeypatch):
    """Each of equal images has its own, where it stays: the rounded members have no gradient."""
    started, on_batches = [], Attack.on_batches

    def spy(self, target, batches, **options):
        for x_adv in on_batches(self, target, batches, **options):
            if self.method.random_start:
                started.extend(x_adv.numpy())
            yield x_adv

    monkeypatch.setattr(Attack, "on_batches", spy)
    same, labels = np.repeat(X[:1], N, axis=0), np.repeat(Y[:1], N)
    rounded = [lambda x, member=member: member(tf.round(20 * x) / 20) for member in HONEST]
    random = Effort(steps=1, times=1, losses=("margin",), others=())
    white = np.arange(N) % 2 == 0
    masking_report(
        rounded, same, labels, ThreatModel(1e-4), white=white, effort=random, batch_size=batch_size
    )
    first = np.array(started[: N // 2])
    assert len(np.unique(first.reshape(len(first), -1), axis=0)) == N // 2


def escalation(fooled, rounds):
    """Of attacks of 1 x 8 x 2, 1 x 8 x 4, ... steps."""
    weak = Effort(steps=1, times=8, losses=("mean_probability", "margin"), others=())
    report = escalated(HONEST, X, Y, THREAT, fooled, effort=weak, rounds=rounds)
    (check,) = report.checks
    return check, report.trials


def test_longer_and_longer_attacks_are_told_image_by_image():
    wrong = predictions(HONEST, X) != Y
    check, trials = escalation(wrong, rounds=1)
    assert [(trial.settings["loss"], trial.settings["steps"]) for trial in trials] == [
        ("mean_probability", 16),
        ("margin", 16),
    ]
    standing = ~wrong
    for trial in trials:
        tried, hit = (np.array(unpacked(bits, N)) for bits in (trial.tried, trial.hits))
        np.testing.assert_array_equal(tried, standing)
        standing = hit
        assert trial.kind == "white box"
    assert check.figure == (~wrong & ~standing).mean() > 0.05
    assert not check.passed and "with 16, it fools another" in check.sentence


def test_attacks_become_longer_until_they_gain_no_more_than_a_point():
    wrong = predictions(HONEST, X) != Y
    check, trials = escalation(wrong, rounds=5)
    steps = [trial.settings["steps"] for trial in trials]
    assert steps in ([16, 16, 32, 32], [16, 16, 32, 32, 64, 64])
    assert check.passed and check.figure <= 0.01 and f"with {steps[-1]}, it" in check.sentence


def test_further_ascents_are_scored_on_images_as_they_are_stored():
    """Of a budget smaller than half a level nothing is left once images are rounded."""
    levels = (np.round(255 * X) / 255).astype("float32")
    fine = ThreatModel(0.4 / 255)
    threshold = np.float32(0.1 / 255)

    def thin(x):
        """Wrong as soon as any pixel has left its level."""
        away = tf.reduce_max(tf.abs(x - tf.round(255 * x) / 255), axis=range(1, x.shape.rank))
        return HONEST[0](x) * tf.where(away > threshold, -1.0, 1.0)[:, None]

    found = {
        stored: masking_report(thin, levels, Y, fine, effort=EFFORT, stored_as=stored).trials
        for stored in ("float32", "uint8")
    }
    wrong = (predictions(thin, levels) != Y).sum()
    left = {stored: sum(unpacked(trials[-1].hits, N)) for stored, trials in found.items()}
    assert left["float32"] < N / 2 and left["uint8"] == N - wrong


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="Expected whether white fools each of the 100 images"):
        masking_report(HONEST, X, Y, THREAT, white=np.zeros(3, bool))
    with pytest.raises(InputError, match="Expected whether square fools each of the 100 images"):
        masking_report(HONEST, X, Y, THREAT, black={"square": np.zeros(100)})
    with pytest.raises(InputError, match=r"Received: one that gives probabilities"):
        masking_report(lambda x: tf.nn.softmax(HONEST[0](x)), X, Y, THREAT)
    for y in (Y + 1, Y - 1):
        with pytest.raises(InputError, match=r"Expected labels in \[0, 3\)"):
            masking_report(HONEST, X, y, THREAT)
    with pytest.raises(InputError, match=r"Expected images in \[0.0, 1.0\]"):
        masking_report(HONEST, 2 * X, Y, THREAT)
    with pytest.raises(InputError, match="Received: NaN for 100 of 100 images"):
        masking_report(lambda x: HONEST[0](x) * np.nan, X, Y, THREAT)
