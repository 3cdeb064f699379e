"""Records of a small result of every kind, made by hand, for tests of pages; names hold HTML."""

import dataclasses

import evaluation_records

from divtf.reporting.page.content import Result
from divtf.storage.evaluations import QUERY, TRANSFER, WHITE_BOX, ComparisonRecord
from divtf.storage.examples import Example, ExamplesRecord, Seen
from divtf.storage.records import (
    CLEAN,
    WORST_CASE,
    GaasRecord,
    SparsityRecord,
    TargetRecord,
    TransferMatrixRecord,
    TransferResult,
    packed,
)

EPSILONS = (0.1, 0.3)
# A class, a surrogate, and what nothing of it may do.
HOSTILE = "<script>document.title = 'hostile'</script>"
SURROGATE = 'S<img src=x onerror="document.title=1">&amp;'
# (target, attack) -> images of ten that withstand at each epsilon; the first ones do.
COUNTS = {
    ("T_Base", "fgsm"): (6, 2),
    ("T_Base", "pgd_cw"): (5, 2),
    ("T_Base", WORST_CASE): (4, 1),
    ("T_Div", "fgsm"): (9, 4),
    ("T_Div", "pgd_cw"): (8, 3),
    ("T_Div", WORST_CASE): (8, 3),
}
COHERENCE = {"T_Base": (0.7, 0.8, 0.8, 0.9), "T_Div": (-0.4, -0.2, 0.2, 0.8)}
COSINES = {"T_Base": 0.75, "T_Div": -0.25}
# One pixel, grey.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
BUDGET = {"members": 2, "epochs": 4, "training images": 60, "reduced": True}
TOLD = {"members": 2, "epochs": 7, "learning rate": 0.0125, "clean accuracy": 0.9}


def provenance(target):
    return {
        "command": f"train {target}",
        "commit": "0123abc",
        "tensorflow": "2.21.0",
        "hours": 0.5,
        "weights": f"weights of {target}",
    }


def common(target, seed=0):
    named = {"target": target, "model": "conv3", "dataset": "mnist", "seed": seed}
    return named | {"budget": BUDGET, "provenance": provenance(target)}


def result(target, attack, epsilon, right, total=10, **told):
    hits = packed(number < right for number in range(total))
    surrogate = "" if attack == CLEAN else SURROGATE
    values = {"hits": hits, "images": "of ten"}
    if attack not in (CLEAN, WORST_CASE):
        values |= {"settings": {"steps": 30}, "adversarial_set": f"set of {attack} {epsilon}"}
    if attack != CLEAN:
        values |= {"surrogate_settings": TOLD}
    return TransferResult(target, surrogate, attack, epsilon, right, total, **values | told)


def table_record(target, seed=0, **changes):
    by_class = {"correct_by_class": (5, 4), "total_by_class": (5, 5)}
    results = [result(target, CLEAN, 0.0, 9, **by_class)]
    for (name, attack), counts in COUNTS.items():
        if name == target:
            results += [
                result(target, attack, epsilon, count)
                for epsilon, count in zip(EPSILONS, counts, strict=True)
            ]
    cosine = COSINES[target]
    values = {
        "results": tuple(results),
        "coherence": COHERENCE[target],
        "pair_cosines": ((1.0, cosine), (cosine, 1.0)),
        "class_names": (HOSTILE, "two"),
    }
    return TargetRecord(**common(target, seed) | values | changes)


def roc(attack, score, images):
    points = ((0.0, 0.0), (0.0, 0.5), (0.25, 0.75), (1.0, 1.0))
    at = [
        {"false_alarms": share, "tpr": rate, "low": rate - 0.1, "high": rate + 0.1, "missed": 2, "total": 8}
        for share, rate in ((0.01, 0.5), (0.05, 0.625))
    ]
    return {"attack": attack, "score": score, "images": images, "auc": 0.8125, "points": points, "at": at}


