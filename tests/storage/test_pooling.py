"""Records of runs made apart: what may stand in one table, and what may not."""

import dataclasses

import evaluation_records
import pytest

from divtf.errors import InputError
from divtf.storage.evaluations import ComparisonRecord
from divtf.storage.pooling import pooled, require_alike
from divtf.storage.records import (
    GaasRecord,
    SparsityRecord,
    TargetRecord,
    TransferMatrixRecord,
    TransferResult,
)

OF = {
    **{"target": "T_Div", "model": "conv3", "dataset": "mnist", "seed": 0, "budget": {"members": 3}},
    "provenance": {"weights": "w", "training": "t", "commit": "c"},
}
SURROGATE = {"epochs": 2, "clean accuracy": 0.9}
CELL = TransferResult(
    *("T_Div", "S", "fgsm", 0.1, 5, 10),
    settings={"steps": 1},
    images="of all",
    surrogate_settings=SURROGATE,
)
TABLE = TargetRecord(**OF, results=(CELL,))
TRIALS = [
    evaluation_records.trial("transfer", {0}, surrogate="plain"),
    evaluation_records.trial("white box", {1}),
    evaluation_records.trial("query", {2}, attack="square", queries=9, queries_taken=(10,) * 8),
]
EVALUATION = evaluation_records.record("T_Div", TRIALS)
COMPARISON = ComparisonRecord.of(TABLE, EVALUATION, "T_Base")
GAAS = GaasRecord(**OF, images=10, curves=({"epsilon": 0.3, "order": 4, "images": 9},))
SPARSITY = SparsityRecord(**OF, activation="relu", zero_entries=0.5, zero_products=0.5, gal=(1.0,))
MATRIX = TransferMatrixRecord(**OF, results=(CELL,), sources={"T_Div": "w", "surrogate": "s"})


def with_cell(**values):
    return {"results": (dataclasses.replace(CELL, **values),)}


def with_trial(number, **values):
    trials = [*TRIALS]
    trials[number] = dataclasses.replace(trials[number], **values)
    return {"trials": tuple(trials)}


# Of seeds of one target; other targets may be so.
OF_A_ROW = {
    "budget": (TABLE, {"budget": {"members": 5}}),
    "training": (TABLE, {"provenance": {"training": "another"}}),
    "attack": (TABLE, with_cell(attack="ifgsm")),
    "epsilon": (TABLE, with_cell(epsilon=0.3)),
    "surrogate": (TABLE, with_cell(surrogate_settings={"epochs": 3})),
    "settings": (TABLE, with_cell(settings={"steps": 2})),
    "images of a cell": (TABLE, with_cell(total=20)),
    "other images": (TABLE, with_cell(images="of others")),
    "stored as": (TABLE, with_cell(stored_as="uint8")),
    "analysed images": (GAAS, {"images": 20}),
    "order": (GAAS, {"curves": ({"epsilon": 0.3, "order": 8, "images": 9},)}),
    "activation": (SPARSITY, {"activation": "leaky_relu"}),
}
# Of all targets.
OF_A_TABLE = {
    "images": (EVALUATION, {"images_digest": "of others"}),
    "query images": (EVALUATION, {"query_images": 4}),
    "epsilons": (EVALUATION, {"epsilons": (0.1, 0.3)}),
    "stored as": (EVALUATION, {"stored_as": "uint8"}),
    "surrogate's training": (EVALUATION, {"surrogates": {"plain": {"seed": 1, "epochs": 2}}}),
    "more surrogates": (EVALUATION, {"surrogates": {"plain": {"seed": 1}, "div": {"seed": 1}}}),
    "settings of an attack": (EVALUATION, with_trial(0, settings={"steps": 5})),
    "settings of queries": (EVALUATION, with_trial(2, settings={"initial": 0.5})),
    "another attack": (EVALUATION, with_trial(1, attack="auto_pgd")),
    "fewer attacks": (EVALUATION, {"trials": tuple(TRIALS[:2])}),
    "protocol of a comparison": (COMPARISON, {"protocol": "quick"}),
    "changed protocol": (COMPARISON, {"changed": {"queries": 5}}),
    "reference": (COMPARISON, {"reference": "T_Noise"}),
    "sources": (MATRIX, {"sources": {"T_Div": "others", "surrogate": "s"}, "seed": 0}),
}


