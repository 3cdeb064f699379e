import json
import math

import numpy as np
import pytest

from divtf.storage.records import (
    CLEAN,
    SCHEMA,
    WORST_CASE,
    GaasRecord,
    SparsityRecord,
    TargetRecord,
    TransferResult,
    attacks,
    epsilons,
    grouped,
    packed,
    unpacked,
    wilson_interval,
)

Z = 1.959963984540054


def _record(**changes):
    values = {
        "target": "T_Div",
        "model": "conv3",
        "dataset": "mnist",
        "seed": 3,
        "results": (
            TransferResult("T_Div", "", CLEAN, 0.0, 8, 10),
            TransferResult("T_Div", "S_Base", "fgsm", 0.3, 1, 3, 0.25, "abc"),
            TransferResult("T_Div", "S_Base", "pgd_cw", 0.1, 2, 3, 0.25, "abd"),
            TransferResult("T_Div", "S_Base", WORST_CASE, 0.1, 1, 3),
        ),
        "coherence": (0.1, -0.2),
        "pair_cosines": ((1.0, 0.1), (0.1, 1.0)),
        "budget": {"members": 2, "reduced": True},
        "provenance": {"commit": "0123abc"},
    }
    return TargetRecord(**values | changes)


def test_wilson_interval_of_8_in_10():
    # Both bounds p solve n (p - s)^2 = z^2 p (1 - p), here with n = 10, s = 8/10. As a quadratic in p:
    # (n + z^2) p^2 - (2 n s + z^2) p + n s^2 = 0.
    a, b, c = 10 + Z**2, -(2 * 10 * 0.8 + Z**2), 10 * 0.8**2
    root = math.sqrt(b * b - 4 * a * c)
    assert wilson_interval(8, 10) == pytest.approx(((-b - root) / (2 * a), (-b + root) / (2 * a)), abs=1e-12)
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)


