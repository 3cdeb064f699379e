"""Logits, where they come from and what is read off them: margins, and whether they are logits at all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.errors import InputError, first_line, require
from divtf.runtime.private_names import layers_of

# Below a margin of about -87 the float32 loss gradient, sigmoid(margin) * d(margin), underflows to
# zero although its direction is known. Differentiating loss + DIRECTION_FLOOR * margin keeps that
# direction; against any gradient that has not vanished the addition is below float32's resolution.
DIRECTION_FLOOR = 1e-20


class MemberList:
    """Members without an Ensemble around them, attacked and evaluated as one target.

    Args:
        members: callables that give logits [B, C].
    """

    def __init__(self, members: Sequence[Callable[..., tf.Tensor]]):
        self.members = list(members)

    def member_logits(self, x: tf.Tensor) -> tf.Tensor:
        """Logits of every member, [N, B, C]."""
        return tf.stack([at_least_float32(tf.convert_to_tensor(member(x))) for member in self.members])

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Log of the mean member probability, [B, C]."""
        return log_mean_probability(self.member_logits(x))


def as_target(target: Any) -> Any:
    """What is attacked or evaluated, as a callable: a sequence of members becomes a `MemberList`.

    Args:
        target: an Ensemble; a callable that gives logits [B, C], as a Keras model; a sequence of such
            members; or what holds one of these as its `ensemble`, as `load_run` gives it.

    Raises:
        InputError: for anything else.
    """
    target = getattr(target, "ensemble", target)
    if isinstance(target, list | tuple):
        require(len(target) > 0 and all(map(callable, target)), _EXPECTED_TARGET, f"{target!r:.80}")
        return MemberList(target)
    usable = callable(target) or hasattr(target, "members")
    require(usable and not isinstance(target, type), _EXPECTED_TARGET, f"{target!r:.80}")
    return target


_EXPECTED_TARGET = "an Ensemble, a list of members, or a callable that gives logits [B, C]"


def require_logits(target: Any, x: tf.Tensor, *, differentiable: bool = True) -> tuple[int, int]:
    """How many members a target has, and how many classes it tells apart, from a few images x [B, ...].

    Args:
        target: as `as_target` gives it.
        x: images.
        differentiable: whether TensorFlow has to be able to differentiate it.

    Raises:
        InputError: if it, or one of a list of members, does not take the images or give them logits; an
            Ensemble has held its members to them before.
    """
    if not isinstance(target, MemberList) and hasattr(target, "member_logits"):
        logits = _tried(target.member_logits, x)
        return logits.shape[0], logits.shape[2]
    members = target.members if isinstance(target, MemberList) else [target]
    classes = {_classes_of(member, x, differentiable) for member in members}
    require(len(classes) == 1, "members of one number of classes", f"{sorted(classes)}")
    return len(members), classes.pop()


def narrow_layers(model: Any) -> list[str]:
    """The layers of a Keras model, by name, that compute in float16, in which input gradients underflow."""
    layers = layers_of(model) if isinstance(model, keras.Model) else []
    return [layer.name for layer in layers if layer.compute_dtype == "float16"]


def _classes_of(member: Callable[..., Any], x: tf.Tensor, differentiable: bool) -> int:
    narrow = narrow_layers(member) if differentiable else []
    expected = "a target in float32, float64 or bfloat16 to differentiate: gradients underflow in float16"
    require(not narrow, expected, f"layers in float16: {', '.join(narrow[:3])}")
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = _tried(member, x)
    several = logits.shape.rank == 2 and logits.shape[1] != 1
    expected = "a target that gives logits [B, C] of two classes or more"
    require(several, expected, f"outputs of shape {logits.shape}")
    require(
        not differentiable or tape.gradient(logits, x) is not None,
        "a target that TensorFlow can differentiate",
        "one that it cannot",
    )
    require(
        not are_probabilities(logits.numpy()),
        "a target that gives logits",
        "one that gives probabilities, whose gradients mislead attacks (remove its softmax)",
    )
    return logits.shape[1]


def _tried(function: Callable[..., Any], x: tf.Tensor) -> tf.Tensor:
    try:
        found = function(x)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"Expected a target that takes images {[None, *x.shape[1:]]}. Received: one that says: "
            f"{first_line(error):.200}"
        ) from error
    require_one_tensor(found)
    return tf.convert_to_tensor(found)


def require_one_tensor(outputs: Any) -> None:
    """Refuse what a target of several outputs gives.

    Raises:
        InputError: says what it gives.
    """
    several = isinstance(outputs, Mapping | list | tuple)
    given = f"one that gives a {type(outputs).__name__}"
    require(not several, "a target that gives one tensor of logits [B, C]", given)


def member_logits(target: Any, x: tf.Tensor) -> tf.Tensor:
    """Logits of every member of a target, [N, B, C], for images [B, ...].

    Args:
        target: has `member_logits(x)`, as an Ensemble; or is a callable that gives logits [B, C], and then
            counts as its own and only member.
        x: images, [B, ...].
    """
    if hasattr(target, "member_logits"):
        return target.member_logits(x)
    return at_least_float32(tf.convert_to_tensor(target(x)))[None]


