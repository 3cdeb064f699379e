"""What an evaluation says of itself: whether gradients are masked, and how images give themselves away."""

import dataclasses
from typing import Any

import numpy as np

from divtf.attacks.threat import ThreatModel
from divtf.evaluation import masking
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.masking_report import masking_report
from divtf.runtime.logs import get_logger
from divtf.storage.evaluations import KINDS, QUERY, TRANSFER, WHITE_BOX, EvaluationRecord

_LOG = get_logger(__name__)


def checked(record: EvaluationRecord, sets: AdversarialSets, x: Any, y: np.ndarray) -> EvaluationRecord:
    """The record with its checks, at the smallest epsilon, where most images stand.

    Args:
        record: of the target.
        sets: of the target, beside which what was measured is kept.
        x: the images.
        y: their true classes.
    """
    epsilon = min(record.epsilons)
    fooled = {kind: ~np.array(record.standing_under(kind, epsilon)) for kind in KINDS}

    def measured() -> list[dict[str, Any]]:
        _LOG.info(f"looks for masked gradients of {record.target}, epsilon {epsilon:g}")
        return [
            check.to_json()
            for check in masking_report(
                sets.surrogate,
                x,
                y,
                ThreatModel(epsilon),
                white=fooled[WHITE_BOX],
                black={"transfer": fooled[TRANSFER]},
            )
        ]

    checks = sets.kept("masking", {"epsilon": epsilon, "white": fooled[WHITE_BOX].tolist()}, x, y, measured)
    count = record.query_images
    if count:
        asked = masking.judge_black_box(fooled[WHITE_BOX][:count], {"Square": fooled[QUERY][:count]})
        checks = [*checks, dataclasses.replace(asked, name="queries").to_json()]
    return dataclasses.replace(record, checks=tuple(checks))
