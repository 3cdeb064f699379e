"""How well a score tells attacked images from clean ones (section 6): ROC curves and rates of detection.

Clean images are all that the target is asked about, not only those that it classifies rightly: a server does
not know which these are, and each one refused is a false alarm. Images that it gets wrong look suspicious, so
a threshold over all of them is higher, and detection never looks better for it. Both are reported.

An image is flagged when its score is above the threshold; a threshold is chosen and its false alarms are
counted on the same clean images.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from divtf.errors import require
from divtf.evaluation.predictions import all_member_logits
from divtf.evaluation.suspicion import SCORES, log_probabilities
from divtf.networks.logits import as_target, class_indices
from divtf.storage.records import wilson_interval

FALSE_ALARMS = (0.01, 0.05)
_POINTS = 100


@dataclasses.dataclass(frozen=True)
class Detection:
    """What is flagged at one threshold.

    Attributes:
        false_alarms: share of clean images that may be flagged, as asked for.
        reached: share that is; less where scores are equal.
        threshold: images whose score is above it are flagged.
        flagged: attacked images that are.
        total: attacked images.
    """

    false_alarms: float
    reached: float
    threshold: float
    flagged: int
    total: int

    @property
    def tpr(self) -> float:
        """Share of the attacked images that is flagged."""
        return self.flagged / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `tpr`: of the choice of attacked images, at this threshold."""
        return wilson_interval(self.flagged, self.total)

    def to_json(self) -> dict[str, Any]:
        """All attributes, and the rate and its interval for readers."""
        low, high = self.interval
        derived = {"tpr": self.tpr, "low": low, "high": high, "missed": self.total - self.flagged}
        return dataclasses.asdict(self) | derived


@dataclasses.dataclass(frozen=True)
class Roc:
    """Flagged shares at every threshold that makes a difference, from none flagged to all.

    Attributes:
        thresholds: [k], falling; the last is minus infinity.
        fpr: share of the clean images above each, [k], from 0 to 1.
        tpr: share of the attacked images above each, [k], from 0 to 1.
        auc: probability that an attacked image's score is above a clean one's, equal ones counting half.
        clean: scores of clean images, [n].
        attacked: scores of attacked images, [m].
    """

    thresholds: np.ndarray
    fpr: np.ndarray
    tpr: np.ndarray
    auc: float
    clean: np.ndarray
    attacked: np.ndarray

    def tpr_at(self, false_alarms: float) -> Detection:
        """The most that is flagged with at most this share of false alarms; in [0, 1).

        The threshold is the score of the clean image that must not be flagged.
        """
        require(0 <= false_alarms < 1, "a share of false alarms in [0, 1)", false_alarms=false_alarms)
        # Shares as 0.01 are no binary fractions: 0.29 x 100 would allow 28.
        allowed = int(false_alarms * len(self.clean) + 1e-9)
        threshold = np.sort(self.clean)[::-1][allowed]
        return Detection(
            false_alarms=false_alarms,
            reached=float((self.clean > threshold).mean()),
            threshold=float(threshold),
            flagged=int((self.attacked > threshold).sum()),
            total=len(self.attacked),
        )

    def points(self, most: int = _POINTS) -> list[tuple[float, float]]:
        """At most so many (at least 3) of the curve's points (fpr, tpr), from (0, .) to (1, 1).

        They are the highest at false alarms apart by one factor: low ones are of interest.
        """
        levels = np.concatenate([[0.0], np.geomspace(1 / len(self.clean), 1, most - 1)])
        # A rounded level must not miss the point that it stands for.
        places = np.searchsorted(self.fpr, levels * (1 + 1e-12), side="right") - 1
        return [(float(self.fpr[place]), float(self.tpr[place])) for place in np.unique(places)]


def roc(clean_scores: np.ndarray, attacked_scores: np.ndarray) -> Roc:
    """The curve of scores of clean images [n] and attacked ones [m], larger being more suspicious.

    Raises:
        InputError: if there are none of a kind, or scores that are not finite.
    """
    clean, attacked = np.asarray(clean_scores, "float64"), np.asarray(attacked_scores, "float64")
    for name, scores in (("clean", clean), ("attacked", attacked)):
        fits = scores.ndim == 1 and len(scores) > 0 and bool(np.isfinite(scores).all())
        require(fits, f"finite scores [n] of {name} images, at least one", f"{scores!r:.80}")
    thresholds = np.append(np.unique(np.concatenate([clean, attacked]))[::-1], -np.inf)
    false = len(clean) - np.searchsorted(np.sort(clean), thresholds, side="right")
    true = len(attacked) - np.searchsorted(np.sort(attacked), thresholds, side="right")
    # Half of a clean score's equals, all above it: twice the area in whole numbers.
    doubled = int((np.diff(false) * (true[1:] + true[:-1])).sum())
    auc = doubled / (2 * len(clean) * len(attacked))
    return Roc(thresholds, false / len(clean), true / len(attacked), auc, clean, attacked)


