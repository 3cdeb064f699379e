"""An attack on detection: images that fool an ensemble and whose score stays below the threshold.

A detector that was only tried on images made without knowledge of it was not tried (Carlini & Wagner 2017,
"Adversarial examples are not easily detected").
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.attacks import losses
from divtf.attacks.threat import ThreatModel
from divtf.data.images import as_images, blocks, value_range
from divtf.errors import require
from divtf.evaluation.guarded import Guarded
from divtf.evaluation.predictions import require_fitting
from divtf.evaluation.suspicion import DIFFERENTIABLE, SCORES, log_probabilities
from divtf.networks.logits import as_target, class_indices, log_mean_probability

Step = Callable[..., tuple[tf.Tensor, tf.Tensor]]
# Nats of the lead that a score at the threshold costs; 0 is the attacker who does not know of it.
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)
# Nats of the lead beyond which only the score is left to improve: some images need a narrow one.
CAPS = (1.0, 0.1)


@dataclasses.dataclass(frozen=True)
class Evading:
    """What the attacker climbs: the lead of the best other class, less the weighted score.

    Attributes:
        score: a name of `DIFFERENTIABLE`.
        threshold: the score's unit, above 0: where images begin to be flagged.
        weight: of the score in that unit, in nats.
        cap: the lead, log mean probability of the best other class minus that of the true one, counts up to
            this: beyond it only the score is left to improve.
    """

    score: str
    threshold: float
    weight: float
    cap: float = 1.0

    def __call__(self, member_logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Values [B] to be raised, for the members' logits [N, B, C] and the true classes [B]."""
        suspicion = DIFFERENTIABLE[self.score](member_logits) / self.threshold
        ahead = losses.lead(log_mean_probability(member_logits), y)
        return tf.minimum(ahead, self.cap) - self.weight * suspicion


@dataclasses.dataclass(frozen=True)
class Evasion:
    """The best image that the attacker found for each.

    Attributes:
        images: [n, ...]: of those that fool the target the one with the lowest score; where none does, the
            one whose best other class comes closest.
        fooled: whether it fools, bool [n].
        scores: float64 [n].
        threshold: where images begin to be flagged.
    """

    images: np.ndarray
    fooled: np.ndarray
    scores: np.ndarray
    threshold: float

    @property
    def unseen(self) -> np.ndarray:
        """Whether each fools and is not flagged, bool [n]: the share of these is the attacker's success."""
        return self.fooled & (self.scores <= self.threshold)

    @property
    def flagged_share(self) -> float:
        """Share of the fooling images that are flagged still; NaN if none fools."""
        return 1 - self.unseen.sum() / self.fooled.sum() if self.fooled.any() else float("nan")


def evade(
    target,
    x: Any,
    y: np.ndarray,
    threat: ThreatModel,
    score: str,
    threshold: float,
    *,
    weights: Sequence[float] = WEIGHTS,
    steps: int = 40,
    caps: Sequence[float] = CAPS,
    start: np.ndarray | None = None,
    batch_size: int = 250,
) -> Evasion:
    """Images that fool the target with as low a score as can be found, by an attacker who has all of it.

    Projected ascent of `Evading` along the gradient's sign, once for each weight and cap, from the image
    itself and from another start; steps shrink from a quarter of epsilon as half a cosine. What is kept is
    the best of all. An image that fools and is not flagged is left alone from the next weight on, so that
    detection at more false alarms than the threshold's is not attacked with all means.

    Args:
        target: an Ensemble, or a list of members.
        x: images [n, ...], float32 in the threat model's range.
        y: true classes: indices [n] or [n, 1], or one-hot [n, C].
        threat: budget and image range.
        score: a name of `DIFFERENTIABLE`.
        threshold: the score above which an image is flagged, above 0: `Roc.tpr_at(0.05).threshold`.
        weights: of the score, in units of the threshold.
        steps: of each ascent.
        caps: of the lead; see `Evading`. Without a weight there is none.
        start: other images within the budget, of the shape of x, to begin at too, as those of a stronger
            white-box attack: where gradients are masked, few ascents from the image itself fool.
        batch_size: images at a time.

    Raises:
        InputError: for a score or values that are none, or images or labels that do not fit the target.
    """
    require(score in DIFFERENTIABLE, f"score as one of {list(DIFFERENTIABLE)}", f"score={score!r}")
    require(np.isfinite(threshold) and threshold > 0, "threshold > 0", threshold=threshold)
    require(isinstance(steps, int) and steps >= 1, "steps >= 1", steps=steps)
    require(len(weights) > 0 and min(weights) >= 0, "weights >= 0, at least one", f"{weights}")
    require(len(caps) > 0 and min(caps) > 0, "caps > 0, at least one", f"{caps}")
    x, y, target = as_images(x), class_indices(y), as_target(target)
    require_fitting(target, x, y, threat)
    starts = [x]
    if start is not None:
        require(start.shape == x.shape, f"start of shape {x.shape}", f"{start.shape}")
        change = float(np.abs(start - np.asarray(x)).max())
        require(threat.allows(change), f"start at most {threat.epsilon:g} from x", f"a change of {change:g}")
        threat.require_in_range(*value_range(start))
        starts.append(start)
    step = _step_of(target, score, threshold, threat)
    # Without a score to improve there is nothing beyond a cap, and a higher lead is a surer one.
    ways = [(weight, cap if weight else np.inf) for cap in caps for weight in weights]
    found = []
    sizes = threat.epsilon * (1 + np.cos(np.pi * np.arange(steps + 1) / steps)) / 8
    parts = [blocks(each, batch_size) for each in (x, y, *starts)]
    for images, labels, *begins in zip(*parts, strict=True):
        best = _Best(images, labels, score)
        for (weight, cap), begin in itertools.product(dict.fromkeys(ways), begins):
            # Who is unseen already need not be attacked again: this threshold is what counts.
            left = np.flatnonzero(~((best.leads > 0) & (best.scores <= threshold)))
            if len(left):
                _ascend(step, best, images, begin, left, (weight, cap), sizes)
        found.append(best)
    return Evasion(
        images=np.concatenate([best.images for best in found]),
        fooled=np.concatenate([best.leads > 0 for best in found]),
        scores=np.concatenate([best.scores for best in found]),
        threshold=threshold,
    )


