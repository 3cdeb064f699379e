"""Objectives by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from divtf.ensembles.objectives import names
from divtf.ensembles.objectives.adp import AdaptiveDiversity
from divtf.ensembles.objectives.adversarial import AdversarialTraining
from divtf.ensembles.objectives.cross_entropy import CrossEntropy
from divtf.ensembles.objectives.dverge import VulnerabilityDiversity
from divtf.ensembles.objectives.gal import GradientAlignment
from divtf.ensembles.objectives.objective import Objective
from divtf.ensembles.objectives.parl import PairwiseRobustness
from divtf.ensembles.objectives.trs import TransferabilityReducedSmoothness
from divtf.errors import require
from divtf.runtime import own_code

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
        name: of `OBJECTIVES`; or MODULE:NAME, a class or function of your own that gives one.
        **params: its settings; those that are not given have the values of its authors.

    Raises:
        InputError: for another name or setting, or a setting out of range; whatever your own code says.
    """
    if isinstance(name, str) and names.is_own(name):
        return _own_objective(name, params)
    named = isinstance(name, str) and name in OBJECTIVES
    require(named, f"objective as one of {list(OBJECTIVES)}", f"{name!r}")
    kind = OBJECTIVES[name]
    known = [field.name for field in dataclasses.fields(kind)]
    require(
        set(params) <= set(known), f"settings of {name} among {known}", f"{sorted(set(params) - set(known))}"
    )
    return kind(**params)


def _own_objective(name: str, params: Mapping[str, Any]) -> Any:
    reference, digest = names.parted(name)
    make = own_code.function(reference, "objective")
    module = reference.partition(":")[0]
    imported = own_code.imported_digest(module)
    require(
        digest in ("", imported),
        f"module {module} as it was when the run was configured, {digest}",
        f"{imported}, as it was when it was imported; a process that starts now has it as it is",
    )
    given = f"with {', '.join(params)}" if params else "without arguments"
    with own_code.told_in_one_line(f"{reference} to give an objective when it is called {given}"):
        made = make(**params)
    is_objective = callable(made) and not isinstance(made, type)
    require(is_objective, f"an objective of {reference}, an object to be called", f"{made!r:.200}")
    return made