@pytest.mark.parametrize("name", OF_A_ROW)
def test_seeds_that_were_not_trained_and_tried_alike_are_refused(name):
    record, values = OF_A_ROW[name]
    other = dataclasses.replace(record, **{"seed": 1, **values})
    with pytest.raises(
        InputError, match=r"Expected all seeds of T_Div, conv3 on mnist alike, as T_Div.*seed 0"
    ):
        require_alike([record, other])
    require_alike([record, dataclasses.replace(other, target="T_Ens")])


@pytest.mark.parametrize("name", OF_A_TABLE)
def test_targets_that_were_not_tried_alike_are_refused(name):
    record, values = OF_A_TABLE[name]
    other = dataclasses.replace(record, **{"seed": 1, **values, "target": "T_Ens"})
    with pytest.raises(InputError, match=r"Expected all of conv3 on mnist.* tried alike, as T_Div"):
        require_alike([record, other])
    require_alike([record, dataclasses.replace(other, dataset="cifar10")])


ALIKE = {
    "accuracy": (TABLE, with_cell(correct=6)),
    "coherence": (TABLE, {"coherence": (0.5,)}),
    "seeds of surrogate and static model": (
        TABLE,
        {"budget": {"members": 3, "surrogate seed": 1001, "static seed": 2001}},
    ),
    "commit": (TABLE, {"provenance": {"training": "t", "commit": "another"}}),
    "training of an older version": (TABLE, {"provenance": {"commit": "an older one"}}),
    "cell of an older version": (TABLE, with_cell(settings={}, images="", surrogate_settings={})),
    "place of the surrogate": (TABLE, with_cell(surrogate="elsewhere")),
    "surrogate's seed": (EVALUATION, {"surrogates": {"plain": {"seed": 2, "no gradient at": "1 of 8"}}}),
    "surrogate's accuracy": (TABLE, with_cell(surrogate_settings=SURROGATE | {"clean accuracy": 0.8})),
    "accuracy of an evaluation's": (
        EVALUATION,
        {"surrogates": {"plain": {"seed": 1, "clean accuracy": 0.5}}},
    ),
    "outcomes": (EVALUATION, with_trial(0, hits="00")),
    "checks that try more": (
        EVALUATION,
        {"trials": (*TRIALS, evaluation_records.trial("white box", {1}, settings={"steps": 120}))},
    ),
    "another protocol": (EVALUATION, {"protocol": "quick", "images_digest": "of others"}),
    "curve": (GAAS, {"curves": ({"epsilon": 0.3, "order": 4, "images": 8},)}),
    "sources of another seed": (MATRIX, {"sources": {"T_Div": "others", "surrogate": "s"}}),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_came_out_and_what_is_not_known_may_differ(name):
    record, values = ALIKE[name]
    other = dataclasses.replace(record, **{"seed": 1, **values})
    require_alike([record, other])
    require_alike([other, record])


def test_a_message_names_a_few_of_the_differences():
    cells = [dataclasses.replace(CELL, attack=f"attack {n}") for n in range(9)]
    many = dataclasses.replace(TABLE, results=tuple(cells), seed=1)
    with pytest.raises(InputError) as caught:
        require_alike([TABLE, many])
    assert str(caught.value).endswith("more") and len(str(caught.value)) < 600


# What is put together


def test_of_one_run_and_kind_the_added_record_counts():
    again = dataclasses.replace(TABLE, coherence=(0.5,))
    assert pooled({"table": [TABLE]}, {"table": [again]}) == {"table": [again]}


def test_what_is_kept_of_other_kinds_stays_unless_its_run_was_trained_anew():
    seed_1 = dataclasses.replace(TABLE, seed=1)
    kept = {"table": [TABLE], "gaas": [GAAS]}
    assert pooled(kept, {"table": [TABLE, seed_1]}) == {"table": [TABLE, seed_1], "gaas": [GAAS]}
    anew = dataclasses.replace(TABLE, provenance={"weights": "others"})
    assert pooled(kept, {"table": [anew]}) == {"table": [anew]}


def test_evaluations_of_a_run_by_two_protocols_stay():
    quick = dataclasses.replace(EVALUATION, protocol="quick")
    assert pooled({"evaluation": [EVALUATION]}, {"evaluation": [quick]}) == {
        "evaluation": [EVALUATION, quick]
    }
