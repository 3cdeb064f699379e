"""Whether an evaluation can be believed: signs that a target hides its gradients instead of resisting.

Each judge takes what was measured and gives a `Check`; `masking_report` measures and judges. What was fooled
is always said image by image, bool [n], and an image that the target gets wrong anyway counts as fooled.

Source: Athalye et al. (2018), "Obfuscated Gradients Give a False Sense of Security", section 3.1; Carlini et
al. (2019), "On Evaluating Adversarial Robustness"; Pintor et al. (2022), "Indicators of Attack Failure".
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from divtf.errors import require

# What an accuracy may be wrong by before it matters, a share: one point.
TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Check:
    """One sign of hidden gradients, looked for.

    Attributes:
        name: of the check.
        passed: whether there was no such sign.
        figure: what was measured, a share of the images, or in words.
        sentence: what it means.
    """

    name: str
    passed: bool
    figure: float | str
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        return dataclasses.asdict(self)


def judge_single_step(single: np.ndarray, iterated: np.ndarray) -> Check:
    """A single step must not fool more images than many do, by more than one point.

    Args:
        single: whether the single step fools each image, bool [n].
        iterated: whether any iterated white-box attack does, bool [n].
    """
    gain, holds = _gain(iterated, single)
    return Check(
        "single step",
        holds,
        gain,
        f"A single step fools {_percent(single.mean())} of the images, iterated attacks "
        f"{_percent(iterated.mean())}{_but(holds, 'following the gradient further leads astray')}.",
    )


def judge_black_box(white: np.ndarray, black: Mapping[str, np.ndarray]) -> Check:
    """Who lacks the target's gradients must not fool images that who has them does not, but one point.

    Args:
        white: whether any white-box attack fools each image, bool [n].
        black: by the attack's name whether it does, by transfer or by queries; an image that it was not tried
            on counts as one that it does not fool.
    """
    require(len(black) > 0, "at least one black-box attack", "none")
    alone = {name: int((fooled & ~white).sum()) for name, fooled in black.items()}
    strongest = max(alone, key=lambda name: alone[name])
    holds = _within_tolerance(alone[strongest], len(white))
    return Check(
        "black box",
        holds,
        alone[strongest] / len(white),
        f"{strongest}, without the target's gradients, fools {alone[strongest]} of {len(white)} images that "
        f"no white-box attack does{_but(holds, 'the gradients mislead')}.",
    )


def judge_unbounded(fooled: np.ndarray) -> Check:
    """Who may change an image into any other must always fool the target.

    Args:
        fooled: whether the white-box attack fools each image with the whole image range as its budget.
    """
    accuracy = 1 - float(fooled.mean())
    return Check(
        "unbounded",
        bool(fooled.all()),
        accuracy,
        f"With the whole image range as its budget the white-box attack leaves {_percent(accuracy)} accuracy"
        f"{_but(bool(fooled.all()), 'it is the attack that fails')}.",
    )


def judge_gradients(lacking: Mapping[str, np.ndarray]) -> Check:
    """Input gradients must be there: finite and not zero.

    Args:
        lacking: by the loss's name whether its gradient at each image is none, zero or not finite, bool [n].
    """
    require(len(lacking) > 0, "gradients of at least one loss", "none")
    shares = {name: float(np.mean(none)) for name, none in lacking.items()}
    most, holds = (
        max(shares.values()),
        all(_within_tolerance(int(none.sum()), len(none)) for none in lacking.values()),
    )
    told = ", ".join(f"of the {name} {_percent(share)}" for name, share in shares.items())
    return Check(
        "gradients",
        holds,
        most,
        f"Images whose input gradient is none, zero or not finite in single precision: {told}"
        f"{_but(holds, 'an attack on that loss stands still there')}.",
    )


def judge_gain(further: str, fooled: np.ndarray, more: np.ndarray) -> Check:
    """A stronger attack must not fool more than one point of images that withstood.

    Args:
        further: what it has more of: "more steps", "more restarts", "other losses".
        fooled: whether the white-box attacks fool each image, bool [n].
        more: whether the stronger attack does.
    """
    told = f"With {further} the white-box attack fools another"
    why = "it had not converged, and more of the same might fool more still"
    return _judge_fresh(further, fooled, more, told, why)


def judge_escalation(steps: int, fooled: np.ndarray, more: np.ndarray) -> Check:
    """The last of ever longer attacks must not fool more than one point of images that withstood.

    Args:
        steps: of its ascents.
        fooled: whether any white-box attack before fools each image, bool [n].
        more: whether the last one does.
    """
    told = (
        "As more fooled more, the white box was given more and more steps: the last time, with "
        f"{steps}, it fools another"
    )
    why = "it has not converged yet, and what is left is too high still"
    return _judge_fresh("escalation", fooled, more, told, why)


def _judge_fresh(name: str, fooled: np.ndarray, more: np.ndarray, told: str, why: str) -> Check:
    """That `more` fools at most one point of the images which `fooled` does not."""
    fresh = more & ~fooled
    holds = _within_tolerance(int(fresh.sum()), len(fresh))
    sentence = f"{told} {_percent(fresh.mean())} of the images{_but(holds, why)}."
    return Check(name, holds, float(fresh.mean()), sentence)


def judge_repetition(name: str, changed: np.ndarray) -> Check:
    """The same image must give the same outputs.

    Args:
        name: "repeated", of outputs asked for again, or "other batches", of images in other company.
        changed: whether each image's outputs differ by more than rounding, bool [n].
    """
    asked = {"repeated": "asked for again", "other batches": "asked for among other images"}[name]
    holds = not changed.any()
    why = "attacks must average over what is random" if name == "repeated" else "no accuracy is its own"
    return Check(
        name,
        holds,
        float(changed.mean()),
        f"Outputs {asked} differ for {_percent(changed.mean())} of the images{_but(holds, why)}.",
    )


def _gain(before: np.ndarray, after: np.ndarray) -> tuple[float, bool]:
    """By how much more of the images the second fools, and whether that is at most one point."""
    gain = int(after.sum()) - int(before.sum())
    return gain / len(before), _within_tolerance(gain, len(before))


def _within_tolerance(images: int, of: int) -> bool:
    # 0.01 is no binary fraction.
    return images <= TOLERANCE * of + 1e-9


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _but(passed: bool, why: str) -> str:
    return "" if passed else f": {why}"
