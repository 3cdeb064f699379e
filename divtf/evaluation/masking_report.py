"""The checks of `masking`, measured on a target with few gradients."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.attacks.attack import Attack, make_attack, pool_numbers
from divtf.attacks.threat import ThreatModel
from divtf.data.images import as_images, blocks
from divtf.errors import require
from divtf.evaluation import masking
from divtf.evaluation.guarded import Guarded
from divtf.evaluation.masking import Check
from divtf.evaluation.predictions import all_member_logits, require_fitting
from divtf.evaluation.stored import as_stored
from divtf.evaluation.trials import result_of
from divtf.networks.logits import (
    are_probabilities,
    as_target,
    class_indices,
    log_mean_probability,
    member_logits,
)
from divtf.storage.evaluations import WHITE_BOX, TrialResult
from divtf.storage.records import packed

# Outputs may differ by rounding, and low precision rounds coarsely: by so much of what a member's likeliest
# class is ahead of its middle one.
_ROUNDING = 0.01
# Length of an ascent in epsilons; the ball is 2 across. Steps that shrink to nothing go half as far.
_PATH = 2.5
# As many images are asked for again among others.
_AGAIN = 64


@dataclasses.dataclass(frozen=True)
class Effort:
    """How hard the white box is tried.

    Attributes:
        steps: of each ascent.
        times: so many times the steps, and so many restarts, must not gain.
        losses: of the white box, each on the images that withstood those before it.
        others: losses that must not gain.
    """

    steps: int = 20
    times: int = 4
    losses: tuple[str, ...] = ("mean_probability", "margin")
    others: tuple[str, ...] = ("cross_entropy", "mean_logit")

    def usual(self, threat: ThreatModel) -> list[Attack]:
        """The white box, an ascent of each loss."""
        return [make_attack("pgd", threat, loss=loss, **self._ascent) for loss in self.losses]

    def further(self, threat: ThreatModel) -> dict[str, list[Attack]]:
        """Ascents that go further, by their check."""
        restarted = {**self._ascent, "restarts": self.times}
        return {
            "more steps": self.longer(1, threat)[:1],
            "more restarts": [make_attack("pgd", threat, loss=self.losses[0], **restarted)],
            "other losses": [make_attack("pgd", threat, loss=loss, **self._ascent) for loss in self.others],
        }

    def longer(self, times: int, threat: ThreatModel) -> list[Attack]:
        """The white box with so many times the steps of "more steps"."""
        steps = times * self.steps * self.times
        longer = {"steps": steps, "step": min(1.0, 4 * _PATH / steps)}
        return [make_attack("pgd", threat, loss=loss, **longer) for loss in self.losses]

    @property
    def _ascent(self) -> dict[str, Any]:
        """Parameters of one ascent: its steps lead across the ball, from wherever they start."""
        return {"steps": self.steps, "step": min(1.0, 2 * _PATH / self.steps)}


@dataclasses.dataclass(frozen=True)
class MaskingReport:
    """What was found of a target.

    Attributes:
        checks: "gradients", "repeated", "other batches", "single step", "black box" where there is one,
            "unbounded", "more steps", "more restarts" and "other losses", in this order.
        trials: what each ascent of the last three did to each image that was not fooled before it.
    """

    checks: list[Check]
    trials: list[TrialResult]


def masking_report(
    target,
    x: Any,
    y: np.ndarray,
    threat: ThreatModel,
    *,
    white: np.ndarray | None = None,
    black: Mapping[str, np.ndarray] | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    batch_size: int = 250,
    stored_as: str = "float32",
) -> MaskingReport:
    """Whether what white-box attacks say of a target can be believed.

    Stronger attacks get only the images that withstood the weaker ones. A target that TensorFlow cannot
    differentiate raises no error: its gradients count as zero, and checks fail.

    Args:
        target: an Ensemble, a list of members, or a callable that gives logits [B, C].
        x: images [n, ...], float32 in the threat model's range; 200 will do.
        y: true classes: indices [n] or [n, 1], or one-hot [n, C].
        threat: budget and image range.
        white: whether the iterated white-box attacks of the evaluation fool each image, bool [n]; None
            measures that.
        black: by name whether a black-box attack does; None leaves its check out.
        effort: how hard the white box is tried.
        seed: of the random starts.
        batch_size: images at a time.
        stored_as: what the target sees of attacked images, as `evaluation.stored` has it.

    Raises:
        InputError: if arrays do not fit together, or the target gives probabilities or no numbers.
    """
    effort, target = effort or Effort(), as_target(target)
    x, y = as_images(x), class_indices(y)
    require_fitting(target, x, y, threat)
    for name, outcome in {**({} if white is None else {"white": white}), **(black or {})}.items():
        fits = outcome.dtype == bool and outcome.shape == y.shape
        require(fits, f"whether {name} fools each of the {len(y)} images, bool", f"{outcome!r:.80}")
    changed = {"repeated": unrepeated(target, x, batch_size), "other batches": batch_bound(target, x)}
    attacker = _Attacker(target, np.asarray(x), y, batch_size, seed, stored_as)
    if white is None:
        white = attacker.fooled_by(effort.usual(threat), attacker.wrong)
    white = white | attacker.wrong
    black = {name: fooled | attacker.wrong for name, fooled in (black or {}).items()}
    single = attacker.fooled(make_attack("fgsm", threat, loss=effort.losses[0]), attacker.wrong)
    whole_range = dataclasses.replace(threat, epsilon=threat.clip_max - threat.clip_min)
    unbounded = attacker.fooled_by(effort.usual(whole_range), attacker.wrong)
    more, trials = {}, []
    for name, attacks in effort.further(threat).items():
        more[name] = white
        for attack in attacks:
            before, more[name] = more[name], attacker.fooled(attack, more[name])
            trials.append(result_of(attack, packed(~before), packed(~more[name]), kind=WHITE_BOX))
    # Whatever of this fooled an image, it had the gradients.
    by_gradients = np.any([white, *more.values()], axis=0)
    checks = [
        masking.judge_gradients(lacking_gradients(target, x, y, batch_size)),
        *(masking.judge_repetition(name, images) for name, images in changed.items()),
        masking.judge_single_step(single, white),
        *([masking.judge_black_box(by_gradients, black)] if black else []),
        masking.judge_unbounded(unbounded),
        *(masking.judge_gain(name, white, fooled) for name, fooled in more.items()),
    ]
    return MaskingReport(checks, trials)


def escalated(
    target,
    x: Any,
    y: np.ndarray,
    threat: ThreatModel,
    fooled: np.ndarray,
    *,
    effort: Effort | None = None,
    rounds: int = 2,
    seed: int = 1000,
    batch_size: int = 250,
    stored_as: str = "float32",
) -> MaskingReport:
    """The white box on what still stands, with twice the steps each round, until one gains at most a point.

    For a target of which `masking_report` found that more fools more, whose arguments it has.

    Args:
        target: an Ensemble, a list of members, or a callable that gives logits [B, C].
        x: images [n, ...].
        y: true classes.
        threat: budget and image range.
        fooled: whether any white-box attack so far fools each image, bool [n].
        effort: of the report.
        rounds: at most.
        seed: of random starts, which are to be others than those before.
        batch_size: images at a time.
        stored_as: what the target sees of attacked images.

    Returns:
        The check "escalation", and what each ascent did to each image that was not fooled before it.
    """
    effort, target = effort or Effort(), as_target(target)
    x, y = as_images(x), class_indices(y)
    attacker = _Attacker(target, np.asarray(x), y, batch_size, seed, stored_as)
    trials: list[TrialResult] = []
    for number in range(1, rounds + 1):
        at_first = fooled
        for attack in effort.longer(2**number, threat):
            before, fooled = fooled, attacker.fooled(attack, fooled)
            trials.append(result_of(attack, packed(~before), packed(~fooled), kind=WHITE_BOX))
        check = masking.judge_escalation(2**number * effort.times * effort.steps, at_first, fooled)
        if check.passed:
            break
    return MaskingReport([check], trials)


class _Attacker:
    """White-box attacks on those images that withstood so far; a wrongly classified one is fooled already."""

    def __init__(self, target: Any, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int, stored_as: str):
        self._target, self._guarded = target, Guarded(target)
        self._x, self._y, self._batch_size, self._seed = x, y, batch_size, seed
        self._stored_as, self._mixed_in = stored_as, pool_numbers(len(x))
        self.wrong = self._predicted(x) != y

    def fooled(self, attack: Attack, before: np.ndarray) -> np.ndarray:
        """Which images are fooled once the attack was tried on those that were not before, bool [n]."""
        fooled, left, threat = before.copy(), np.flatnonzero(~before), attack.threat
        # Each has random starts of its own.
        self._seed += 1
        parts = list(blocks(left, self._batch_size))
        batches = ((self._x[part], self._y[part], part) for part in parts)
        pool = self._x[self._mixed_in], self._y[self._mixed_in]
        made = attack.on_batches(self._guarded, batches, pool=pool, seed=self._seed)
        for part, x_adv in zip(parts, made, strict=True):
            seen = as_stored(x_adv.numpy(), self._stored_as, threat.clip_min, threat.clip_max)
            fooled[part] = self._predicted(seen[:]) != self._y[part]
        return fooled

    def fooled_by(self, attacks: Sequence[Attack], before: np.ndarray) -> np.ndarray:
        """The same after one attack after the other."""
        for attack in attacks:
            before = self.fooled(attack, before)
        return before

    def _predicted(self, x: np.ndarray) -> np.ndarray:
        logits = all_member_logits(self._target, x, self._batch_size)
        lost = int(np.isnan(logits).any(axis=(0, 2)).sum())
        require(lost == 0, "a target whose outputs are numbers", f"NaN for {lost} of {len(x)} images")
        given = any(are_probabilities(member) for member in logits)
        require(not given, "a target that gives logits", "one that gives probabilities (remove its softmax)")
        return _decided(logits)


def lacking_gradients(target: Any, x: Any, y: np.ndarray, batch_size: int = 250) -> dict[str, np.ndarray]:
    """By loss, whether its gradient at each image is none, zero or not finite in single precision, bool [n].

    The losses are written as an attack on outputs writes them, not as attacks here do, whose direction
    outlives a loss that is zero.
    """
    target = as_target(target)
    found: dict[str, list[np.ndarray]] = {name: [] for name in _LOSSES}
    for images, labels in zip(blocks(as_images(x), batch_size), blocks(y, batch_size), strict=True):
        for name, loss in _LOSSES.items():
            with tf.GradientTape() as tape:
                tape.watch(images := tf.constant(images))
                value = loss(member_logits(target, images), tf.constant(labels))
            gradient = tape.gradient(value, images)
            found[name].append(_is_lacking(gradient, len(labels)))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _is_lacking(gradient: tf.Tensor | None, count: int) -> np.ndarray:
    if gradient is None:
        return np.ones(count, bool)
    flat = tf.reshape(gradient, [count, -1]).numpy()
    return ~np.isfinite(flat).all(axis=1) | (flat == 0).all(axis=1)


def _mean_loss(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    labels = tf.broadcast_to(y, tf.shape(logits)[:-1])
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), axis=0)


def _mean_probability(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(tf.nn.softmax(logits), axis=0)
    return tf.gather(mean, y, axis=1, batch_dims=1)


_LOSSES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "members' mean loss": _mean_loss,
    "mean probability": _mean_probability,
}


def unrepeated(target: Any, x: Any, batch_size: int = 250) -> np.ndarray:
    """Whether each image's outputs differ when they are asked for a second time, bool [n]."""
    return _differ(*(all_member_logits(target, x, batch_size) for _ in range(2)))


def batch_bound(target: Any, x: Any) -> np.ndarray:
    """Whether the outputs of each of the first 64 images depend on the company: all, or a few in reverse."""
    first = np.asarray(as_images(x)[:_AGAIN])
    few = all_member_logits(target, first[::-1], batch_size=7)
    return _differ(all_member_logits(target, first, batch_size=_AGAIN), few[:, ::-1])


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether outputs [N, n, C] differ by more than rounding, for any member, or in what is decided."""
    # From the median: one class that is masked by a huge negative logit is no measure of the others.
    spread = one.max(axis=-1, keepdims=True) - np.median(one, axis=-1, keepdims=True)
    # What is not a number differs. A class that no image gets may be off by as much as its logit's rounding.
    alike = (np.abs(one - other) <= _ROUNDING * spread + 1e-6 * np.abs(one)).all(axis=(0, 2))
    return ~(alike & (_decided(one) == _decided(other)))


def _decided(logits: np.ndarray) -> np.ndarray:
    """The class that members decide for, [N, n, C] -> [n]."""
    return log_mean_probability(tf.constant(logits)).numpy().argmax(axis=-1)
