"""What an evaluation says of itself: whether gradients are masked, and how images give themselves away."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from divtf.attacks.threat import ThreatModel
from divtf.evaluation import masking
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.detection import evaluate_detection, roc
from divtf.evaluation.evasion import CAPS, evade
from divtf.evaluation.masking_report import Effort, MaskingReport, escalated, masking_report
from divtf.evaluation.predictions import all_member_logits, predictions
from divtf.evaluation.stored import as_stored
from divtf.evaluation.suspicion import SCORES
from divtf.runtime.logs import get_logger
from divtf.storage.digests import array_digest
from divtf.storage.evaluations import (
    KINDS,
    QUERY,
    SHOWN_SCORES,
    TRANSFER,
    WHITE_BOX,
    EvaluationRecord,
    TrialResult,
)

_LOG = get_logger(__name__)
# Of the steps of the white box's own ascents, so that three times as many are more than it had.
_EFFORT = Effort(steps=40, times=3)
# Checks that more of the same fools no more; where one fails there are as many rounds of ever longer attacks.
_GAINS, _ROUNDS = ("more steps", "more restarts", "other losses"), 2
_OF_NO_EPSILON = ("gradients", "repeated", "other batches", "unbounded")
# A share of the images: fewer that stand say little, and no figure of them is claimed.
_FEW = 0.05
# Of the attacker who evades detection: images, and what is tried on each.
_EVADING_IMAGES, _EVADING_STEPS, _EVADING_WEIGHTS = 50, 20, (0.0, 0.3, 1.0)
_EVADED = SHOWN_SCORES
# Share of clean images that may be flagged where an attacker evades.
_FALSE_ALARMS = 0.05


def checked(record: EvaluationRecord, sets: AdversarialSets, x: Any, y: np.ndarray) -> EvaluationRecord:
    """The record with its checks: at the smallest epsilon, and at others where more than a few images stand.

    What their ascents fool counts as the white box's: no figure is above what was found on the way.

    Args:
        record: of the target.
        sets: of the target, beside which what was measured is kept.
        x: the images.
        y: their true classes.
    """
    for epsilon in record.epsilons:
        standing = np.mean(record.standing_under(WHITE_BOX, epsilon))
        if epsilon == min(record.epsilons) or standing > _FEW:
            record = _checked_at(epsilon, record, sets, x, y)
    return record


def _checked_at(
    epsilon: float, record: EvaluationRecord, sets: AdversarialSets, x: Any, y: np.ndarray
) -> EvaluationRecord:
    white = ~np.array(record.standing_under(WHITE_BOX, epsilon))

    def measured() -> dict[str, Any]:
        _LOG.info(f"looks for masked gradients of {record.target}, epsilon {epsilon:g}")
        report = masking_report(
            sets.surrogate,
            x,
            y,
            ThreatModel(epsilon),
            white=white,
            effort=_EFFORT,
            stored_as=record.stored_as,
        )
        return _as_json(report)

    known: dict[str, Any] = {"effort": dataclasses.asdict(_EFFORT), "stored_as": record.stored_as}
    known |= {"epsilon": epsilon, "fooled": white.tolist()}
    report = sets.kept("masking", known, x, y, measured)
    record = _with(record, report, epsilon)
    if any(check["name"] in _GAINS and not check["passed"] for check in report["checks"]):
        record = _with(record, _escalated(epsilon, record, sets, known, x, y), epsilon)
    return _with(record, {"checks": _without_gradients(record, epsilon), "trials": []}, epsilon)


def _without_gradients(record: EvaluationRecord, epsilon: float) -> list[dict[str, Any]]:
    """Checks that none who lacks the target's gradients fools more, once all who have them were tried."""
    fooled = {kind: ~np.array(record.standing_under(kind, epsilon)) for kind in KINDS}
    by_transfer = masking.judge_black_box(fooled[WHITE_BOX], {"transfer": fooled[TRANSFER]})
    checks = [by_transfer.to_json()]
    if record.query_images:
        by_queries = masking.judge_black_box(fooled[WHITE_BOX], {"Square": fooled[QUERY]})
        checks.append({**by_queries.to_json(), "name": "queries"})
    return checks


