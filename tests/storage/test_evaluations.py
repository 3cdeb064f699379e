"""Records of evaluations: what stands, by hand and by counting; JSON and back."""

import dataclasses
import json

import numpy as np
import pytest
from evaluation_records import IMAGES, record, trial

from divtf.storage.evaluations import (
    KINDS,
    QUERY,
    TRANSFER,
    WHITE_BOX,
    EvaluationRecord,
    TrialResult,
    packed_at,
)
from divtf.storage.records import WORST_CASE, TransferResult, unpacked

# Image 7 is wrong when clean. What is fooled where it was not wrong before:
# transfer at 0.1: 0, 1; white box: 1, 2; Square, of the first four: 3. At 0.3 transfer: 0, 1, 4.
TRIALS = (
    trial(TRANSFER, {0, 7}, surrogate="plain", attack="fgsm", settings={}, adversarial_set="abc"),
    trial(TRANSFER, {1}, surrogate="other", tried=[1, 2, 3], version=1),
    trial(WHITE_BOX, {1, 2}, tried=range(7)),
    trial(QUERY, {3}, attack="square", tried=range(4), gradients=0, queries=9, queries_taken=(10, 10, 10, 4)),
    trial(TRANSFER, {0, 1, 4}, surrogate="plain", epsilon=0.3),
)
RECORD = record(
    "T_Div",
    TRIALS,
    wrong=[7],
    epsilons=(0.1, 0.3),
    query_images=4,
    paper=(TransferResult("T_Div", "S", WORST_CASE, 0.1, 3, 5, hits="b0"),),
    checks=({"name": "gradients", "passed": True, "figure": 0.0, "sentence": "All there."},),
    detection={"curves": [{"attack": "pgd", "auc": 0.5, "points": [[0.0, 0.5], [1.0, 1.0]]}]},
)


def numbers(standing):
    return [number for number, stands in enumerate(standing) if stands]


