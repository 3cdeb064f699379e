"""Whole evaluations of tiny runs: figures anew from kept images, interruptions, and what is refused."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from divtf.attacks import outside
from divtf.attacks.attack import Attack
from divtf.attacks.threat import ThreatModel
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError
from divtf.evaluation import masking, masking_report, query_counts
from divtf.pipeline import evaluation_checks, experiment, finished, shared_paths, trained
from divtf.pipeline.evaluation import evaluate_all
from divtf.pipeline.protocols import PROTOCOLS, Protocol, Trial
from divtf.pipeline.surrogates import surrogate
from divtf.storage import checked_json, run_directory
from divtf.storage.evaluations import QUERY, SHOWN_SCORES, TRANSFER, WHITE_BOX, TrialResult
from divtf.storage.records import WORST_CASE, packed, unpacked

needs_art = pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="needs the extra `attacks`")
pytestmark = [pytest.mark.usefixtures("tiny_world"), needs_art]

COUNT, EPSILONS, QUERIES = 20, (0.05, 0.2), 6
PROTOCOL = Protocol(
    name="small",
    surrogates=("plain", "plain1+noise"),
    transfer=(Trial("fgsm"), Trial("pgd", {"steps": 3}, versions=2)),
    white_box=(Trial("pgd", {"steps": 3, "loss": "margin"}),),
    queries=QUERIES,
    query_images=7,
    checks=True,
    images=COUNT,
)
MODES = ("base", "div")


def config_of(root, mode, **values):
    budget = {"epochs": 2, "attacks": ("fgsm",), "epsilons": EPSILONS, "batch_size": 24}
    return tiny.config(mode=mode, run_dir=str(root / mode), **budget | values)


def evaluate(family, protocol, **options):
    return evaluate_all([family], protocol, **options)


def family(root):
    (found,) = finished.families([root / mode for mode in MODES])
    return found


def few_checks(target, x, y, threat, *, white, effort, stored_as):
    """In place of all the checks that have tests of their own: one that takes no attack."""
    checks = [masking.judge_gradients(masking_report.lacking_gradients(target, x, y))]
    return masking_report.MaskingReport(checks, [])


@pytest.fixture(scope="module")
def less():
    """Few checks, at the smallest epsilon alone, and evasion with few steps, for which no test is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_checks, "_FEW", 1.0)
        patch.setattr(evaluation_checks, "_EVADING_STEPS", 2)
        patch.setattr(evaluation_checks, "masking_report", few_checks)
        patch.setattr(query_counts, "_BATCH", 4)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_world):
    """The root of two finished runs, with their surrogate."""
    root = tmp_path_factory.mktemp("runs")
    for mode in MODES:
        experiment.run(config_of(root, mode))
    return root


@pytest.fixture(scope="module")
def evaluated(runs, less, tmp_path_factory):
    """The root of the same, evaluated without interruption; the records; what was done."""
    root = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(runs, root, dirs_exist_ok=True)
    with Work() as work:
        records = evaluate(family(root), PROTOCOL)
    return root, {record.target: record for record in records}, work.done


class Work(contextlib.AbstractContextManager):
    """Notes what is costly: trainings, sets of adversarial images, batches of Square, checks, detection.

    Args:
        fail_at: such a piece of work is interrupted before it is done.
    """

    def __init__(self, fail_at=None):
        self.done, self._patch, self._fail_at = [], pytest.MonkeyPatch(), fail_at
        self._note(Ensemble, "fit", lambda *args, **kwargs: "trained")
        self._note(Attack, "on_batches", lambda attack, *args, **kwargs: f"attacked by {attack.name}")
        self._note(outside, "square", lambda *args, **kwargs: "asked")
        self._note(evaluation_checks, "masking_report", lambda *args, **kwargs: "checked")
        self._note(evaluation_checks, "evaluate_detection", lambda *args, **kwargs: "detected")

    def _note(self, owner, name, what):
        original = getattr(owner, name)

        def noted(*args, **kwargs):
            if len(self.done) == self._fail_at:
                raise KeyboardInterrupt
            self.done.append(what(*args, **kwargs))
            return original(*args, **kwargs)

        self._patch.setattr(owner, name, noted)

    def __exit__(self, *error):
        self._patch.undo()


