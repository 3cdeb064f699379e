"""Records of runs made apart: what may stand in one row, and what may not."""

import dataclasses

import evaluation_records
import pytest

from divtf.errors import InputError
from divtf.storage.evaluations import ComparisonRecord
from divtf.storage.pooling import pooled
from divtf.storage.records import GaasRecord, SparsityRecord, TargetRecord, TransferResult

OF = {"target": "T_Div", "model": "conv3", "dataset": "mnist", "seed": 0, "budget": {"members": 3}}
CELL = TransferResult("T_Div", "S", "fgsm", 0.1, 5, 10, settings={"steps": 1})
TABLE = TargetRecord(**OF, results=(CELL,))
EVALUATION = evaluation_records.record(
    "T_Div", [evaluation_records.trial("transfer", {0}, surrogate="plain")]
)
COMPARISON = ComparisonRecord.of(TABLE, EVALUATION, "T_Base")
GAAS = GaasRecord(**OF, images=10, curves=({"epsilon": 0.3, "order": 4, "images": 9},))
SPARSITY = SparsityRecord(**OF, activation="relu", zero_entries=0.5, zero_products=0.5, gal=(1.0,))


def with_cell(**values):
    return {"results": (dataclasses.replace(CELL, **values),)}


OTHERWISE = {
    "budget": (TABLE, {"budget": {"members": 5}}),
    "attack": (TABLE, with_cell(attack="ifgsm")),
    "epsilon": (TABLE, with_cell(epsilon=0.3)),
    "surrogate": (TABLE, with_cell(surrogate="T")),
    "settings": (TABLE, with_cell(settings={"steps": 2})),
    "images of a cell": (TABLE, with_cell(total=20)),
    "other images": (TABLE, with_cell(images="of others")),
    "stored as": (TABLE, with_cell(stored_as="uint8")),
    "protocol": (EVALUATION, {"protocol": "quick"}),
    "changed": (EVALUATION, {"changed": {"queries": 5}}),
    "images digest": (EVALUATION, {"images_digest": "of others"}),
    "query images": (EVALUATION, {"query_images": 4}),
    "epsilons": (EVALUATION, {"epsilons": (0.1, 0.3)}),
    "surrogate's training": (EVALUATION, {"surrogates": {"plain": {"seed": 2}}}),
    "more surrogates": (EVALUATION, {"surrogates": {"plain": {"seed": 1}, "div": {"seed": 1}}}),
    "reference": (COMPARISON, {"reference": "T_Noise"}),
    "analysed images": (GAAS, {"images": 20}),
    "order": (GAAS, {"curves": ({"epsilon": 0.3, "order": 8, "images": 9},)}),
    "activation": (SPARSITY, {"activation": "leaky_relu"}),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_seeds_under_other_conditions_are_refused(name):
    record, values = OTHERWISE[name]
    other = dataclasses.replace(record, seed=1, **values)
    with pytest.raises(InputError, match="Expected all seeds of T_Div, conv3 on mnist alike, as seed 0"):
        pooled({"kind": [record]}, {"kind": [other]})
    # Other targets may be tried otherwise.
    assert pooled({"kind": [record]}, {"kind": [dataclasses.replace(other, target="T_Ens")]})


OUTCOMES = {
    "accuracy": (TABLE, with_cell(correct=6)),
    "coherence": (TABLE, {"coherence": (0.5,)}),
    "provenance": (TABLE, {"provenance": {"commit": "another"}}),
    "surrogate's accuracy": (EVALUATION, {"surrogates": {"plain": {"seed": 1, "clean accuracy": 0.5}}}),
    "trials": (EVALUATION, {"trials": ()}),
    "curve": (GAAS, {"curves": ({"epsilon": 0.3, "order": 4, "images": 8},)}),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_came_out_may_differ(name):
    record, values = OUTCOMES[name]
    other = dataclasses.replace(record, seed=1, **values)
    assert pooled({"kind": [record]}, {"kind": [other]}) == {"kind": [record, other]}


def test_what_was_made_anew_is_of_the_added_run_alone():
    again = dataclasses.replace(TABLE, budget={"members": 5})
    assert pooled({"table": [TABLE], "gaas": [GAAS]}, {"table": [again]}) == {"table": [again]}