def evaluation_record(target, fooled):
    """What fools a target: by transfer from two surrogates, by gradients, by queries."""
    asked = {"attack": "square", "gradients": 0, "queries": 500, "settings": {"initial": 0.8}}
    trials = []
    for epsilon in EPSILONS:
        trials += [
            evaluation_records.trial(TRANSFER, fooled["plain"], surrogate="plain", epsilon=epsilon),
            evaluation_records.trial(TRANSFER, fooled["other"], surrogate="other", epsilon=epsilon),
            evaluation_records.trial(WHITE_BOX, fooled["white"], epsilon=epsilon),
            evaluation_records.trial(
                QUERY, {0}, tried=range(4), queries_taken=(5, 501, 501, 501), epsilon=epsilon, **asked
            ),
        ]
    checks = [
        {"name": "gradients", "passed": True, "figure": 0.0, "sentence": "None is zero."},
        {"name": "single step", "passed": target != "T_Base", "figure": 0.5, "sentence": "It fools & wins."},
    ]
    curves = [
        roc("pgd on the target", score, images)
        for score in ("disagreement", "one_minus_confidence")
        for images in ("all", "fooled")
    ]
    attacks = {"pgd on the target": {"images": 8, "fooled": 4}}
    detection = {"clean": {"images": 8, "right": 7}, "attacks": attacks, "curves": curves}
    surrogates = {"plain": TOLD, "other": TOLD | {"epochs": 8}}
    return dataclasses.replace(
        evaluation_records.record(
            target,
            trials,
            wrong=[7],
            epsilons=EPSILONS,
            query_images=4,
            checks=tuple(checks),
            detection=detection,
            surrogates=surrogates,
        ),
        **common(target),
    )


def examples_record(target):
    def seen(attack, epsilon, together, members):
        return Seen(attack, epsilon, PNG, together, members)

    examples = tuple(
        Example(number, 0, (seen(CLEAN, 0.0, 0, (0, 0)), seen("pgd_cw", 0.1, number % 2, (0, 1))))
        for number in range(3)
    )
    return ExamplesRecord(
        **common(target), examples=examples, surrogate=SURROGATE, class_names=(HOSTILE, "two")
    )


def gaas_record(target, scale):
    def curve(epsilon, order):
        probability = tuple(scale * epsilon / m for m in range(1, order + 1))
        told = {"images": 5, "left_out": 0, "mean_successes": 1.5}
        return {"epsilon": epsilon, "order": order, "probability": probability, **told}

    curves = tuple(curve(epsilon, order) for epsilon in EPSILONS for order in (4, 16))
    return GaasRecord(**common(target), images=6, curves=curves, analysis={"command": "search it"})


def matrix_record(target, counts):
    results = tuple(
        dataclasses.replace(result(target, WORST_CASE, 0.1, count), surrogate=source)
        for source, count in counts.items()
    )
    sources = {source: f"weights of {source}" for source in counts}
    return TransferMatrixRecord(
        **common(target), results=results, sources=sources, analysis={"command": "all"}
    )


TABLE = [table_record("T_Base"), table_record("T_Div")]
EVALUATIONS = [
    evaluation_record("T_Base", {"plain": {0, 1, 2}, "other": {3}, "white": {0, 1, 2, 3, 4}}),
    evaluation_record("T_Div", {"plain": {0}, "other": {1}, "white": {2}}),
]
COMPARED = [
    ComparisonRecord.of(run, evaluation, "T_Base") for run, evaluation in zip(TABLE, EVALUATIONS, strict=True)
]
MATRIX = [
    matrix_record("T_Base", {"T_Base": 1, "T_Div": 8, "surrogate": 5}),
    matrix_record("T_Div", {"T_Base": 9, "T_Div": 2, "surrogate": 7}),
]
GAAS = [gaas_record("T_Base", 2), gaas_record("T_Div", 1)]
SPARSITY = [
    SparsityRecord(**common("T_Div"), activation="relu", zero_entries=0.25, zero_products=0.5, gal=(1.0, 0.5))
]
EXAMPLES = [examples_record("T_Div")]
RECORDS = {
    "table": TABLE,
    "evaluation": EVALUATIONS,
    "gaas": GAAS,
    "transfer_matrix": MATRIX,
    "sparsity": SPARSITY,
    "examples": EXAMPLES,
}
RESULT = Result(f"small {HOSTILE}", RECORDS)