def each_logits(target: Any, count: int) -> list[Callable[[tf.Tensor], tf.Tensor]]:
    """A function for each member of a target, from images [B, ...] to its logits as one member's, [1, B, C].

    Args:
        target: as in `member_logits`; where it has no `members`, one member's logits cost as much as all.
        count: number of its members.
    """
    if hasattr(target, "members"):
        return [_of_one(member) for member in target.members]
    return [_taken(target, number) for number in range(count)]


def _of_one(member: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda x: at_least_float32(tf.convert_to_tensor(member(x)))[None]


def _taken(target: Any, number: int) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda x: member_logits(target, x)[number : number + 1]


def log_mean_probability(member_logits: tf.Tensor) -> tf.Tensor:
    """[N, B, C] -> [B, C], exact where probabilities underflow."""
    count = tf.cast(tf.shape(member_logits)[0], member_logits.dtype)
    return tf.reduce_logsumexp(tf.nn.log_softmax(member_logits), axis=0) - tf.math.log(count)


def class_indices(y: Any) -> np.ndarray:
    """True classes as indices, integer [n], from indices [n] or [n, 1], or one-hot labels [n, C].

    Raises:
        InputError: for anything else.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1 and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        return y.argmax(axis=1)
    whole = y.dtype.kind in "iu" or (y.dtype.kind == "f" and bool((y == np.rint(y)).all()))
    fits = whole and (y.ndim == 1 or y.shape[1:] == (1,))
    require(fits, "integer labels [n], or one-hot ones [n, C]", f"{y.dtype} of shape {y.shape}")
    return y.reshape(-1).astype("int64")


def require_one_label_each(x: Any, y: np.ndarray) -> None:
    """Refuse class indices [n] that are not as many as the images, or none at all.

    Raises:
        InputError: says how many there are.
    """
    require(len(x) == len(y) > 0, "as many images as labels, at least one", f"{len(x)} and {len(y)}")


def require_labels(y: np.ndarray, classes: int | None) -> None:
    """Refuse class indices [n >= 1] of classes that a target lacks; None where it does not tell them.

    Raises:
        InputError: says which there are.
    """
    low, high = int(y.min()), int(y.max())
    inside = low >= 0 and (classes is None or high < classes)
    require(inside, f"labels in [0, {classes or 'classes'})", f"labels from {low} to {high}")


def at_least_float32(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor, cast to float32 where it is narrower: losses and cosines need the precision."""
    return tf.cast(tensor, tf.float32) if tensor.dtype.size < 4 else tensor


def true_class_margin(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """log-sum-exp of the other classes' logits minus the true class's logit, [..., C], [...] -> [...].

    The cross-entropy is softplus of this margin. Written so, its input gradient does not cancel:
    softmax(z) - onehot(y) rounds to zero at the true class once p_y > 1 - 6e-8 in float32.
    """
    one_hot = tf.one_hot(y, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    true_logit = tf.reduce_sum(tf.where(one_hot, logits, tf.zeros_like(logits)), axis=-1)
    lowest = tf.fill(tf.shape(logits), tf.constant(float("-inf"), logits.dtype))
    return tf.reduce_logsumexp(tf.where(one_hot, lowest, logits), axis=-1) - true_logit


def cross_entropy(
    logits: tf.Tensor, y: tf.Tensor, label_smoothing: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross-entropies with labels, and margins to the labels' likeliest class, [N, B] each.

    Args:
        logits: [N, B, C].
        y: class indices, integer [B], or the classes' probabilities, floating [B, C].
        label_smoothing: share of each label that is spread over all classes; Szegedy et al. (2016), section
            7.

    A label q has -sum_c q_c log p_c = softplus(m) sum_c q_c + sum_c q_c (z_top - z_c), where top is its
    likeliest class and m the margin to it. One-hot labels leave the first term, which does not cancel.
    """
    if label_smoothing:
        y = tf.one_hot(y, logits.shape[-1], dtype=logits.dtype) if y.shape.rank == 1 else y
        y = y * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    if y.shape.rank == 1:
        margins = true_class_margin(logits, tf.broadcast_to(y, tf.shape(logits)[:-1]))
        return tf.nn.softplus(margins), margins
    likeliest = tf.argmax(y, axis=-1)
    margins = true_class_margin(logits, tf.broadcast_to(likeliest, tf.shape(logits)[:-1]))
    is_likeliest = tf.one_hot(likeliest, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    y = tf.cast(y, logits.dtype)
    rest = tf.where(is_likeliest, tf.zeros_like(y), y)
    top = tf.reduce_sum(tf.where(is_likeliest, logits, tf.zeros_like(logits)), axis=-1, keepdims=True)
    others = tf.reduce_sum(rest * (top - logits), axis=-1)
    return tf.reduce_sum(y, axis=-1) * tf.nn.softplus(margins) + others, margins


def aligned_loss(margins: tf.Tensor, axis: int) -> tf.Tensor:
    """Of margins of the members, along an axis: what has the direction of the mean cross-entropy's gradient.

    Member n's cross-entropy is softplus(m_n), its gradient sigmoid(m_n) grad m_n. Weights
    sigmoid(m_n) / sum_n sigmoid(m_n), held constant, change the gradient of the mean by one positive factor
    an example; nothing cancels or underflows where the loss is 0 in float32, however sure the members are.
    """
    weights = tf.nn.softmax(tf.math.log_sigmoid(margins), axis=axis)
    return tf.stop_gradient(weights) * margins


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs [B, C] are probabilities, which losses and attacks would take for logits."""
    outputs = outputs.astype("float64")
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))
