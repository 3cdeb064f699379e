"""The gradient of an objective member by member: a step that holds the activations of one at a time.

The plain step keeps the activations of all members until the gradient is taken. Here each member is asked
twice. First for what the objective takes of it, logits, losses and input gradients, without its activations;
from these follow the loss and its derivative with respect to them. Then each member is asked again, and the
derivative is led on to its own weights, the others' values being held.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from divtf.ensembles.objectives.objective import MemberValues, Memberwise
from divtf.ensembles.objectives.terms import Terms


def terms_and_gradients(
    objective: Memberwise,
    members: Sequence[keras.Model],
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    loss_of: Callable[[Terms], tf.Tensor],
    penalty_of: Callable[[keras.Model], tf.Tensor],
) -> tuple[Terms, dict[int, tf.Tensor]]:
    """The objective's terms, and gradients of a loss by the identity of the trainable variables.

    Args:
        objective: takes what each member gives by itself.
        members: N models that share no weights.
        x: images [B, ...].
        y: labels as `Objective` takes them.
        loss_of: from the terms to what is minimised, [].
        penalty_of: from a member that was just called to what its own regularisers add to that, [].
    """
    values, last = [], x[:0]
    for member in members:
        moving = [tf.identity(variable) for variable in member.non_trainable_variables]
        values.append(objective.taken([member], _after(last, x), y, training=True))
        # Statistics and random numbers are to move once.
        for variable, before in zip(member.non_trainable_variables, moving, strict=True):
            variable.assign(before)
        last = values[-1].parts()[-1]
    parts = [tf.concat(each, axis=0) for each in zip(*(value.parts() for value in values), strict=True)]
    with tf.GradientTape() as tape:
        tape.watch(parts)
        terms = objective.combined(MemberValues(*parts), y)
        loss = loss_of(terms)
    slopes = tape.gradient(loss, parts, unconnected_gradients="zero")
    gradients: dict[int, tf.Tensor] = {}
    for place, member in enumerate(members):
        with tf.GradientTape() as tape:
            found = objective.taken([member], _after(last, x), y, training=True).parts()
            led = [tf.reduce_sum(part * slope[place]) for part, slope in zip(found, slopes, strict=True)]
            total = tf.add_n(led)
            total += tf.cast(penalty_of(member), total.dtype)
        variables = member.trainable_variables
        of_member = tape.gradient(total, variables, unconnected_gradients="zero")
        gradients |= {id(variable): each for variable, each in zip(variables, of_member, strict=True)}
        last = of_member[-1] if of_member else last
    return terms, gradients


def _after(before: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The images, once another tensor is there: else all members might run at a time."""
    with tf.control_dependencies([before]):
        return tf.identity(x)