@pytest.mark.parametrize("total", [1, 7, 500, 10000])
def test_wilson_interval_ends_exactly_and_is_symmetric(total):
    # With no success the upper bound is z^2 / (n + z^2): the quadratic above with s = 0.
    low, high = wilson_interval(0, total)
    assert low == 0.0
    assert high == pytest.approx(Z**2 / (total + Z**2), rel=1e-12)
    assert wilson_interval(total, total)[1] == 1.0
    for correct in {0, total // 3, total // 2, total}:
        low, high = wilson_interval(correct, total)
        assert 0 <= low <= correct / total <= high <= 1
        mirrored = wilson_interval(total - correct, total)
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_interval_is_a_point_without_uncertainty():
    assert wilson_interval(3, 4, z=0.0) == (0.75, 0.75)


@pytest.mark.parametrize(("correct", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_interval_rejects_what_is_no_proportion(correct, total):
    with pytest.raises(ValueError, match=rf"Expected .*Received: correct={correct}, total={total}"):
        wilson_interval(correct, total)


def test_accuracy_and_interval_of_a_result():
    result = TransferResult("T_Div", "S", "fgsm", 0.1, 8, 10)
    assert result.accuracy == 0.8
    assert result.interval == wilson_interval(8, 10)
    assert result.to_json() | {"accuracy": 0.8, "low": result.interval[0], "high": result.interval[1]} == (
        result.to_json()
    )


@pytest.mark.parametrize("changes", [{}, {"coherence": (), "pair_cosines": (), "budget": {}, "results": ()}])
def test_json_round_trip(changes):
    record = _record(**changes)
    assert TargetRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_result_json_round_trip_computes_derived_values_anew():
    result = TransferResult(
        *("T_Div", "S", "fgsm", 0.1, 8, 10, 0.5, "abc", 3, (8,), (10,)),
        settings={"steps": 10},
        surrogate_settings={"seed": 1, "clean accuracy": 0.5},
        stored_as="jpeg",
        hits="ff0",
        images="i",
    )
    assert TransferResult.from_json(json.loads(json.dumps(result.to_json())) | {"accuracy": 0.1}) == result


@pytest.mark.parametrize("schema", [SCHEMA + 1, None])
def test_another_schema_is_refused(schema):
    with pytest.raises(ValueError, match=rf"Expected a record of schema {SCHEMA}.*Received: schema={schema}"):
        TargetRecord.from_json(_record().to_json() | {"schema": schema})


OF = {"target": "T_Div", "model": "conv3", "dataset": "mnist", "seed": 3, "budget": {"members": 2}}
CURVE = {"epsilon": 0.1, "order": 4, "images": 9, "probability": [1.0, 0.5, 0.5, 0.0]}


@pytest.mark.parametrize(
    "record",
    [
        GaasRecord(**OF, images=10, curves=(CURVE, CURVE), analysis={"commit": "0123abc"}),
        SparsityRecord(**OF, activation="relu", zero_entries=0.5, zero_products=0.75, gal=(1.5, 1.0)),
    ],
    ids=lambda record: type(record).__name__,
)
def test_records_of_figures_travel_as_json(record):
    stored = json.loads(json.dumps(record.to_json()))
    assert type(record).from_json(stored) == record
    assert stored["schema"] == SCHEMA and record.subject == "conv3 on mnist"
    with pytest.raises(ValueError, match=rf"Expected a record of schema {SCHEMA}"):
        type(record).from_json(stored | {"schema": 0})
    with pytest.raises(TypeError):
        type(record).from_json({"schema": SCHEMA})


def test_record_that_lacks_what_came_later_is_read():
    """A record of the first version without its optional parts, and one with a part of a later version."""
    stored = json.loads(json.dumps(_record().to_json()))
    required = {name: stored[name] for name in ("schema", "target", "model", "dataset", "seed", "results")}
    bare = _record(coherence=(), pair_cosines=(), budget={}, provenance={})
    assert TargetRecord.from_json(required) == bare
    assert TargetRecord.from_json(stored | {"unheard_of": 1}) == _record()


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 1001])
def test_outcomes_are_packed_as_numpy_packs_bits(count):
    outcomes = np.random.default_rng(count).random(count) < 0.5
    hits = packed(outcomes.tolist())
    # NumPy fills whole bytes, hexadecimal digits hold half of one.
    assert hits == np.packbits(outcomes).tobytes().hex()[: -(-count // 4)]
    assert unpacked(hits, count) == tuple(outcomes)


def test_outcomes_by_hand():
    assert packed([True, False, True, True, False]) == "b0" and packed([]) == ""
    result = TransferResult("T", "S", "fgsm", 0.1, 3, 5, hits="b0")
    assert result.outcomes == (True, False, True, True, False)
    assert TransferResult("T", "S", "fgsm", 0.1, 3, 5).outcomes == ()


@pytest.mark.parametrize("hits", ["b", "b00", "b8", "B0", "-b", "0x", "b1", "f0"])
def test_outcomes_that_are_not_those_of_the_counts_are_refused(hits):
    """Of another number of images, no digits, of more images than there are, and of other counts."""
    stored = TransferResult("T", "S", "fgsm", 0.1, 3, 5).to_json()
    assert TransferResult.from_json(stored | {"hits": "b0"}).hits == "b0"
    with pytest.raises(ValueError, match="Expected"):
        TransferResult.from_json(stored | {"hits": hits})


def test_result_of_before_settings_and_outcomes_were_kept_is_read():
    known = TransferResult("T", "S", "fgsm", 0.1, 8, 10, 0.5, "abc")
    later = ("settings", "surrogate_settings", "stored_as", "hits", "images", "unmoved", "total_by_class")
    before = {name: value for name, value in known.to_json().items() if name not in later}
    assert TransferResult.from_json(before) == known


def test_groups_keep_the_order_of_appearance():
    records = [_record(target=target, seed=seed) for seed, target in enumerate("bab")]
    groups = grouped(records, lambda record: record.target)
    assert {key: [record.seed for record in own] for key, own in groups.items()} == {"b": [0, 2], "a": [1]}
    assert list(groups) == ["b", "a"]


def test_result_is_found_by_attack_and_epsilon():
    record = _record()
    assert record.result("pgd_cw", 0.1 + 1e-12) is record.results[2]
    assert record.result(CLEAN, 0.0) is record.results[0]
    assert record.result("pgd_cw", 0.3) is None
    assert record.result("ifgsm", 0.1) is None


def test_epsilons_and_attacks_of_records():
    assert epsilons([_record()]) == [0.1, 0.3]
    assert attacks([_record(), _record()]) == ["fgsm", "pgd_cw"]
    assert epsilons([]) == attacks([]) == []
