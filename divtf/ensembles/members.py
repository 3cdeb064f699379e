"""What an ensemble asks of its members, whoever made them."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.exactness import require_exact
from divtf.ensembles.objectives import CrossEntropy, GradientAlignment
from divtf.errors import InputError, require
from divtf.networks.logits import are_probabilities
from divtf.networks.models import is_built_here
from divtf.runtime.private_names import layers_of

# In place of sizes that members leave open.
_OPEN_SIZE = 32


def listed(members: Any) -> list[keras.Model]:
    """The members as a list.

    Raises:
        InputError: if they are not several Keras models.
    """
    several = not isinstance(members, keras.Model) and hasattr(members, "__iter__")
    require(several, "a sequence of Keras models", f"{members!r:.80}")
    models = list(members)
    for member in models:
        require(isinstance(member, keras.Model), "members that are Keras models", f"{member!r:.80}")
    return models


def check_objective(objective: Any, count: int) -> None:
    """Refuse what is no objective, or asks for more members than there are.

    Raises:
        InputError: says which.
    """
    require(
        callable(objective) and not isinstance(objective, type),
        "an objective, as GradientAlignment() or CrossEntropy()",
        f"{objective!r}",
    )
    least = 2 if isinstance(objective, GradientAlignment) else 1
    require(count >= least, f"at least {least} members for {type(objective).__name__}", f"{count}")


def common_input_shape(members: Sequence[keras.Model]) -> tuple[int | None, ...] | None:
    """The members' input shape, [batch, ...]; None if one of them has not met an input yet.

    Raises:
        InputError: if they take different images, or a member takes several inputs.
    """
    shapes = [_input_shape(member) for member in members]
    for shape in shapes:
        one = shape is None or all(size is None or isinstance(size, int) for size in shape)
        require(one, "members of one input", f"{shape}")
    known = [shape[1:] for shape in shapes if shape is not None]
    require(len(set(known)) <= 1, "members of one input shape", f"{[shape for shape in shapes if shape]}")
    return (None, *known[0]) if len(known) == len(shapes) else None


def check_members(
    members: Sequence[keras.Model],
    input_shape: Sequence[int | None],
    objective: CrossEntropy | GradientAlignment,
) -> None:
    """Refuse members that do not fit together, give no logits, or cannot be trained by the objective rightly.

    Args:
        members: built, or built here.
        input_shape: of their images, [batch, ...].
        objective: of their training.

    Raises:
        InputError: says which, and what was expected.
    """
    outputs = [_outputs(member, input_shape) for member in members]
    shapes = [each.shape[1:] for each in outputs]
    require(len(set(shapes)) == 1, "members of one output shape", f"{shapes}")
    require(
        len(shapes[0]) == 1 and shapes[0][0] >= 2, "members that give logits [B, C >= 2]", f"[B, {shapes[0]}]"
    )
    for member, output in zip(members, outputs, strict=True):
        _check_outputs(member, output)
        _check_precision(member)
    _check_apart(members)
    if isinstance(objective, GradientAlignment):
        require_exact([member for member in members if not is_built_here(member)], input_shape)


def accuracy_names(members: Sequence[keras.Model]) -> list[str]:
    """Names of the members' accuracies; those of members that share a name tell their positions."""
    counts = Counter(member.name for member in members)
    return [
        f"{member.name}_accuracy" if counts[member.name] == 1 else f"{member.name}_{position}_accuracy"
        for position, member in enumerate(members)
    ]


def _input_shape(member: keras.Model) -> Any:
    try:
        shape = member.input_shape
    except AttributeError:  # Of subclassed models Keras knows what they were built for.
        shape = (member.get_build_config() or {}).get("input_shape") if member.built else None
    return None if shape is None else tuple(shape)


def _outputs(member: keras.Model, input_shape: Sequence[int | None]) -> np.ndarray:
    """What a member gives images of a wide range of values, [B, ...]; builds it if need be."""
    rng = np.random.default_rng(0)
    shape = [_OPEN_SIZE if size is None else size for size in input_shape[1:]]
    images = [rng.random((4, *shape)), 20 * rng.normal(size=(4, *shape))]
    try:
        with tf.device("CPU:0"):
            outputs = member(tf.constant(np.concatenate(images), tf.float32), training=False)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"Expected members that take images {[None, *shape]}. Received: member {member.name!r}, saying: "
            f"{' '.join(str(error).split()):.200}"
        ) from error
    require(
        isinstance(outputs, tf.Tensor) and outputs.shape.rank is not None,
        "members of one output",
        f"member {member.name!r} that gives a {type(outputs).__name__}",
    )
    return tf.cast(outputs, tf.float32).numpy()


def _check_outputs(member: keras.Model, outputs: np.ndarray) -> None:
    last = member.layers[-1] if member.layers else None
    sigmoid = getattr(last, "activation", None) is keras.activations.sigmoid
    if sigmoid or are_probabilities(outputs):
        raise InputError(
            f"Expected members that give logits. Received: member {member.name!r} with probabilities, or "
            f"other numbers in [0, 1] only; divtf.convert_member(member) takes a softmax off"
        )
    finite = np.isfinite(outputs[: len(outputs) // 2]).all()
    require(finite, "members that give finite logits", f"member {member.name!r} with NaN or infinity")


def _check_precision(member: keras.Model) -> None:
    narrow = [layer.name for layer in layers_of(member) if layer.compute_dtype == "float16"]
    require(
        not narrow,
        "members that compute in float32, float64 or bfloat16: input gradients underflow in float16",
        f"member {member.name!r} with {narrow[:3]} in float16",
    )


def _check_apart(members: Sequence[keras.Model]) -> None:
    """A file of members that share weights would give each its own."""
    for first, second in itertools.combinations(members, 2):
        shared = {id(weight) for weight in first.weights} & {id(weight) for weight in second.weights}
        paths = [weight.path for weight in first.weights if id(weight) in shared]
        require(
            not shared,
            "members that share no weights",
            f"members {first.name!r} and {second.name!r} with {', '.join(paths[:3])} in common",
        )
