"""Detection: ROC curves against SciPy and by trying every threshold; what is reported, by hand."""

import json

import numpy as np
import pytest
import scipy.stats

from divtf.errors import InputError
from divtf.evaluation.detection import detection_results, evaluate_detection, roc
from divtf.evaluation.predictions import all_member_logits
from divtf.evaluation.suspicion import SCORES
from divtf.storage.records import wilson_interval


def drawn(rng, clean=200, attacked=90, *, ties):
    """Overlapping scores; rounded ones have many equals, within and between the two kinds."""
    scores = rng.normal(size=clean), rng.normal(1.0, 2.0, attacked)
    return tuple(part.round(0 if ties else 12) for part in scores)


@pytest.mark.parametrize("ties", [False, True])
class TestRoc:
    def test_area_is_mann_whitneys(self, rng, ties):
        clean, attacked = drawn(rng, ties=ties)
        statistic = scipy.stats.mannwhitneyu(attacked, clean).statistic
        assert roc(clean, attacked).auc == pytest.approx(statistic / (len(clean) * len(attacked)), abs=1e-14)

    def test_area_is_that_under_the_points(self, rng, ties):
        curve = roc(*drawn(rng, ties=ties))
        assert curve.auc == pytest.approx(np.trapezoid(curve.tpr, curve.fpr), abs=1e-12)

    def test_area_is_scikit_learns(self, rng, ties):
        metrics = pytest.importorskip("sklearn.metrics")
        clean, attacked = drawn(rng, ties=ties)
        is_attacked = np.repeat([0, 1], [len(clean), len(attacked)])
        assert roc(clean, attacked).auc == pytest.approx(
            metrics.roc_auc_score(is_attacked, np.concatenate([clean, attacked])), abs=1e-12
        )

    def test_shares_are_counts_above_each_threshold(self, rng, ties):
        clean, attacked = drawn(rng, ties=ties)
        curve = roc(clean, attacked)
        assert len(curve.thresholds) == len({*clean, *attacked}) + 1
        for threshold, fpr, tpr in zip(curve.thresholds, curve.fpr, curve.tpr, strict=True):
            assert fpr == sum(score > threshold for score in clean) / len(clean)
            assert tpr == sum(score > threshold for score in attacked) / len(attacked)
        assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)

    @pytest.mark.parametrize("level", [0.0, 0.01, 0.05, 0.5, 0.999])
    def test_most_is_flagged_at_the_allowed_false_alarms(self, rng, ties, level):
        clean, attacked = drawn(rng, ties=ties)
        found = roc(clean, attacked).tpr_at(level)
        possible = [t for t in {*clean, *attacked, -9e9} if (clean > t).mean() <= level]
        assert found.flagged == max(int((attacked > t).sum()) for t in possible)
        assert found.reached == (clean > found.threshold).mean() <= level
        assert found.flagged == (attacked > found.threshold).sum()

    def test_points_are_few_and_of_the_curve(self, rng, ties):
        curve = roc(*drawn(rng, 3000, 500, ties=ties))
        points = curve.points()
        every = set(zip(curve.fpr.tolist(), curve.tpr.tolist(), strict=True))
        assert 3 <= len(points) <= 100
        assert set(points) <= every
        assert points == sorted(points)
        assert points[0] == (0, max(tpr for fpr, tpr in every if fpr == 0))
        assert points[-1] == (1, 1)


def test_scores_apart_and_scores_alike():
    assert roc(np.arange(5), np.arange(5, 9)).auc == 1
    assert roc(np.arange(5, 9), np.arange(5)).auc == 0
    alike = roc(np.zeros(10), np.zeros(4))
    assert alike.auc == 0.5
    assert alike.tpr_at(0.5).flagged == 0
    assert alike.points() == [(0.0, 0.0), (1.0, 1.0)]


def test_a_share_of_false_alarms_is_of_whole_images():
    # 0.29 x 100 is 28.999999999999996.
    found = roc(np.arange(100), np.array([200.0])).tpr_at(0.29)
    assert (found.reached, found.threshold) == (0.29, 70)


def test_rates_have_wilson_intervals():
    found = roc(np.arange(100), np.array([0, 50, 98.5, 99, 99.5, 100])).tpr_at(0.01)
    assert (found.threshold, found.flagged, found.total) == (98, 4, 6)
    assert found.interval == wilson_interval(4, 6)
    assert found.to_json() == {
        **{"false_alarms": 0.01, "reached": 0.01, "threshold": 98.0, "flagged": 4, "total": 6, "missed": 2},
        **{"tpr": 4 / 6, "low": found.interval[0], "high": found.interval[1]},
    }


