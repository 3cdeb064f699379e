"""AutoPGD by another library, the Adversarial Robustness Toolbox (ART). Extra `attacks`.

ART climbs. Which image is kept is here: by itself ART ends with its last image, or with its random start, in
place of the best one found, and asks for the same images again and again.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from divtf.attacks.losses import lead
from divtf.attacks.outside import BATCH, checked, load_art, require_whole, seeded
from divtf.attacks.threat import ThreatModel
from divtf.errors import require
from divtf.networks.logits import (
    as_target,
    at_least_float32,
    require_labels,
    require_logits,
    true_class_margin,
)


def auto_pgd(
    target: Any,
    x: np.ndarray,
    y: Any,
    threat: ThreatModel,
    *,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "cross_entropy",
    seed: int = 0,
) -> np.ndarray:
    """AutoPGD: projected gradient ascent with momentum that halves its own step, from a random start.

    Args:
        target: an Ensemble, whose scores are the logarithms of its mean probabilities; a list of members; or
            a callable that gives logits [b, C].
        x: images [n, ...] in the image range.
        y: true classes [n], [n, 1] or one-hot [n, C].
        threat: budget and image range.
        steps: >= 1.
        restarts: >= 1; a later one attacks the images that still stand.
        loss: "cross_entropy", or "dlr" for the difference of logits ratio, which takes 3 classes or more.
        seed: of NumPy's global generator during the call; its state is put back.

    Returns:
        float32 of the shape of x: of all images that were looked at, the one that leads furthest to another
        class. An image that is misclassified from the start is left as it is.

    Raises:
        InputError: if a value does not fit, ART is not installed, or the target's gradients are not finite.

    Source: Croce & Hein (2020), Algorithm 1 and Equation 6. ART halves its steps sooner than Algorithm 1: it
    counts the steps that beat the best loss so far, where the paper counts those that beat the last one.
    """
    x, y = checked(x, y, threat)
    _, classes = require_logits(as_target(target), tf.constant(x[:8]))
    require_labels(y, classes)
    return climb(traced(target, x.shape[1:], loss), x, y, threat, steps=steps, restarts=restarts, seed=seed)


class Answers(NamedTuple):
    """Of images [b, ...]: scores [b, C], leads [b], losses [b] and their gradients [b, ...]."""

    scores: tf.Tensor
    leads: tf.Tensor
    losses: tf.Tensor
    gradients: tf.Tensor


def traced(target: Any, image_shape: Sequence[int], loss: str) -> Callable[..., Answers]:
    """A target and a loss as one graph, from images [b, ...] of that shape and labels [b] to `Answers`.

    One pass forth and back, without gradients of weights. Arguments and errors are those of `auto_pgd`.
    """
    require_loss(loss)
    target = as_target(target)
    classes = target(tf.zeros([1, *image_shape])).shape[-1]
    require(loss != "dlr" or classes >= 3, "3 classes or more for the loss dlr", f"{classes}")
    signature = [tf.TensorSpec([None, *image_shape], tf.float32), tf.TensorSpec([None], tf.int64)]

    @tf.function(input_signature=signature, autograph=not isinstance(target, keras.Model))
    def ask(x, y):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            scores = at_least_float32(target(x))
            losses = _LOSSES[loss](scores, y)
        return Answers(scores, lead(scores, y), losses, tape.gradient(losses, x))

    return ask.get_concrete_function()


def require_loss(loss: Any) -> None:
    """Refuse what names no loss of `auto_pgd`.

    Raises:
        InputError: says which there are.
    """
    known = isinstance(loss, str) and loss in _LOSSES
    require(known, f"loss as one of {sorted(_LOSSES)}", f"loss={loss!r}")


def climb(
    ask: Callable[..., Answers],
    x: np.ndarray,
    y: np.ndarray,
    threat: ThreatModel,
    *,
    steps: int,
    restarts: int,
    seed: int,
) -> np.ndarray:
    """`auto_pgd` of what `traced` gives, for as many calls as there are batches."""
    require_whole("steps", steps, 1)
    require_whole("restarts", restarts, 1)
    load_art("auto_pgd")
    images = x.copy()
    with seeded(seed):
        for first in range(0, len(x), BATCH):
            part = slice(first, first + BATCH)
            images[part] = _climbed(ask, x[part], y[part], threat, steps, restarts)
    return images


class _Best:
    """A model and its loss as ART wants them, which keep the best of all images that ART looks at.

    Args:
        ask: what `traced` gives.
        x, y: the images that are attacked, and their labels.

    Attributes:
        images: those with the largest lead so far, of the shape of x.
        leads: of another class over the true one [b]; positive where an image is misclassified.
        reduction: ART sets it on any loss. This one is never reduced: an image's gradient is its own.
    """

    def __init__(self, ask: Callable, x: np.ndarray, y: np.ndarray):
        self.images, self.leads = x.copy(), np.full(len(x), -np.inf, "float32")
        self.reduction = "none"
        self._ask, self._y = ask, tf.constant(y, tf.int64)
        self._x: Any = None
        self._answers: Any = None

    def model(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """The scores, for ART, which asks for the loss of the same images next."""
        require(not training, "scores of a trained target", training=training)
        if not tf.executing_eagerly():  # ART traces its own prediction, which has no loss.
            return self._ask(x, tf.zeros(tf.shape(x)[:1], tf.int64)).scores
        # ART asks for a loss and then, of the same images, for its gradient.
        if self._x is None or not np.array_equal(x, self._x):
            self._answers = self._ask(x, self._y)
            # The best image so far hides a target that is not followed any more.
            finite = bool(tf.reduce_all(tf.math.is_finite(self._answers.gradients)))
            require(finite, "finite gradients of the target", "NaN or infinity")
            leads = self._answers.leads.numpy()
            better = leads > self.leads
            self.images[better], self.leads[better] = x.numpy()[better], leads[better]
        self._x = x
        return self._answers.scores

    def __call__(self, one_hot: np.ndarray, scores: tf.Tensor) -> tf.Tensor:
        """The losses [b] of the images that ART asked for last, whose gradient in them is the known one."""
        products = self._answers.gradients * (self._x - tf.stop_gradient(self._x))
        return self._answers.losses + tf.reduce_sum(products, axis=range(1, products.shape.rank))


def _climbed(ask: Callable[..., Answers], x, y, threat: ThreatModel, steps: int, restarts: int):
    """AutoPGD's images of one batch."""
    from art.attacks.evasion import AutoProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    first = ask(x, y)
    images, leads = x.copy(), first.leads.numpy()
    # As ART tells it: of two classes that are level the first one is predicted.
    right = first.scores.numpy().argmax(axis=1) == y
    for _ in range(restarts):
        standing = np.flatnonzero(right & (leads <= 0))
        if not len(standing):
            break
        best = _Best(ask, x[standing], y[standing])
        classifier = TensorFlowV2Classifier(
            best.model,
            nb_classes=first.scores.shape[-1],
            input_shape=x.shape[1:],
            loss_object=best,
            clip_values=(threat.clip_min, threat.clip_max),
            preprocessing=None,
        )
        attack = AutoProjectedGradientDescent(
            classifier,
            eps=threat.epsilon,
            eps_step=2 * threat.epsilon,
            max_iter=steps,
            nb_random_init=1,
            batch_size=len(x),
            verbose=False,
        )
        attack.generate(x[standing], y[standing])
        better = best.leads > leads[standing]
        images[standing[better]], leads[standing[better]] = best.images[better], best.leads[better]
    # The sum of an image and its perturbation may round to just outside.
    return np.clip(images, np.float32(threat.clip_min), np.float32(threat.clip_max))


def _difference_of_logits_ratio(scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Equation 6 of Croce & Hein (2020): the lead over what is between the first and the third score."""
    top = tf.math.top_k(scores, 3).values
    return tf.math.divide_no_nan(lead(scores, y), top[:, 0] - top[:, 2])


# Cross-entropy is softplus of the margin: an image's steps, which take its gradient's sign and compare its
# losses, are the same by either, but the margin neither vanishes nor is 0 where a network is sure.
_LOSSES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "cross_entropy": true_class_margin,
    "dlr": _difference_of_logits_ratio,
}