@pytest.mark.parametrize(
    ("kind", "epsilon", "left"),
    [
        (TRANSFER, 0.1, [2, 3, 4, 5, 6]),
        (WHITE_BOX, 0.1, [0, 3, 4, 5, 6]),
        (QUERY, 0.1, [0, 1, 2, 4, 5, 6]),
        (TRANSFER, 0.3, [2, 3, 5, 6]),
        # What was not tried at an epsilon fooled nothing there.
        (WHITE_BOX, 0.3, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_what_stands_under_each_kind_by_hand(kind, epsilon, left):
    assert numbers(RECORD.standing_under(kind, epsilon)) == left


def test_what_stands_under_everything_by_hand():
    assert numbers(RECORD.standing(0.1)) == [4, 5, 6]
    assert numbers(RECORD.standing(0.3)) == [2, 3, 5, 6]
    assert numbers(RECORD.standing(0.1, lambda t: t.surrogate == "other")) == [0, 2, 3, 4, 5, 6]
    assert numbers(RECORD.clean_hits) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("stored_as", "hits", "total", "left"),
    [
        ("float32", "f6ff", 16, [5, 6]),  # Of 16 images; 4 of the first 8 is wrong, and 7.
        ("float32", "f6", 8, [5, 6]),
        ("float32", "b0", 5, [4, 5, 6]),  # Of fewer images than the protocol's.
        ("uint8", "f6", 8, [4, 5, 6]),  # Of other images than the protocol's targets saw.
        ("float32", "", 8, [4, 5, 6]),  # Of a run by an earlier version.
    ],
)
def test_everything_has_the_attacks_of_the_run_on_the_same_images(stored_as, hits, total, left):
    kept = TransferResult("T_Div", "S", WORST_CASE, 0.1, 0, total, stored_as=stored_as, hits=hits)
    found = dataclasses.replace(RECORD, paper=(kept,))
    assert numbers(found.standing(0.1)) == left
    assert numbers(found.standing(0.3)) == numbers(RECORD.standing(0.3))
    assert numbers(found.standing_under(TRANSFER, 0.1)) == [2, 3, 4, 5, 6]


def test_what_was_not_tried_is_not_fooled():
    """Though its bit among the hits is not set, as that of a fooled one is not."""
    (second,) = (t for t in TRIALS if t.surrogate == "other")
    assert numbers(RECORD.fooled(second)) == [1]
    assert numbers(unpacked(second.hits, IMAGES)) == [2, 3]


def test_standing_is_that_of_arrays(rng):
    clean, epsilons = rng.random(IMAGES) < 0.9, (0.1, 0.3)
    tried, hit = rng.random((12, IMAGES)) < 0.7, rng.random((12, IMAGES)) < 0.8
    where = [(KINDS[i % 3], epsilons[i // 6]) for i in range(12)]
    trials = [
        trial(kind, np.flatnonzero(t & ~h).tolist(), tried=np.flatnonzero(t).tolist(), epsilon=epsilon)
        for (kind, epsilon), t, h in zip(where, tried, hit, strict=True)
    ]
    made = record("T_Base", trials, wrong=np.flatnonzero(~clean), epsilons=epsilons)
    for epsilon in epsilons:
        for kinds in ([TRANSFER], [WHITE_BOX], [QUERY], KINDS):
            counts = np.array([kind in kinds and at == epsilon for kind, at in where])
            expected = clean & (hit | ~tried)[counts].all(axis=0)
            found = made.standing(epsilon, lambda t, kinds=kinds: t.kind in kinds)
            np.testing.assert_array_equal(found, expected)


def test_packed_at_puts_each_image_in_its_place():
    """Of six images 1, 2 and 5, the outer two right: 0110 01|00, and 0100 01|00."""
    assert packed_at([1, 2, 5], [True, False, True], 6) == ("64", "44")
    assert packed_at(np.array([5, 2, 1]), np.array([True, False, True]), 6) == ("64", "44")
    assert packed_at([], [], 6) == ("00", "00")
    with pytest.raises(ValueError, match="zip"):
        packed_at([1, 2], [True], 6)


@pytest.mark.parametrize("made", [RECORD, record("T_Base", [])], ids=["full", "empty"])
def test_json_round_trip(made):
    travelled = EvaluationRecord.from_json(json.loads(json.dumps(made.to_json())))
    # JSON has no tuples within what is kept as it is.
    assert json.dumps(travelled.to_json()) == json.dumps(made.to_json())
    assert (travelled.trials, travelled.paper, travelled.epsilons) == (made.trials, made.paper, made.epsilons)
    assert travelled.standing(0.1) == made.standing(0.1)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(schema):
    with pytest.raises(ValueError, match=f"Expected a record of schema 1. Received: schema={schema!r}"):
        EvaluationRecord.from_json(RECORD.to_json() | {"schema": schema})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": "8"}, "Expected images as"),
        ({"clean": 254}, "Expected clean as"),
        ({"epsilons": [0.1, "0.3"]}, "Expected epsilons as"),
        ({"surrogates": {"plain": 1}}, "Expected surrogates as"),
        ({"trials": [dataclasses.asdict(TRIALS[0]) | {"version": 1.5}]}, "Expected version as"),
        (
            {"trials": [dataclasses.asdict(TRIALS[0]) | {"queries_taken": [1, None]}]},
            "Expected queries_taken",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_values_of_another_type_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        EvaluationRecord.from_json(RECORD.to_json() | changes)


def test_outcomes_of_another_number_of_images_are_refused():
    spoilt = dataclasses.replace(RECORD, clean="fe0")
    with pytest.raises(ValueError, match="Expected 2 hexadecimal digits of 8 outcomes"):
        spoilt.standing(0.1)


def test_a_trial_lacks_nothing():
    """There is no older version, whose trials lacked what came later."""
    whole = dataclasses.asdict(TRIALS[3])
    assert TrialResult.from_json(json.loads(json.dumps(whole))) == TRIALS[3]
    for name in whole:
        with pytest.raises(KeyError):
            TrialResult.from_json({key: value for key, value in whole.items() if key != name})
