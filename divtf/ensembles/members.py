"""What an ensemble asks of its members, whoever made them."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.objectives import CrossEntropy, GradientAlignment
from divtf.errors import InputError, require
from divtf.networks import second_order
from divtf.networks.logits import are_probabilities


def check_members(members: Sequence[keras.Model], objective: CrossEntropy | GradientAlignment) -> None:
    """Refuse members that do not fit together, or to the objective.

    Raises:
        InputError: says which, and what was expected.
    """
    require(
        callable(objective) and not isinstance(objective, type),
        "an objective, as GradientAlignment() or CrossEntropy()",
        f"{objective!r}",
    )
    least = 2 if isinstance(objective, GradientAlignment) else 1
    if len(members) < least:
        raise InputError(
            f"Expected at least {least} members for {type(objective).__name__}. Received: {len(members)}"
        )
    for member in members:
        if not isinstance(member, keras.Model) or not hasattr(member, "input_shape"):
            raise InputError(f"Expected members that are Keras functional models. Received: {member!r}")
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        raise InputError(f"Expected members with distinct names. Received: {names}")
    for what in ("input_shape", "output_shape"):
        shapes = [getattr(member, what) for member in members]
        if any(shape != shapes[0] for shape in shapes):
            raise InputError(f"Expected members of one {what.replace('_', ' ')}. Received: {shapes}")
    inputs, outputs = members[0].input_shape, members[0].output_shape
    if not isinstance(inputs, tuple):
        raise InputError(f"Expected members of one input. Received: {inputs}")
    if not isinstance(outputs, tuple) or len(outputs) != 2 or outputs[-1] < 2:
        raise InputError(f"Expected members that give logits [B, C >= 2]. Received: {outputs}")
    for member in members:
        if isinstance(objective, GradientAlignment):
            second_order.require_exact_to_second_order(member)
        if _gives_probabilities(member):
            raise InputError(
                f"Expected members that give logits. Received: member {member.name!r} with probabilities "
                f"(remove its softmax)"
            )


def _gives_probabilities(member: keras.Model) -> bool:
    """Whether the outputs of random images are probabilities, whatever layer makes them so."""
    shape = [4, *(size or 8 for size in member.input_shape[1:])]
    images = np.random.default_rng(0).random(shape, dtype="float32")
    with tf.device("CPU:0"):
        outputs = np.asarray(member(images, training=False))
    sigmoid = getattr(member.layers[-1], "activation", None) is keras.activations.sigmoid
    return sigmoid or are_probabilities(outputs)
