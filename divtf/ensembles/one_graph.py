"""Members of one architecture, one after the other in one graph: a loop over their stacked weights.

Graphs of their own take some 90 MB for each ResNet-20, and time to make. The loop's is that of one member,
however many there are, and only one of them has its activations in memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.networks.models import made_as
from divtf.runtime import replicas
from divtf.runtime.private_names import layers_of

# Trainable variables, and the others, of one member, or of all of them in stacks.
State = tuple[list[tf.Tensor], list[tf.Tensor]]


def alike(members: Sequence[keras.Model]) -> bool:
    """Whether the graph of the first member is that of all, but for the values of the variables.

    That is known of what `build_member` has made with the same arguments, where the same of it is trained,
    and no layer was altered since.
    """
    if made_as(members[0]) is None or replicas.replicas() > 1 or not members[0].trainable_variables:
        return False
    first = _kind(members[0])
    return all(_kind(member) == first and not member.losses for member in members)


def values(objective: Any, members: Sequence[keras.Model], x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
    """What an objective takes of all members, [N, ...] each; statistics stay as they are."""

    def of_one(trained, others):
        with _Holding(members[0], trained, others):
            return [part[0] for part in objective.taken([members[0]], x, y, training=True).parts()]

    found = _in_turn(of_one, _states(members))
    return [tf.ensure_shape(part, [len(members), *part.shape[1:]]) for part in found]


def gradients(
    objective: Any,
    members: Sequence[keras.Model],
    x: tf.Tensor,
    y: tf.Tensor,
    slopes: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """The gradients of all trainable variables, member by member; statistics move.

    Args:
        objective: what is minimised.
        members: N models that are `alike`.
        x: images [B, ...].
        y: their labels.
        slopes: the derivative of what is minimised with respect to `values`, [N, ...] each.
    """

    def of_one(trained, others, slopes):
        with _Holding(members[0], trained, others) as held, tf.GradientTape() as tape:
            tape.watch(trained)
            parts = objective.taken([members[0]], x, y, training=True).parts()
            led = tf.add_n([tf.reduce_sum(part[0] * by) for part, by in zip(parts, slopes, strict=True)])
        moved = [held.get_current_value(variable) for variable in members[0].non_trainable_variables]
        return tape.gradient(led, trained, unconnected_gradients="zero"), moved

    found, moved = _in_turn(of_one, (*_states(members), list(slopes)))
    for place, member in enumerate(members):
        for variable, value in zip(member.non_trainable_variables, moved, strict=True):
            variable.assign(value[place])
    return [each[place] for place in range(len(members)) for each in found]


class _Holding(keras.StatelessScope):
    """Other values for the variables of a model, while it is asked."""

    def __init__(self, model: keras.Model, trained: Sequence[tf.Tensor], others: Sequence[tf.Tensor]):
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        super().__init__(list(zip(variables, [*trained, *others], strict=True)))


def _in_turn(of_one: Callable[..., Any], stacks: tuple) -> Any:
    """What is found of each member's part of the stacks, stacked."""
    specs = tf.nest.map_structure(lambda stack: tf.TensorSpec(stack.shape[1:], stack.dtype), stacks)
    traced = tf.function(of_one).get_concrete_function(*specs)
    signature = tf.nest.map_structure(
        lambda part: tf.TensorSpec(part.shape, part.dtype), traced.structured_outputs
    )
    return tf.map_fn(
        lambda state: traced(*state), stacks, parallel_iterations=1, fn_output_signature=signature
    )


def _states(members: Sequence[keras.Model]) -> State:
    def stacks(name: str) -> list[tf.Tensor]:
        of_members = [getattr(member, name) for member in members]
        return [
            tf.stack([tf.convert_to_tensor(variable) for variable in variables])
            for variables in zip(*of_members, strict=True)
        ]

    return stacks("trainable_variables"), stacks("non_trainable_variables")


def _kind(member: keras.Model) -> tuple[Any, ...]:
    layers = layers_of(member)
    told = [_of_no_name(layer.get_config()) for layer in layers if not isinstance(layer, keras.Model)]
    return made_as(member), told, [part.trainable for part in (*layers, *member.variables)]


def _of_no_name(config: dict[str, Any]) -> dict[str, Any]:
    """What a layer computes, without its name, and the initialisers, whose seeds differ."""
    return {key: value for key, value in config.items() if key != "name" and "initializer" not in key}