def evaluate_detection(
    ensemble,
    clean_x: Any,
    attacked: Mapping[str, tuple[Any, np.ndarray]],
    *,
    clean_y: np.ndarray | None = None,
    scores: Sequence[str] = tuple(SCORES),
    false_alarms: Sequence[float] = FALSE_ALARMS,
    batch_size: int = 250,
) -> dict[str, Any]:
    """How well each score tells each attack's images from clean ones.

    Args:
        ensemble: an Ensemble or a list of members.
        clean_x: clean images [n, ...]; the more there are, the surer the thresholds.
        attacked: by the attack's name its images [m, ...] and whether each fools the ensemble, bool [m]: one
            that was wrong when clean does not. Images made against a score, by `evasion.evade`, are such too.
        clean_y: their labels, [n] or one-hot, for figures over those rightly classified too; None leaves
            these out.
        scores: names of `SCORES`.
        false_alarms: shares of clean images that may be flagged.
        batch_size: images at a time.

    Returns:
        See `detection_results`.

    Raises:
        InputError: if arrays do not fit together, or a score is unknown or not finite.
    """
    target = as_target(ensemble)
    clean = all_member_logits(target, clean_x, batch_size)
    right = None
    if clean_y is not None:
        labels = class_indices(clean_y)
        require(len(labels) == clean.shape[1], "as many labels as clean images", f"{len(labels)}")
        right = log_probabilities(clean)[1].argmax(axis=-1) == labels
    outputs = {
        name: (all_member_logits(target, x, batch_size), np.asarray(fooled))
        for name, (x, fooled) in attacked.items()
    }
    return detection_results(clean, outputs, right=right, scores=scores, false_alarms=false_alarms)


def detection_results(
    clean: np.ndarray,
    attacked: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    right: np.ndarray | None = None,
    scores: Sequence[str] = tuple(SCORES),
    false_alarms: Sequence[float] = FALSE_ALARMS,
) -> dict[str, Any]:
    """How well each score tells each attack's images from clean ones, from the members' logits alone.

    Args:
        clean: of the clean images, [N, n, C].
        attacked: by the attack's name, of its images [N, m, C], and whether each fools the target, bool [m].
        right: whether each clean image is classified rightly, bool [n]; None leaves such figures out.
        scores: names of `SCORES`.
        false_alarms: shares of clean images that may be flagged.

    Returns:
        JSON values: "clean", the number of "images" and of "right" ones; "attacks", by name, the number of
        "images" and of those that "fooled"; and "curves", one for each "attack", "score" and "images" ("all"
        or "fooled", where any did): "auc", "at", each as `Detection.to_json` gives it, "points" [fpr, tpr] of
        the curve, at most 100, and "right", AUC and rates against the rightly classified clean images only.
        Among those that fooled, "missed" of "at" is how many are not flagged: fooling and unseen.

    Raises:
        InputError: if arrays do not fit together, or a score is unknown or not finite.
    """
    require(set(scores) <= set(SCORES), f"scores among {list(SCORES)}", f"{list(scores)}")
    curves: list[dict[str, Any]] = []
    for name, (logits, fooled) in attacked.items():
        fits = fooled.dtype == bool and fooled.shape == logits.shape[1:2]
        require(fits, f"whether each image of {name} fools, bool", f"{fooled.dtype} {fooled.shape}")
        for score in scores:
            clean_scores, attacked_scores = SCORES[score](clean), SCORES[score](logits)
            parts = {"all": attacked_scores, **({"fooled": attacked_scores[fooled]} if fooled.any() else {})}
            for images, part in parts.items():
                found = roc(clean_scores, part)
                curve = _curve(found, false_alarms)
                curve["points"] = [list(point) for point in found.points()]
                if right is not None and right.any():
                    curve["right"] = _curve(roc(clean_scores[right], part), false_alarms)
                curves.append({"attack": name, "score": score, "images": images, **curve})
    return {
        "clean": {"images": clean.shape[1], "right": None if right is None else int(right.sum())},
        "attacks": {
            name: {"images": len(fooled), "fooled": int(fooled.sum())}
            for name, (_, fooled) in attacked.items()
        },
        "curves": curves,
    }


def _curve(curve: Roc, false_alarms: Sequence[float]) -> dict[str, Any]:
    return {"auc": curve.auc, "at": [curve.tpr_at(level).to_json() for level in false_alarms]}
