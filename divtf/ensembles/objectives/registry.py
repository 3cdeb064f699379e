"""Objectives by name."""

import dataclasses
from typing import Any

from divtf.ensembles.objectives.adp import AdaptiveDiversity
from divtf.ensembles.objectives.adversarial import AdversarialTraining
from divtf.ensembles.objectives.cross_entropy import CrossEntropy
from divtf.ensembles.objectives.dverge import VulnerabilityDiversity
from divtf.ensembles.objectives.gal import GradientAlignment
from divtf.ensembles.objectives.objective import Objective
from divtf.ensembles.objectives.parl import PairwiseRobustness
from divtf.ensembles.objectives.trs import TransferabilityReducedSmoothness
from divtf.errors import require

OBJECTIVES: dict[str, type[Objective]] = {
    "cross_entropy": CrossEntropy,
    "gal": GradientAlignment,
    "adp": AdaptiveDiversity,
    "trs": TransferabilityReducedSmoothness,
    "parl": PairwiseRobustness,
    "dverge": VulnerabilityDiversity,
    "adversarial": AdversarialTraining,
}


def make_objective(name: str, **params: Any) -> Objective:
    """An objective by name, for `Ensemble(members, objective)`.

    Args:
        name: of `OBJECTIVES`.
        **params: its settings; those that are not given have the values of its authors.

    Raises:
        InputError: for another name or setting, or a setting out of range.
    """
    named = isinstance(name, str) and name in OBJECTIVES
    require(named, f"objective as one of {list(OBJECTIVES)}", f"{name!r}")
    kind = OBJECTIVES[name]
    known = [field.name for field in dataclasses.fields(kind)]
    require(
        set(params) <= set(known), f"settings of {name} among {known}", f"{sorted(set(params) - set(known))}"
    )
    return kind(**params)
