"""What training minimises, as fields of a run's configuration. This module imports no TensorFlow."""

import dataclasses
from typing import Any

from divtf.ensembles.objectives.names import FORMS, LABELS, NAMES, is_own
from divtf.errors import require
from divtf.pipeline.fields import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Check, flag

OBJECTIVE = Check(
    lambda name: name in NAMES or is_own(name),
    f"one of {{{', '.join(NAMES)}}}, or of your own {FORMS}",
    NAMES,
)
_SMALLEST = "the data set's smallest epsilon"
_LARGEST = "the data set's largest epsilon"


@dataclasses.dataclass(frozen=True)
class ObjectiveFields:
    """The objective, and a setting of one as NAME_SETTING; None stands for its authors' value."""

    objective: str | None = flag(
        None,
        f"What training minimises, on the images of --mode; your own: {FORMS}.",
        OBJECTIVE,
        stands_for="gal for div, ens_div and detect, cross_entropy for others",
    )
    gal_weight: float = flag(0.5, "lambda of Equation 9.", NOT_NEGATIVE)
    gal_sharpness: float | None = flag(
        None, "t of log-sum-exp(t x cosines) / t in place of Equation 8.", POSITIVE, stands_for="1"
    )
    adp_alpha: float | None = flag(None, "Weight of ADP's entropy.", NOT_NEGATIVE, stands_for="2")
    adp_beta: float | None = flag(None, "Weight of ADP's log-determinant.", NOT_NEGATIVE, stands_for="0.5")
    trs_similarity: float | None = flag(None, "Weight of TRS's cosines.", NOT_NEGATIVE, stands_for="10")
    trs_smoothness: float | None = flag(
        None, "Weight of TRS's norms of gradients.", NOT_NEGATIVE, stands_for="1"
    )
    trs_epsilon: float | None = flag(
        None, "How far TRS looks for the longest gradient.", POSITIVE, stands_for=_SMALLEST
    )
    trs_steps: int | None = flag(None, "Steps of TRS's search.", COUNT, stands_for="6")
    trs_step: float | None = flag(
        None, "Size of a step of TRS's search, in epsilons.", SHARE, stands_for="1/3"
    )
    parl_weight: float | None = flag(None, "gamma of PARL.", NOT_NEGATIVE, stands_for="0.25")
    parl_layers: int | None = flag(None, "Layers that PARL looks at.", COUNT, stands_for="5")
    dverge_epsilon: float | None = flag(
        None, "Budget of DVERGE's distilled images.", POSITIVE, stands_for=_LARGEST
    )
    dverge_steps: int | None = flag(None, "Steps of DVERGE's distillation.", COUNT, stands_for="10")
    dverge_step: float | None = flag(
        None, "Size of a step of DVERGE's distillation, in epsilons.", SHARE, stands_for="0.1"
    )
    adversarial_epsilon: float | None = flag(
        None, "Budget of adversarial training.", POSITIVE, stands_for=_SMALLEST
    )
    adversarial_steps: int | None = flag(None, "Steps of adversarial training.", COUNT, stands_for="10")
    adversarial_step: float | None = flag(
        None, "Size of a step of adversarial training, in epsilons.", SHARE, stands_for="0.25"
    )
    adversarial_gal: float | None = flag(
        None, "Weight of GAL on the images of adversarial training.", NOT_NEGATIVE, stands_for="0"
    )


# Fields that runs of earlier versions lack: they are told only where they are given.
LATER = tuple(field.name for field in dataclasses.fields(ObjectiveFields) if field.name != "gal_weight")
SETTINGS = tuple(name for name in LATER if name != "objective")


def settings_of(fields: ObjectiveFields, name: str) -> dict[str, Any]:
    """The settings given for an objective, by their names in its class."""
    prefix = f"{name}_"
    given = {field.name: getattr(fields, field.name) for field in dataclasses.fields(ObjectiveFields)}
    return {
        key.removeprefix(prefix): value
        for key, value in given.items()
        if key.startswith(prefix) and value is not None
    }


def require_own_settings(fields: ObjectiveFields, name: str) -> None:
    """Refuse settings of another objective than the one that is trained.

    Raises:
        InputError: names the first of them.
    """
    for setting in SETTINGS:
        value, owner = getattr(fields, setting), setting.split("_")[0]
        require(
            value is None or owner == name,
            f"--{setting} with --objective={owner} alone, {LABELS[owner]}'s, and of recipes in a file of one",
            f"--{setting}={value} with {name}",
        )
    # Of a table of modes it is given for all of them; a given objective is that of all.
    changed = fields.gal_weight != ObjectiveFields.gal_weight
    require(
        not changed or fields.objective in (None, "gal"),
        "--gal_weight with --objective=gal alone, GAL's",
        f"--gal_weight={fields.gal_weight} with {name}",
    )