def _escalated(
    epsilon: float,
    record: EvaluationRecord,
    sets: AdversarialSets,
    known: Mapping[str, Any],
    x: Any,
    y: np.ndarray,
) -> Mapping[str, Any]:
    """The check and trials of ever longer attacks on a target that more of the same fooled further."""
    fooled = ~np.array(record.standing_under(WHITE_BOX, epsilon))

    def measured() -> dict[str, Any]:
        _LOG.info(f"attacks {record.target} further, epsilon {epsilon:g}: {int((~fooled).sum())} images")
        report = escalated(
            sets.surrogate,
            x,
            y,
            ThreatModel(epsilon),
            fooled,
            effort=_EFFORT,
            rounds=_ROUNDS,
            stored_as=record.stored_as,
        )
        return _as_json(report)

    return sets.kept("escalation", {**known, "rounds": _ROUNDS, "fooled": fooled.tolist()}, x, y, measured)


def _as_json(report: MaskingReport) -> dict[str, Any]:
    return {
        "checks": [check.to_json() for check in report.checks],
        "trials": [dataclasses.asdict(trial) for trial in report.trials],
    }


def _with(record: EvaluationRecord, found: Mapping[str, Any], epsilon: float) -> EvaluationRecord:
    """The record with more checks and trials; of checks that hang on no epsilon those found first."""
    known = {check["name"] for check in record.checks if check["name"] in _OF_NO_EPSILON}
    checks = [{**check, "epsilon": epsilon} for check in found["checks"] if check["name"] not in known]
    trials = map(TrialResult.from_json, found["trials"])
    return dataclasses.replace(record, checks=(*record.checks, *checks), trials=(*record.trials, *trials))


def detected(
    record: EvaluationRecord,
    sets: AdversarialSets,
    clean: tuple[Any, np.ndarray],
    attacked: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    start: np.ndarray,
) -> EvaluationRecord:
    """The record with how well the members' outputs give adversarial images away; section 6.

    Args:
        record: of the target.
        sets: of the target, beside which what was measured is kept.
        clean: clean images and their true classes, by which thresholds are set; the first of them are
            attacked by one who knows scores and thresholds, at the smallest epsilon.
        attacked: name of an attack -> its images, their true classes, and whether the clean image behind each
            is classified as labelled, bool; they are stored as the record's are, and so are those of who
            evades.
        start: images of the white box in place of the first clean ones, at the smallest epsilon: who evades
            begins there, too.
    """
    target, threat = sets.surrogate, ThreatModel(min(record.epsilons))
    x, y = clean
    start = start[:_EVADING_IMAGES]
    images, labels = np.asarray(x[: len(start)]), y[: len(start)]

    def stored(x_adv: np.ndarray, classes: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images as the target sees them, and which of them fool it: wrong now, and right when clean."""
        seen = np.asarray(as_stored(x_adv, record.stored_as)[:])
        return seen, right & (predictions(target, seen) != classes)

    def measured() -> dict[str, Any]:
        _LOG.info(f"measures detection for {record.target}, epsilon {threat.epsilon:g}")
        logits = all_member_logits(target, x)
        tried = {name: stored(*of_attack) for name, of_attack in attacked.items()}
        right = predictions(target, images) == labels
        for score in _EVADED:
            # Attacked images do not move the threshold.
            scores = SCORES[score](logits)
            threshold = roc(scores, scores).tpr_at(_FALSE_ALARMS).threshold
            if threshold <= 0:
                continue  # A single member never disagrees: there is nothing to evade.
            known = (threat, score, threshold)
            found = evade(
                target,
                images,
                labels,
                *known,
                weights=_EVADING_WEIGHTS,
                steps=_EVADING_STEPS,
                start=start,
            )
            tried[f"evading {score}"] = stored(found.images, labels, right)
        return evaluate_detection(target, x, tried, clean_y=y) | {"fooled_were_right": True}

    depends: dict[str, Any] = {
        "epsilon": threat.epsilon,
        "attacked": {name: array_digest(x_adv) for name, (x_adv, _, _) in attacked.items()},
        "right": {name: array_digest(right) for name, (_, _, right) in attacked.items()},
        "start": array_digest(start),
        "evading": [*_EVADED, _EVADING_IMAGES, _EVADING_STEPS, *_EVADING_WEIGHTS, *CAPS],
    }
    if record.stored_as != "float32":
        depends["stored_as"] = record.stored_as
    return dataclasses.replace(record, detection=sets.kept("detection", depends, x, y, measured))
