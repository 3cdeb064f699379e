"""What a training step minimises, and its gradient: of all members at a time, or one after the other.

Both give the same numbers, to rounding. Together keeps the activations of all members until the gradient is
taken. One by one asks each member twice: first for what the objective takes of it, logits, losses and input
gradients, without its activations; from these follow the loss and its derivative with respect to them. Then
again, and the derivative is led on to the member's own weights, the others' values being held.
Members that are alike share one graph; see `one_graph`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.ensembles import one_graph
from divtf.ensembles.objectives.objective import MemberValues, kept_state, restore
from divtf.ensembles.objectives.terms import Terms
from divtf.ensembles.weights import Weights
from divtf.errors import require
from divtf.runtime import replicas

Taken = tuple[Terms, tf.Tensor, list[tf.Tensor]]
"""The objective's terms, the members' penalties, and the gradients of both, of `variables_of` the members.

Penalties are those of the passes that gradients are of: what layers add to the loss by their activations is
another pass's, or another replica's, by and by. Gradients of variables on which nothing depends are 0.
"""


def together(
    objective: Callable[..., Terms],
    members: Sequence[keras.Model],
    scale: Callable[[tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    y: tf.Tensor,
    weights: Weights,
) -> Taken:
    """Terms and gradients from one outer tape over all members.

    Args:
        objective: what is minimised, beside the members' own penalties.
        members: N models that share no weights.
        scale: of the loss, against underflow.
        x: this replica's images [B, ...].
        y: their labels, as objectives take them.
        weights: of the examples.
    """
    with tf.GradientTape() as tape:
        terms = terms_of(objective, members, x, y, weights, training=True)
        added = penalty(members, len(members), terms.loss.dtype)
        total = scale(_share(terms.loss, added))
    return terms, added, _gradients(tape, total, variables_of(members))


def one_by_one(
    objective: Any,
    members: Sequence[keras.Model],
    scale: Callable[[tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    y: tf.Tensor,
    weights: Weights,
) -> Taken:
    """The same one member after the other, for an objective that is `Memberwise`; arguments as above."""
    labels = y
    x, y = replicas.with_a_blank(x, y)
    alike = one_graph.alike(members)
    parts, last = (
        (one_graph.values(objective, members, x, y), [])
        if alike
        else _values_of_all(objective, members, x, y)
    )
    with tf.GradientTape() as tape:
        tape.watch(parts)
        terms = _of_images(objective.combined(MemberValues(*parts), y), labels).weighted(weights)
        total = scale(_share(terms.loss, tf.zeros([], terms.loss.dtype)))
    slopes = tape.gradient(total, parts, unconnected_gradients="zero")
    gradients: list[tf.Tensor] = []
    penalties = tf.zeros([], terms.loss.dtype)
    if alike:  # Such members have no penalties.
        return terms, penalties, one_graph.gradients(objective, members, x, y, slopes)
    for place, member in enumerate(members):
        of_member = [_after(last, slope[place]) for slope in slopes]
        with tf.GradientTape() as tape:
            found = objective.taken([member], _after(last, x), y, training=True).parts()
            led = [tf.reduce_sum(part * slope) for part, slope in zip(found, of_member, strict=True)]
            added = penalty([member], len(members), terms.loss.dtype)
            total = tf.add_n(led) + scale(_share(tf.zeros_like(terms.loss), added))
        taken = _gradients(tape, total, member.trainable_variables)
        penalties += added
        gradients += taken
        # Its activations are kept until its gradients are there.
        last = taken or led
    return terms, penalties, gradients


def terms_of(
    objective: Callable[..., Terms],
    members: Sequence[keras.Model],
    x: tf.Tensor,
    y: tf.Tensor,
    weights: Weights,
    *,
    training: bool,
) -> Terms:
    """The objective's terms on this replica's images, each example with its weight; arguments as above.

    Raises:
        InputError: if an objective of one's own gives something else.
    """
    found = objective(members, *replicas.with_a_blank(x, y), training=training)
    given = f"{type(objective).__name__}, which gives {type(found).__name__}"
    require(isinstance(found, Terms), "an objective that gives Terms", given)
    asked = found.logits.shape[0]
    expected = f"an objective that gives the logits of {len(members)} members"
    require(asked in (None, len(members)), expected, f"{type(objective).__name__}, of {asked}")
    return _of_images(found, y).weighted(weights)


def _of_images(terms: Terms, y: tf.Tensor) -> Terms:
    """The terms of images with these labels, without that of a blank one."""
    return terms if replicas.replicas() == 1 else terms.first(tf.shape(y)[0])


def by_xla(take: Callable[..., Taken]) -> Callable[..., Taken]:
    """The same, compiled by XLA, which makes no checks."""

    def taken(*arguments: Any) -> Taken:
        @tf.function(jit_compile=True)
        def parts():
            terms, penalties, gradients = take(*arguments)
            return {"logits": terms.logits, **terms.means()}, penalties, gradients

        found, penalties, gradients = parts()
        return Terms(**found), penalties, gradients

    return taken


def variables_of(members: Sequence[keras.Model]) -> list[keras.Variable]:
    """The members' trainable variables, in the order of their gradients."""
    return [variable for member in members for variable in member.trainable_variables]


def _gradients(
    tape: tf.GradientTape, total: tf.Tensor, variables: Sequence[keras.Variable]
) -> list[tf.Tensor]:
    """Gradients of a total; 0 of variables on which it does not depend."""
    # Of Keras's variables themselves TensorFlow cannot make zeros.
    return tape.gradient(total, [each.value for each in variables], unconnected_gradients="zero")


def penalty(members: Sequence[keras.Model], count: int, dtype: tf.DType) -> tf.Tensor:
    """What regularisers of some of so many members add to the loss, in the mean over all of them, []."""
    penalties = [tf.cast(each, dtype) for member in members for each in member.losses]
    return tf.add_n(penalties) / count if penalties else tf.zeros([], dtype)


def _share(losses: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """This replica's part of the global batch's mean loss; Keras sums gradients over replicas."""
    # The last batch may be split unevenly, so a mean of replica means would be off.
    examples = tf.cast(tf.size(losses), losses.dtype)
    (total,) = replicas.sums([examples])
    return tf.reduce_sum(losses) / total + added * (examples / total)


def _values_of_all(
    objective: Any, members: Sequence[keras.Model], x: tf.Tensor, y: tf.Tensor
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """What the objective takes of all members, [N, ...] each, and of the last one alone."""
    values: list[list[tf.Tensor]] = []
    last: list[tf.Tensor] = []
    for member in members:
        before = kept_state([member])
        values.append(objective.taken([member], _after(last, x), y, training=True).parts())
        restore([member], before)
        last = values[-1]
    return [tf.concat(each, axis=0) for each in zip(*values, strict=True)], last


def _after(before: Sequence[tf.Tensor], tensor: tf.Tensor) -> tf.Tensor:
    """The tensor, once others are there: else all members might run at a time."""
    with tf.control_dependencies(before):
        return tf.identity(tensor)