def _step_of(target: Any, score: str, threshold: float, threat: ThreatModel) -> Step:
    """A graph from images under way, clean ones, labels, weight, cap and size to moved images, and logits."""
    guarded = Guarded(target)

    @tf.function(reduce_retracing=True, autograph=False)
    def step(x_adv, x, y, weight, cap, size):
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            logits = tf.cast(guarded.member_logits(x_adv), tf.float32)
            value = Evading(score, threshold, weight, cap)(logits, y)
        moved = x_adv + size * tf.sign(tape.gradient(value, x_adv))
        moved = tf.clip_by_value(moved, x - threat.epsilon, x + threat.epsilon)
        return tf.clip_by_value(moved, threat.clip_min, threat.clip_max), logits

    return step


def _ascend(
    step: Step,
    best: "_Best",
    x: np.ndarray,
    begin: np.ndarray,
    numbers: np.ndarray,
    way: tuple[float, float],
    sizes: np.ndarray,
) -> None:
    """One ascent of the images of these numbers; `best` is offered those where it begins and each step's.

    Its way is the weight of the score, and the lead's cap.
    """
    clean, y, x_adv = tf.constant(x[numbers]), tf.constant(best.y[numbers]), tf.constant(begin[numbers])
    for size in sizes:
        moved, logits = step(x_adv, clean, y, *tf.constant([*way, size], tf.float32))
        best.offer(numbers, x_adv.numpy(), logits.numpy())
        x_adv = moved


class _Best:
    """The best image so far of each of a batch."""

    def __init__(self, x: np.ndarray, y: np.ndarray, score: str):
        self.y, self.images = y, x.copy()
        self.leads = np.full(len(x), -np.inf)
        self.scores = np.full(len(x), np.inf)
        self._score = SCORES[score]

    def offer(self, numbers: np.ndarray, images: np.ndarray, logits: np.ndarray) -> None:
        """Take those images [b, ...] of these numbers [b] that are better, by their logits [N, b, C]."""
        leads, scores = lead(logits, self.y[numbers]), self._score(logits)
        had, had_score = self.leads[numbers], self.scores[numbers]
        is_better = np.where(leads > 0, (had <= 0) | (scores < had_score), (had <= 0) & (leads > had))
        taken = numbers[is_better]
        self.images[taken] = images[is_better]
        self.leads[taken], self.scores[taken] = leads[is_better], scores[is_better]


def lead(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log mean probability of the best other class minus that of the true one, [N, B, C], [B] -> [B]."""
    _, mean = log_probabilities(logits)
    is_true = np.arange(mean.shape[-1]) == y[:, None]
    return np.where(is_true, -np.inf, mean).max(axis=-1) - mean[is_true]
