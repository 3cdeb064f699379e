"""What an evaluation tells of detection by disagreement (section 6): how many images are flagged."""

from collections.abc import Mapping, Sequence
from typing import Any

from divtf.reporting.tables import Table
from divtf.storage.evaluations import SHOWN_SCORES, EvaluationRecord

_WRONG_TOO = "Images that fool include, in these records, those that are wrong when clean already"


def has_curves(records: Sequence[EvaluationRecord]) -> bool:
    """Whether there is a curve to tell of: where no image stands, nothing is attacked."""
    return any(record.detection.get("curves") for record in records)


def lines(table: Table, records: Sequence[EvaluationRecord]) -> list[list[str]]:
    """How many images that fool a target are flagged, by score; of the attacks, and of one who evades."""
    heads = ["target", "attack", "score", "AUC", "images", "flagged of all, %"]
    grid = [[*heads, "images that fool", "flagged of those that fool, %", "fool unseen"]]
    for record in records:
        curves = {(c["attack"], c["score"], c["images"]): c for c in record.detection.get("curves", ())}
        for (attack, score, images), curve in curves.items():
            if images == "all" and score in SHOWN_SCORES:
                fooled = curves.get((attack, score, "fooled"))
                grid.append([table.names[record.target], *_detected(attack, score, curve, fooled)])
    return grid


def note(records: Sequence[EvaluationRecord]) -> str:
    """What these lines mean."""
    first = next(curve for record in records for curve in record.detection.get("curves", ()))
    at = " / ".join(f"{100 * rate['false_alarms']:g} %" for rate in first["at"])
    are_right = all(r.detection.get("fooled_were_right") for r in records if r.detection.get("curves"))
    fool = "Images that fool are right when clean" if are_right else _WRONG_TOO
    return (
        f"At epsilon {min(records[0].epsilons):g}. Flagged are images whose score is above that of all but "
        f"{at} of the clean test images; the AUC is over all attacked images. [ ]: 95 % Wilson interval, of "
        f"the choice of attacked images at this threshold. {fool}. Who evades knows the score and its "
        "threshold at 5 %. The records have more scores."
    )


def _detected(
    attack: str, score: str, curve: Mapping[str, Any], fooled: Mapping[str, Any] | None
) -> list[str]:
    of_fooled = ["0", "-", "0"]
    if fooled:
        unseen = " / ".join(str(at["missed"]) for at in fooled["at"])
        of_fooled = [_total(fooled), _rates(fooled), unseen]
    return [
        *(attack, score.replace("_", " "), f"{curve['auc']:.3f}", _total(curve), _rates(curve)),
        *of_fooled,
    ]


def _total(curve: Mapping[str, Any]) -> str:
    """How many attacked images a curve is of."""
    return str(curve["at"][0]["total"])


def _rates(curve: Mapping[str, Any]) -> str:
    """Flagged shares in percent, with their intervals."""
    shares = [[100 * at[name] for name in ("tpr", "low", "high")] for at in curve["at"]]
    return " / ".join(f"{tpr:.1f} <sub>[{low:.1f}-{high:.1f}]</sub>" for tpr, low, high in shares)
