"""Detection looks at adversarial images as the attacker must store them."""

import types

import numpy as np
import pytest

from divtf import Ensemble, InputError
from divtf.evaluation.predictions import predictions
from divtf.evaluation.stored import as_stored
from divtf.pipeline import evaluation_checks
from divtf.pipeline.protocols import Protocol, Trial
from divtf.storage.evaluations import EvaluationRecord


@pytest.mark.parametrize("stored_as", ["float32", "uint8", "jpeg"])
def test_detection_is_of_the_images_as_stored(stored_as, tiny_members, rng, monkeypatch):
    target = Ensemble(tiny_members(2))
    shape = target.members[0].input_shape[1:]
    clean, attacked, evading = (rng.random((12, *shape), dtype="float32") for _ in range(3))
    y = np.arange(12) % 3
    found = types.SimpleNamespace(images=evading, fooled=np.ones(12, bool))
    monkeypatch.setattr(evaluation_checks, "evade", lambda *args, **kwargs: found)
    monkeypatch.setattr(evaluation_checks, "evaluate_detection", lambda target, x, tried, clean_y: tried)
    kept = []

    def keep(name, depends, x, y, measured):
        kept.append(depends)
        return measured()

    record = EvaluationRecord("T_Base", "m", "d", 0, "strong", 12, (0.1,), "", (), {}, stored_as, 0, "x")
    sets = types.SimpleNamespace(surrogate=target, kept=keep)
    right = predictions(target, clean) == y
    given = {"fgsm": (attacked, y, right)}
    tried = evaluation_checks.detected(record, sets, (clean, y), given, attacked).detection
    expected = {"fgsm": attacked} | {f"evading {score}": evading for score in evaluation_checks._EVADED}
    assert tried.keys() == expected.keys() | {"fooled_were_right"}
    for name, images in expected.items():
        seen = np.asarray(as_stored(images, stored_as)[:])
        np.testing.assert_array_equal(tried[name][0], seen, err_msg=name)
        np.testing.assert_array_equal(tried[name][1], right & (predictions(target, seen) != y), err_msg=name)
    # What was measured of images as they are is kept under the name that it had.
    assert kept[0].get("stored_as", "float32") == stored_as and ("stored_as" in kept[0]) == (
        stored_as != "float32"
    )


@pytest.mark.parametrize("left_out", ["transfer", "white_box"])
def test_checks_of_attacks_that_are_not_tried_are_refused(left_out):
    attacks = {"transfer": (Trial("fgsm"),), "white_box": (Trial("pgd"),)}
    assert Protocol("own", ("plain",), **attacks, checks=True).checks
    with pytest.raises(InputError, match=r"attacks by transfer and white-box ones to check"):
        Protocol("own", ("plain",), **(attacks | {left_out: ()}), checks=True)