def without_analysis(record):
    return dataclasses.replace(record, analysis={})


def members_of(root, config):
    directory = root / config.mode
    if config.seed:
        directory = shared_paths.directory_of(config)
    return tiny.weights(trained.restore(config, tiny.data().spec, directory))


def predicted(weights, x):
    """By the mean of the members' probabilities, without TensorFlow."""
    flat = np.reshape(x, (len(x), -1)).astype("float64")
    return np.mean([p for _, p in tiny.forward(weights, flat)], axis=0).argmax(axis=1)


def numbers(bits):
    return np.flatnonzero(unpacked(bits, COUNT))


def image_file(root, trial):
    """The images of a set, found by the digest that the record has of their file."""
    (path,) = (
        path
        for path in root.glob("**/adversarial/*.npy")
        if hashlib.sha256(path.read_bytes()).hexdigest() == trial.adversarial_set
    )
    return np.load(path)


def test_every_figure_is_that_of_the_kept_images_and_a_plain_prediction(evaluated):
    root, records, _ = evaluated
    x, y = tiny.data().test_set(COUNT)
    beyond = []
    for mode, target in zip(MODES, ("T_Base", "T_Div"), strict=True):
        record, weights = records[target], members_of(root, config_of(root, mode))
        clean = predicted(weights, x) == y
        assert record.clean_hits == tuple(clean)
        for epsilon in EPSILONS:
            kinds = {kind: clean.copy() for kind in (TRANSFER, WHITE_BOX, QUERY)}
            for trial in (t for t in record.trials if t.epsilon == epsilon):
                tried, hits = numbers(trial.tried), numbers(trial.hits)
                if trial.kind == QUERY:
                    fooled = np.array(trial.queries_taken) <= QUERIES
                    left = kinds[TRANSFER] & kinds[WHITE_BOX]
                    assert tried.tolist() == np.flatnonzero(np.r_[clean[:7], left[7:]]).tolist()
                    beyond.append(int((tried >= 7).sum()))
                elif len(tried):
                    x_adv = image_file(root, trial)
                    assert np.abs(x_adv - x[tried]).max() <= epsilon + 1e-6
                    fooled = predicted(weights, x_adv) != y[tried]
                assert hits.tolist() == tried[~fooled].tolist() if len(tried) else not len(hits)
                if len(tried):
                    kinds[trial.kind][tried[fooled]] = False
            for kind, stands in kinds.items():
                assert record.standing_under(kind, epsilon) == tuple(stands), (target, epsilon, kind)
            assert record.standing(epsilon) == tuple(np.all([*kinds.values()], axis=0))
    accuracies = {sum(r.standing_under(TRANSFER, e)) for r in records.values() for e in EPSILONS}
    assert any(beyond), "Square is asked for others than the first"
    assert len(accuracies) > 2, "targets and epsilons are told apart"


