"""What D_adv is made of, as fields of a run's configuration. This module imports no TensorFlow."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from divtf.attacks.names import ON_SURROGATES
from divtf.data.paper import SETUPS
from divtf.errors import require
from divtf.networks import names
from divtf.pipeline.fields import Check, flag, one_of
from divtf.pipeline.modes import MODES
from divtf.storage.digests import digest

LEAST_LIKELY = ("step_ll", *(f"{name}_ll" for name in ON_SURROGATES if name != "fgsm"))
_ATTACKS = (*ON_SURROGATES, *LEAST_LIKELY)


def _is_model(name: str) -> bool:
    """Whether a static model may be called so."""
    mode = MODES.get(name)
    plain = name == "other" or re.fullmatch(r"plain\d*", name)
    return bool(plain or name in SETUPS or names.is_own(name) or (mode and not mode.adversarial))


@dataclasses.dataclass(frozen=True)
class StaticFields:
    """The static models of modes ens and ens_div, what attacks them, and by how much; section 4.2."""

    static_attacks: tuple[str, ...] = flag(
        ("fgsm",),
        "What makes D_adv: attacks by true labels, as FGSM is, or step_ll and NAME_ll, to the least likely "
        "class, which tell no label.",
        Check(
            lambda attacks: 0 < len(set(attacks)) == len(attacks) and set(attacks) <= set(_ATTACKS),
            f"distinct names of {{{', '.join(ON_SURROGATES)}}}, step_ll, NAME_ll but of fgsm, at least one",
            _ATTACKS,
        ),
    )
    static_models: tuple[str, ...] = flag(
        ("plain",),
        "Whom they attack: plain, plainN with N members, other for another architecture, a mode (div), a "
        "model (mix). What is given again is trained from other seeds.",
        Check(
            lambda models: len(models) > 0 and all(_is_model(name) for name in models),
            "plain, plainN, other, a mode without static models, or a model; at least one",
        ),
    )
    static_budgets: str = flag(
        "paper", "How D_adv's budgets are drawn: as in section 4.2, or uniform.", one_of(("paper", "uniform"))
    )


NAMES = tuple(field.name for field in dataclasses.fields(StaticFields))


def require_used(given: Iterable[str], mode: str) -> None:
    """Refuse to be given fields by which no image of one run's mode is made.

    Raises:
        InputError: names them.
    """
    takers = [name for name, each in MODES.items() if each.adversarial]
    fields = [f"--{name}" for name in given if name in NAMES]
    fits = not fields or mode in takers or mode not in MODES  # No mode at all is refused elsewhere.
    require(fits, f"--mode as one of {{{', '.join(takers)}}} beside {', '.join(fields)}", f"mode={mode}")


_PAPER = StaticFields()


def ablation(fields: StaticFields) -> tuple[str, str]:
    """What tells sources in a target's name, and in a directory's; "" for the paper's."""
    given = StaticFields(**{name: getattr(fields, name) for name in NAMES})
    if given == _PAPER:
        return "", ""
    if given == dataclasses.replace(_PAPER, static_attacks=("step_ll",)):
        return "Step-LL", "step_ll"
    parts = [
        "+".join(given.static_models) if given.static_models != _PAPER.static_models else "",
        "+".join(given.static_attacks) if given.static_attacks != _PAPER.static_attacks else "",
        given.static_budgets if given.static_budgets != _PAPER.static_budgets else "",
    ]
    return " ".join(part for part in parts if part), f"static{digest(dataclasses.asdict(given))[:6]}"


def to_identity(values: dict[str, Any]) -> dict[str, Any]:
    """A run's values as earlier versions have them: without the paper's, and step_ll under its old name."""
    paper = dataclasses.asdict(_PAPER)
    kept = {name: value for name, value in values.items() if name not in paper or value != paper[name]}
    if kept.get("static_attacks") == ("step_ll",):
        del kept["static_attacks"]
        kept["static_attack"] = "step_ll"
    return kept


def from_identity(values: dict[str, Any]) -> dict[str, Any]:
    """The inverse, as far as names go."""
    earlier = {"static_attacks": (values["static_attack"],)} if "static_attack" in values else {}
    return {name: value for name, value in values.items() if name != "static_attack"} | earlier