@pytest.mark.parametrize("scores", [[], [np.nan, 1], [np.inf], [[1.0]]])
def test_scores_that_are_none_are_refused(scores):
    for clean, attacked in (([1.0], scores), (scores, [1.0])):
        with pytest.raises(InputError, match=r"Expected finite scores \[n\] of (clean|attacked) images"):
            roc(clean, attacked)
    with pytest.raises(InputError, match=r"Expected a share of false alarms in \[0, 1\)"):
        roc(np.ones(2), np.ones(2)).tpr_at(1.0)


def logits_of(*confidences):
    """Two members, two classes; they give class 0 those probabilities, equally."""
    p = np.array(confidences)
    return np.repeat(np.log(np.stack([p, 1 - p], axis=-1))[None], 2, axis=0)


def test_results_by_hand():
    # The scores one_minus_confidence are .1 .2 .3 .4 of clean images, .05 .25 .45 of attacked ones.
    clean, attacked = logits_of(0.9, 0.8, 0.3, 0.6), logits_of(0.95, 0.25, 0.45)
    found = detection_results(
        clean,
        {"pgd": (attacked, np.array([False, True, True])), "none": (attacked, np.zeros(3, bool))},
        right=np.array([True, True, False, True]),
        scores=["one_minus_confidence"],
        false_alarms=[0.25],
    )
    assert json.loads(json.dumps(found)) == found
    assert found["clean"] == {"images": 4, "right": 3}
    assert found["attacks"] == {"pgd": {"images": 3, "fooled": 2}, "none": {"images": 3, "fooled": 0}}
    every, fooled, _ = found["curves"]
    assert [(c["attack"], c["images"]) for c in found["curves"]] == [
        *(("pgd", "all"), ("pgd", "fooled"), ("none", "all"))
    ]
    # Of 12 pairs 0 + 2 + 4 are in order; of those that fooled 6 of 8. The threshold is .3: .4 may be flagged.
    assert (every["auc"], fooled["auc"]) == (0.5, 0.75)
    assert [(at["flagged"], at["total"], at["missed"]) for at in (*every["at"], *fooled["at"])] == [
        *((1, 3, 2), (1, 2, 1))
    ]
    assert every["at"][0]["threshold"] == pytest.approx(0.3)
    # Against .1 .2 .4 alone: 0 + 2 + 3 of 9, 5 of 6; no false alarm allowed of 3, the threshold is .4.
    assert (every["right"]["auc"], fooled["right"]["auc"]) == (5 / 9, 5 / 6)
    assert fooled["right"]["at"][0]["threshold"] == pytest.approx(0.4)


def test_an_ensemble_is_asked_for_its_images(tiny_members, tiny_batch):
    members, (x, y) = tiny_members(3), tiny_batch(12)
    fooled = np.arange(6) % 2 == 0
    found = evaluate_detection(members, x, {"pgd": (x[::2] + 0.1, fooled)}, clean_y=y, batch_size=5)
    clean, attacked = all_member_logits(members, x), all_member_logits(members, x[::2] + 0.1)
    assert clean.shape == (3, 12, 3)
    for n, member in enumerate(members):
        assert clean[n] == pytest.approx(member(x).numpy(), abs=1e-6)
    right = np.mean([np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in clean], axis=0).argmax(-1) == y
    assert 0 < right.sum() < 12
    assert found["clean"] == {"images": 12, "right": right.sum()}
    assert len(found["curves"]) == 2 * len(SCORES)
    for curve in found["curves"]:
        score = SCORES[curve["score"]]
        part = score(attacked)[fooled if curve["images"] == "fooled" else slice(None)]
        assert curve["auc"] == pytest.approx(roc(score(clean), part).auc, abs=0.03)


def test_what_does_not_fit_is_refused(tiny_members, tiny_batch):
    members, (x, _) = tiny_members(2), tiny_batch(4)
    for attacked in (np.ones(3, bool), np.ones(4)):
        with pytest.raises(InputError, match="Expected whether each image of pgd fools, bool"):
            evaluate_detection(members, x, {"pgd": (x, attacked)})
    with pytest.raises(InputError, match="Expected as many labels as clean images"):
        evaluate_detection(members, x, {}, clean_y=np.zeros(3, int))
    with pytest.raises(InputError, match=r"Expected scores among .*\['surprise'\]"):
        evaluate_detection(members, x, {}, scores=["surprise"])
