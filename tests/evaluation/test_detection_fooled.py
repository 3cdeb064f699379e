"""What counts as fooling where detection is measured, and which scores are evaded; by hand."""

import types

import numpy as np
import pytest

from divtf import Ensemble
from divtf.evaluation.suspicion import DIFFERENTIABLE
from divtf.pipeline import evaluation_checks
from divtf.storage.evaluations import SHOWN_SCORES, EvaluationRecord

Y = np.array([0, 1, 2, 0])
# The third image is wrong when clean: to fool it counts nowhere.
CLEAN, ATTACKED, EVADING = [0, 1, 0, 0], [1, 1, 0, 2], [0, 0, 0, 1]
RIGHT = np.array([True, True, False, True])


@pytest.fixture
def measured(tiny_members, rng, monkeypatch):
    """What `detected` finds and what that depends on, for images of which the classes seen are known."""
    target = Ensemble(tiny_members(2))
    shape = target.members[0].input_shape[1:]
    noise = 0.1 * rng.random((4, *shape), dtype="float32")

    def images(classes):
        """The class that is seen in an image is its level of grey."""
        return noise + 0.4 * np.array(classes, "float32").reshape(-1, *[1] * len(shape))

    def seen(target, x):
        return (np.asarray(x).reshape(len(x), -1).min(axis=1) / 0.4).astype(int)

    found = types.SimpleNamespace(images=images(EVADING))
    monkeypatch.setattr(evaluation_checks, "predictions", seen)
    monkeypatch.setattr(evaluation_checks, "evade", lambda *args, **kwargs: found)

    def measure(right):
        kept = []

        def keep(name, depends, x, y, made):
            kept.append(depends)
            return made()

        record = EvaluationRecord("T_Base", "m", "d", 0, "strong", 4, (0.1,), "", (), {}, "float32", 0, "x")
        sets = types.SimpleNamespace(surrogate=target, kept=keep)
        attacked = {"fgsm": (images(ATTACKED), Y, right)}
        found = evaluation_checks.detected(record, sets, (images(CLEAN), Y), attacked, images(CLEAN))
        return found.detection, kept[0]

    return measure


def test_images_that_were_wrong_when_clean_fool_nowhere(measured):
    """Attacked, images 0, 2 and 3 are wrong, of which 2 was before; evading, 1, 2 and 3."""
    found, _ = measured(RIGHT)
    assert found["attacks"] == {
        "fgsm": {"images": 4, "fooled": 2},
        "evading disagreement": {"images": 4, "fooled": 2},
        "evading one_minus_confidence": {"images": 4, "fooled": 2},
        "evading pair_divergence": {"images": 4, "fooled": 2},
    }
    totals = {(curve["images"], at["total"]) for curve in found["curves"] for at in curve["at"]}
    assert totals == {("all", 4), ("fooled", 2)}
    assert found["fooled_were_right"] is True


def test_what_is_kept_depends_on_what_was_right(measured):
    (_, depends), (_, others) = measured(RIGHT), measured(~RIGHT)
    assert depends != others
    assert depends | {"right": others["right"]} == others


def test_each_score_that_reports_show_is_evaded():
    assert evaluation_checks._EVADED == SHOWN_SCORES
    assert set(SHOWN_SCORES) <= set(DIFFERENTIABLE)