def test_fgsm_from_plain_is_that_written_out_in_numpy(evaluated):
    """x + epsilon sign(d/dx of the members' mean cross-entropy), held to [0, 1]; Equation 2."""
    root, records, _ = evaluated
    x, y = tiny.data().test_set(COUNT)
    config = config_of(root, "base")
    weights = members_of(root, config.base(config.surrogate_seed))
    trial = records["T_Base"].trials[0]
    assert (trial.attack, trial.surrogate, trial.epsilon) == ("fgsm", "plain", EPSILONS[0])
    tried = numbers(trial.tried)
    flat = np.reshape(x[tried], (len(tried), -1)).astype("float64")
    gradient = np.mean([gradient(y[tried]) for gradient, _ in tiny.forward(weights, flat)], axis=0)
    expected = np.clip(flat + EPSILONS[0] * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(image_file(root, trial).reshape(len(tried), -1), expected, atol=1e-6)


def test_several_surrogates_are_one_of_all_their_members(evaluated):
    """The mean of three members' cross-entropies, of two ensembles."""
    root, records, _ = evaluated
    x, y = tiny.data().test_set(COUNT)
    weights = [
        members
        for config in surrogate("plain1+noise", config_of(root, "base")).trained
        for members in members_of(root, config)
    ]
    assert len(weights) == 3
    trial = records["T_Base"].trials[1]
    assert (trial.attack, trial.surrogate) == ("fgsm", "plain1+noise")
    tried = numbers(trial.tried)
    flat = np.reshape(x[tried], (len(tried), -1)).astype("float64")
    gradient = np.mean([gradient(y[tried]) for gradient, _ in tiny.forward(weights, flat)], axis=0)
    expected = np.clip(flat + EPSILONS[0] * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(image_file(root, trial).reshape(len(tried), -1), expected, atol=1e-6)
    accuracy = (predicted(weights, x) == y).mean()
    told = records["T_Base"].surrogates["plain1+noise"]
    assert told["clean accuracy"] == pytest.approx(accuracy)
    assert (told["members"], told["made of"], told["seed"]) == (3, "plain1+noise", "1101 + 1005")


def test_trials_are_those_of_the_protocol_in_order(evaluated):
    _, records, _ = evaluated
    of_transfer = [
        (TRANSFER, attack, surrogate_name, version)
        for attack, versions in (("fgsm", 1), ("pgd", 2))
        for surrogate_name in PROTOCOL.surrogates
        for version in range(versions)
    ]
    each = [*of_transfer, (WHITE_BOX, "pgd", "", 0), (QUERY, "square", "", 0)]
    for record in records.values():
        found = [(t.kind, t.attack, t.surrogate, t.version) for t in record.trials]
        assert found == each * 2
        assert [t.epsilon for t in record.trials] == [e for e in EPSILONS for _ in each]


def test_queries_are_those_of_the_attack_itself(evaluated):
    root, records, _ = evaluated
    x, y = tiny.data().test_set(COUNT)
    ensemble = trained.restore(config_of(root, "div"), tiny.data().spec, root / "div")
    trial = next(t for t in records["T_Div"].trials if t.kind == QUERY)
    expected = []
    tried = numbers(trial.tried)
    first, others = tried[tried < 7], tried[tried >= 7]
    for part in (first[:4], first[4:], *(others[i : i + 4] for i in range(0, len(others), 4))):
        if len(part):
            given = {"queries": QUERIES, "seed": int(part[0])}
            threat = ThreatModel(EPSILONS[0])
            expected += outside.square(
                lambda x: ensemble(x).numpy(), x[part], y[part], threat, **given
            ).queries.tolist()
    assert list(trial.queries_taken) == expected


def test_record_says_what_it_is_of(evaluated):
    root, records, _ = evaluated
    for mode, target in zip(MODES, records, strict=True):
        record, run = records[target], finished.read_record(root / mode)
        assert record.common() == run.common()
        assert (record.protocol, record.images, record.epsilons) == ("small", COUNT, EPSILONS)
        assert (record.query_images, record.stored_as) == (7, "float32")
        assert record.paper == tuple(run.result(WORST_CASE, epsilon) for epsilon in EPSILONS)
        assert {"command", "commit", "tensorflow"} <= set(record.analysis)
        kept = finished.read_evaluation(root / mode, "small")
        assert checked_json.read_checked(root / mode / "evaluation-small.json")["schema"] == 1
        # JSON makes lists of tuples within.
        assert (kept.trials, kept.clean, kept.checks) == (record.trials, record.clean, record.checks)
        assert kept.standing(0.2) == record.standing(0.2)


def test_checks_and_detection_are_of_the_smallest_epsilon(evaluated):
    _, records, _ = evaluated
    for record in records.values():
        names = [check["name"] for check in record.checks]
        assert names == ["gradients", "black box", "queries"]
        at = {kind: ~np.array(record.standing_under(kind, 0.05)) for kind in (TRANSFER, WHITE_BOX, QUERY)}
        found = {check["name"]: check for check in record.checks}
        for name, kind in {"black box": TRANSFER, "queries": QUERY}.items():
            alone = (at[kind] & ~at[WHITE_BOX]).mean()
            assert (found[name]["figure"], found[name]["passed"]) == (alone, alone == 0)
        attacks = record.detection["attacks"]
        assert list(attacks)[:2] == ["fgsm from plain", "pgd on the target"]
        first = {kind: next(t for t in record.trials if t.kind == kind) for kind in (TRANSFER, WHITE_BOX)}
        for name, trial in zip(attacks, first.values(), strict=False):
            fooled = sum(record.fooled(trial)[number] for number in np.flatnonzero(record.clean_hits))
            assert attacks[name] == {"images": len(numbers(trial.tried)), "fooled": fooled}
        assert record.detection["clean"]["images"] == 24, "all test images set the thresholds"


def test_checks_are_of_each_epsilon_at_which_more_than_a_few_images_stand(evaluated, tmp_path, monkeypatch):
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    monkeypatch.setattr(evaluation_checks, "_FEW", 0.05)
    for record in evaluate(family(root), PROTOCOL):
        stand = {epsilon: sum(record.standing_under(WHITE_BOX, epsilon)) for epsilon in record.epsilons}
        assert stand[0.2] > 0.05 * COUNT, "else this tests nothing"
        names = [record.check_name(check) for check in record.checks]
        assert names == ["gradients", "black box", "queries", "black box, at 0.2", "queries, at 0.2"]
        at = {kind: ~np.array(record.standing_under(kind, 0.2)) for kind in (TRANSFER, WHITE_BOX)}
        assert record.checks[3]["figure"] == (at[TRANSFER] & ~at[WHITE_BOX]).mean()


def test_checks_go_further_than_the_white_box_whose_images_they_go_on_with():
    """Or a target would pass by what was tried on it less than before."""
    steps = [trial.params["steps"] for trial in PROTOCOLS["strong"].white_box if trial.attack == "pgd"]
    further = evaluation_checks._EFFORT.further(ThreatModel(0.1))
    (longer,), (restarted,) = further["more steps"], further["more restarts"]
    assert longer.method.steps > 2 * max(steps)
    assert restarted.method.steps >= max(steps) and restarted.method.restarts > 2


def test_what_the_checks_fool_counts_in_the_white_box_and_in_everything(evaluated, tmp_path, monkeypatch):
    def checks_that_fool(target, x, y, threat, *, white, **known):
        """An ascent fools the images of the first class."""
        tried = packed(~white), packed(~white & (y > 0))
        ascent = TrialResult("pgd", WHITE_BOX, threat.epsilon, {"steps": 99}, 99, 0, *tried)
        report = few_checks(target, x, y, threat, white=white, **known)
        return dataclasses.replace(report, trials=[ascent])

    root = shutil.copytree(evaluated[0], tmp_path / "root")
    monkeypatch.setattr(evaluation_checks, "masking_report", checks_that_fool)
    monkeypatch.setattr(evaluation_checks, "_EFFORT", masking_report.Effort(steps=99))
    _, y = tiny.data().test_set(COUNT)
    for record in evaluate(family(root), PROTOCOL):
        before = evaluated[1][record.target]
        assert record.trials[:-1] == before.trials and record.trials[-1].settings == {"steps": 99}
        for stands in (lambda r, e: r.standing_under(WHITE_BOX, e), lambda r, e: r.standing(e)):
            np.testing.assert_array_equal(stands(record, 0.05), np.array(stands(before, 0.05)) & (y > 0))
            assert stands(record, 0.2) == stands(before, 0.2)
        assert sum(record.standing(0.05)) < sum(before.standing(0.05))
        assert record.checks == before.checks
        kept = finished.read_evaluation(root / MODES[record.target == "T_Div"], "small")
        assert kept.standing(0.05) == record.standing(0.05)


@pytest.mark.parametrize("gain", ["more steps", "more restarts", "other losses", None])
def test_where_more_fools_more_the_white_box_goes_on_and_what_it_fools_counts(
    gain, evaluated, tmp_path, monkeypatch
):
    asked = []

    def checks_that_fail(target, x, y, threat, **known):
        report = few_checks(target, x, y, threat, **known)
        gains = [masking.Check(name, name != gain, 0.5, "More.") for name in evaluation_checks._GAINS]
        return dataclasses.replace(report, checks=[*report.checks, *gains])

    def longer(target, x, y, threat, fooled, **options):
        """It fools the images of the first class."""
        asked.append(fooled)
        tried = packed(~fooled), packed(~fooled & (y > 0))
        ascent = TrialResult("pgd", WHITE_BOX, threat.epsilon, {"steps": 999}, 999, 0, *tried)
        return masking_report.MaskingReport([masking.Check("escalation", True, 0.0, "On.")], [ascent])

    root = shutil.copytree(evaluated[0], tmp_path / "root")
    monkeypatch.setattr(evaluation_checks, "masking_report", checks_that_fail)
    monkeypatch.setattr(evaluation_checks, "escalated", longer)
    monkeypatch.setattr(evaluation_checks, "_EFFORT", masking_report.Effort(steps=98))
    _, y = tiny.data().test_set(COUNT)
    records = evaluate(family(root), PROTOCOL)
    assert len(asked) == (0 if gain is None else len(records))
    for record, fooled in zip(records, asked, strict=False):
        before = evaluated[1][record.target]
        np.testing.assert_array_equal(fooled, ~np.array(before.standing_under(WHITE_BOX, 0.05)))
        np.testing.assert_array_equal(record.standing(0.05), np.array(before.standing(0.05)) & (y > 0))
        assert record.standing(0.2) == before.standing(0.2)
        assert [check["name"] for check in record.checks][-3:] == ["escalation", "black box", "queries"]
        # What went on had the gradients: no one fools it alone any more.
        by_gradients = ~np.array(record.standing_under(WHITE_BOX, 0.05))
        alone = ~np.array(record.standing_under(TRANSFER, 0.05)) & ~by_gradients
        assert record.checks[-2]["figure"] == alone.mean() and not (by_gradients != fooled | (y == 0)).any()
    again = evaluate(family(root), PROTOCOL)
    assert len(asked) == (0 if gain is None else len(records)), "kept"
    assert [record.trials for record in again] == [record.trials for record in records]


@pytest.mark.parametrize("front", [tf.round, lambda x: x + tf.sqrt(0 * x)])
def test_a_target_without_gradients_is_attacked_all_the_same_and_fails_the_check(
    front, evaluated, tmp_path, monkeypatch
):
    """As behind rounding, or a square root at 0, which attacks refuse."""
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    restore = trained.restore

    def behind(config, spec, directory):
        target = restore(config, spec, directory)
        for member in target.members:
            call = member.call
            monkeypatch.setattr(member, "call", lambda x, *a, call=call, **k: call(front(x), *a, **k))
        return target

    monkeypatch.setattr(trained, "restore", behind)
    for directory in root.glob("*/adversarial"):
        shutil.rmtree(directory)
    for record in evaluate(family(root), PROTOCOL):
        failed = {check["name"] for check in record.checks if not check["passed"]}
        assert "gradients" in failed
        assert any(trial.kind == WHITE_BOX for trial in record.trials)


def test_what_needs_more_classes_than_there_are_is_left_out(evaluated, tmp_path):
    """The images have three."""
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    white_box = (Trial("pgd", {"steps": 3, "loss": "margin"}, classes=3), Trial("fgsm", classes=4))
    protocol = dataclasses.replace(PROTOCOL, white_box=white_box, checks=False, queries=0)
    for record in evaluate(family(root), protocol):
        assert [t.attack for t in record.trials if t.kind == WHITE_BOX] == ["pgd"] * len(EPSILONS)


def test_each_thing_is_done_once(evaluated):
    _, records, work = evaluated
    assert work.count("trained") == 2, "one member of plain1, and noise; plain was there"
    trials = {t.adversarial_set for record in records.values() for t in record.trials} - {""}
    attacked = [word for word in work if word.startswith("attacked by")]
    assert len(attacked) == len(trials)
    assert (work.count("checked"), work.count("detected")) == (2, 2)


def at_one(epsilon, targets):
    """The same targets, attacked at one epsilon."""
    return {path: dataclasses.replace(config, epsilons=(epsilon,)) for path, config in targets.items()}


def test_interrupted_again_and_again_it_goes_on_where_it_was(runs, evaluated, tmp_path):
    """Nothing that was whole is done again, and the records are the same."""
    root = shutil.copytree(runs, tmp_path / "root")
    done, records, interrupted = [], [], 0
    while not records:
        with Work(fail_at=7) as part, contextlib.suppress(KeyboardInterrupt):
            records = evaluate(at_one(0.05, family(root)), PROTOCOL)
        assert bool(list(root.glob("*/evaluation-*"))) == bool(records)
        assert records or len(part.done) == 7
        interrupted += not records
        done += part.done
    assert interrupted >= 2
    for record in records:
        whole = evaluated[1][record.target]
        first = tuple(trial for trial in whole.trials if trial.epsilon == 0.05)
        expected = dataclasses.replace(whole, epsilons=(0.05,), trials=first)
        assert without_analysis(record) == without_analysis(expected)
    trials = {t.adversarial_set for record in records for t in record.trials} - {""}
    assert len([word for word in done if word.startswith("attacked by")]) == len(trials)
    assert [done.count(word) for word in ("trained", "checked", "detected")] == [2, 2, 2]


def test_second_call_does_nothing_and_gives_the_same_but_its_analysis(evaluated):
    root, whole, _ = evaluated
    with Work() as work:
        records = evaluate(family(root), PROTOCOL)
    assert work.done == []
    assert list(map(without_analysis, records)) == list(map(without_analysis, whole.values()))


def test_what_was_left_out_changes_nothing(evaluated, tmp_path):
    """Except what was tried."""
    done, whole, _ = evaluated
    root = shutil.copytree(done, tmp_path / "root")
    protocol = dataclasses.replace(PROTOCOL, checks=False)
    for record in evaluate(at_one(0.2, family(root)), protocol, skip=False):
        for kind in (TRANSFER, WHITE_BOX, QUERY):
            assert record.standing_under(kind, 0.2) == whole[record.target].standing_under(kind, 0.2)
        assert all(len(numbers(t.tried)) == COUNT for t in record.trials if t.kind != QUERY)


def test_other_surrogates_are_checked_anew(evaluated, tmp_path):
    """Whether transfer fools what the white box does not is another question then; that is as it was."""
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    weak = dataclasses.replace(PROTOCOL, name="weak", surrogates=("plain",), transfer=(Trial("fgsm"),))
    with Work() as work:
        records = evaluate(family(root), weak)
    changed = 0
    for record in records:
        before = evaluated[1][record.target]
        fooled, was = (~np.array(r.standing_under(TRANSFER, 0.05)) for r in (record, before))
        (check,) = (c for c in record.checks if c["name"] == "black box")
        assert check["figure"] == (fooled & record.standing_under(WHITE_BOX, 0.05)).mean()
        changed += int((fooled != was).any())
    assert work.done.count("checked") == 0 < changed


def test_epsilons_in_any_order_are_ascending(runs, evaluated, tmp_path):
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    with Work() as work:
        records = evaluate(
            {path: dataclasses.replace(c, epsilons=EPSILONS[::-1]) for path, c in family(root).items()},
            PROTOCOL,
        )
    assert work.done == []
    assert list(map(without_analysis, records)) == list(map(without_analysis, evaluated[1].values()))


def test_fewer_images_than_square_would_take_are_all_it_takes(evaluated, tmp_path):
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    few = {
        "images": 5,
        "checks": False,
        "white_box": (),
        "surrogates": ("plain",),
        "transfer": (Trial("fgsm"),),
    }
    for queries, count in ((QUERIES, 5), (0, 0)):
        protocol = dataclasses.replace(PROTOCOL, queries=queries, **few)
        records = evaluate(at_one(0.05, family(root)), protocol)
        assert [record.query_images for record in records] == [count, count]


def test_targets_that_are_never_right_are_evaluated_too(evaluated, tmp_path, monkeypatch):
    """Then nothing is attacked, but by who evades detection."""
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    x, _ = tiny.data().test_set(24)
    seen = [predicted(members_of(root, config_of(root, mode)), x) for mode in MODES]
    wrong = np.array([min({0, 1, 2} - {a, b}) for a, b in zip(*seen, strict=True)])
    data = dataclasses.replace(tiny.data(), y_test=wrong)
    monkeypatch.setattr(experiment, "load_data", lambda part: data)
    with Work() as work:
        records = evaluate(family(root), PROTOCOL)
    assert set(work.done) == {"checked", "detected"}
    for record in records:
        assert not any(record.clean_hits) and not any(len(numbers(t.tried)) for t in record.trials)
        evading = [f"evading {score}" for score in SHOWN_SCORES]
        assert record.detection["attacks"] == {name: {"images": COUNT, "fooled": 0} for name in evading}


def test_a_single_member_never_disagrees(tmp_path, less):
    config = config_of(tmp_path, "base", num_members=1, epsilons=(0.1,))
    experiment.run(config)
    small = dataclasses.replace(
        PROTOCOL, surrogates=("plain",), transfer=(Trial("fgsm"),), queries=0, images=5
    )
    (record,) = evaluate({tmp_path / "base": config}, small)
    assert "evading disagreement" not in record.detection["attacks"]
    assert "evading one_minus_confidence" in record.detection["attacks"]


# What is refused, before anything is trained or written.


def model_file(path, shape=tiny.SHAPE, classes=tiny.CLASSES):
    inputs = keras.Input(shape)
    outputs = keras.layers.Dense(classes)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(path)
    return str(path)


def test_a_file_is_a_surrogate_of_its_own_and_among_others(evaluated, tmp_path):
    root = shutil.copytree(evaluated[0], tmp_path / "root")
    path = model_file(tmp_path / "mine.keras")
    names = (path, f"plain+{path}")
    protocol = dataclasses.replace(
        PROTOCOL, surrogates=names, transfer=(Trial("fgsm"),), white_box=(), queries=0, checks=False
    )
    with Work() as work:
        records = evaluate(family(root), protocol)
    assert "trained" not in work.done
    assert {name: told["members"] for name, told in records[0].surrogates.items()} == dict(
        zip(names, (1, 3), strict=True)
    )
    x, y = tiny.data().test_set(COUNT)
    logits = keras.models.load_model(path)(x).numpy()
    assert records[0].surrogates[path]["clean accuracy"] == pytest.approx((logits.argmax(axis=1) == y).mean())


REFUSED = {
    "classes": (
        lambda place: {"surrogates": ("noise", model_file(place / "a.keras", classes=4))},
        "a surrogate of 3 classes",
    ),
    "shape": (
        lambda place: {"surrogates": ("noise", model_file(place / "a.keras", shape=(5, 5, 1)))},
        "a target that takes",
    ),
    "missing": (lambda place: {"surrogates": ("noise", str(place / "none.keras"))}, "that are there"),
    "no model": (
        lambda place: (
            (place / "a.keras").write_text("?"),
            {"surrogates": ("noise", str(place / "a.keras"))},
        )[1],
        "a surrogate that Keras can load",
    ),
    "name": (lambda place: {"surrogates": ("noise", "plane")}, "Received: plane"),
    "images": (
        lambda place: {"images": 25},
        r"Expected at most 24 images, as there are\. Received: images=25",
    ),
    "stored": (lambda place: {"stored_as": "png", "surrogates": ("noise",)}, "Expected stored_as as one of"),
    "attack": (
        lambda place: {"transfer": (Trial("deepfool"),), "surrogates": ("noise",)},
        "Expected attack as one of",
    ),
    "queries": (lambda place: {"queries": 1, "surrogates": ("noise",)}, "queries"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_trained_or_written(runs, tmp_path, case):
    change, words = REFUSED[case]
    root = shutil.copytree(runs, tmp_path / "root")
    before = {path: path.is_dir() or path.read_bytes() for path in root.rglob("*")}
    with Work() as work, pytest.raises(InputError, match=words) as refused:
        evaluate(family(root), dataclasses.replace(PROTOCOL, **change(tmp_path)))
    assert "\n" not in str(refused.value)
    assert work.done == []
    assert {path: path.is_dir() or path.read_bytes() for path in root.rglob("*")} == before


OF_SECOND = {
    "images": ({"seed": 1, "max_test_examples": 12}, {}, r"Expected at most 12 images, as there are"),
    "epsilons": (
        {"seed": 1, "epsilons": (0.2,)},
        {},
        "Expected runs of one model and data set with the same",
    ),
    "checkpoint": ({"epochs": 3}, {}, "Expected a checkpoint of this run"),
    "classes": ({"data_dir": "elsewhere"}, {"num_classes": 4}, "Expected a surrogate of 4 classes"),
}


@pytest.mark.parametrize("case", OF_SECOND)
def test_what_is_wrong_with_the_second_family_is_said_before_the_first_is_evaluated(
    runs, tmp_path, case, monkeypatch
):
    change, of_data, words = OF_SECOND[case]
    root = shutil.copytree(runs, tmp_path / "root")
    first = family(root)
    second = {path: dataclasses.replace(config, **change) for path, config in first.items()}

    def load_data(part, load=experiment.load_data):
        data = load(part)
        spec = dataclasses.replace(data.spec, **of_data if part.data_dir else {})
        return dataclasses.replace(data, spec=spec)

    monkeypatch.setattr(experiment, "load_data", load_data)
    protocol = dataclasses.replace(PROTOCOL, surrogates=("noise", model_file(tmp_path / "a.keras")))
    before = sorted(root.rglob("*"))
    with Work() as work, pytest.raises(InputError, match=words) as refused:
        evaluate_all([first, second], protocol)
    assert "\n" not in str(refused.value)
    assert (work.done, sorted(root.rglob("*"))) == ([], before)


def test_targets_come_in_the_papers_order_whichever_was_trained_first(tmp_path):
    """The attacker's surrogates are trained as the first one: that must not hang on the time of a file."""
    modes = ("noise", "ens", "div", "base")
    for mode in modes:
        (tmp_path / mode).mkdir()
        checked_json.write_json(
            tmp_path / mode / run_directory.CONFIG, dataclasses.asdict(config_of(tmp_path, mode))
        )
    for paths in itertools.permutations(tmp_path / mode for mode in modes):
        (found,) = finished.families(paths)
        assert [config.target for config in found.values()] == ["T_Base", "T_Div", "T_Ens", "T_Noise"]


def test_families_are_evaluated_as_each_alone_and_share_their_images(runs, tmp_path, monkeypatch):
    loads = []
    load = experiment.load_data
    monkeypatch.setattr(experiment, "load_data", lambda part: loads.append(part) or load(part))
    few = {"surrogates": ("plain",), "transfer": (Trial("fgsm"),), "white_box": ()}
    protocol = dataclasses.replace(PROTOCOL, **few, queries=0, checks=False)
    root = shutil.copytree(runs, tmp_path / "root")
    again = dataclasses.replace(config_of(root, "base"), seed=1, run_dir=str(root / "again"), epochs=1)
    experiment.run(again)
    families = finished.families([root / name for name in ("base", "again", "div")])
    loads.clear()
    together = evaluate_all(families, protocol)
    assert [(record.target, record.seed) for record in together] == [
        ("T_Base", 0),
        ("T_Div", 0),
        ("T_Base", 1),
    ]
    assert len(loads) == 1
    alone = [record for each in families for record in evaluate(each, protocol)]
    assert list(map(without_analysis, together)) == list(map(without_analysis, alone))


def test_without_art_it_is_refused(runs, tmp_path, monkeypatch):
    root = shutil.copytree(runs, tmp_path / "root")
    before = sorted(root.rglob("*"))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "art" else find_spec(name, *a)
    )
    with Work() as work, pytest.raises(InputError, match=r"pip install 'divtf\[attacks\]'"):
        evaluate(family(root), PROTOCOL)
    assert (work.done, sorted(root.rglob("*"))) == ([], before)
    without = dataclasses.replace(
        PROTOCOL, queries=0, checks=False, surrogates=("plain",), transfer=PROTOCOL.transfer[:1]
    )
    evaluate(family(root), without)


def test_half_trained_target_is_refused(runs, tmp_path):
    root = shutil.copytree(runs, tmp_path / "root")
    shutil.rmtree(root / "div" / run_directory.CHECKPOINTS)
    with Work() as work, pytest.raises(InputError, match="Expected a whole checkpoint of epoch 2"):
        evaluate(family(root), PROTOCOL)
    assert work.done == []


@pytest.mark.parametrize("change", [{"epsilons": (0.07,)}, {"surrogate_seed": 77}])
def test_targets_of_other_epsilons_or_surrogates_are_refused(evaluated, change):
    root = evaluated[0]
    runs = family(root)
    last = list(runs)[-1]
    runs[last] = dataclasses.replace(runs[last], **change)
    with pytest.raises(
        InputError, match=r"Expected runs of one model.* with the same .* Received: .* in .*div"
    ):
        evaluate(runs, PROTOCOL)
