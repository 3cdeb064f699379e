"""What an ensemble asks of its members, whoever made them."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.ensembles.exactness import require_exact
from divtf.errors import InputError, first_line, require
from divtf.networks.conversion import is_graph, random_images, softmax_heads
from divtf.networks.logits import are_probabilities, at_least_float32, narrow_layers
from divtf.networks.models import is_built_here

# Of random images in [0, 1): logits of the most different ones are not all in [0, 1], but by chance.
_SCALES = (1, -1, 30, -30, 1000, -1000)


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
    least = getattr(objective, "least_members", 1)
    require(count >= least, f"at least {least} members for {type(objective).__name__}", f"{count}")


def second_order(objective: Any) -> bool:
    """Whether an objective's parameter gradient is one of second order: one's own may say so, too."""
    return getattr(objective, "second_order", False)


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


def check_members(members: Sequence[keras.Model], input_shape: Sequence[int | None]) -> None:
    """Refuse members that do not fit together, or give no logits.

    Args:
        members: built, or built here.
        input_shape: of their images, [batch, ...].

    Raises:
        InputError: says which, and what was expected.
    """
    outputs = [_outputs(member, input_shape) for member in members]
    types = {each.dtype.name for each in outputs if each.dtype.size >= 4}
    require(len(types) <= 1, "members of one precision", f"outputs of {sorted(types)}")
    shapes = [tuple(each.shape[1:]) for each in outputs]
    require(len(set(shapes)) == 1, "members of one output shape", f"{shapes}")
    require(
        len(shapes[0]) == 1 and shapes[0][0] >= 2, "members that give logits [B, C >= 2]", f"[B, {shapes[0]}]"
    )
    for member, output in zip(members, outputs, strict=True):
        _check_outputs(member, output.numpy())
        _check_precision(member)
    _check_apart(members)


def check_gradients(members: Sequence[keras.Model], input_shape: Sequence[int | None]) -> None:
    """Refuse members on which GAL would be minimised along a wrong gradient; those built here are not.

    Raises:
        InputError: as `exactness.require_exact`.
    """
    require_exact([member for member in members if not is_built_here(member)], input_shape)


def accuracy_names(members: Sequence[keras.Model]) -> list[str]:
    """Names of the members' accuracies; those of members that share a name tell their positions."""
    counts = Counter(member.name for member in members)
    numbered = [f"{member.name}_{position}" for position, member in enumerate(members)]
    names = [
        member.name if counts[member.name] == 1 else number
        for member, number in zip(members, numbered, strict=True)
    ]
    # A name may be what another one's number makes of it.
    return [f"{name}_accuracy" for name in (names if len(set(names)) == len(names) else numbered)]


def _input_shape(member: keras.Model) -> Any:
    try:
        shape = member.input_shape
    except AttributeError:  # Of subclassed models Keras knows what they were built for.
        shape = (member.get_build_config() or {}).get("input_shape") if member.built else None
    return None if shape is None else tuple(shape)


def _outputs(member: keras.Model, input_shape: Sequence[int | None]) -> tf.Tensor:
    """What a member gives images of a wide range of values, [B, ...]; builds it if need be."""
    images = random_images(input_shape)
    try:
        with tf.device("CPU:0"):
            outputs = member(tf.concat([scale * images for scale in _SCALES], axis=0), training=False)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"Expected members that take images {[None, *images.shape[1:]]}. "
            f"Received: member {member.name!r}, saying: {first_line(error):.200}"
        ) from error
    require(
        isinstance(outputs, tf.Tensor) and outputs.shape.rank is not None,
        "members of one output",
        f"member {member.name!r} that gives a {type(outputs).__name__}",
    )
    return at_least_float32(outputs)


def _check_outputs(member: keras.Model, outputs: np.ndarray) -> None:
    last = member.layers[-1] if member.layers else None
    sigmoid = getattr(last, "activation", None) is keras.activations.sigmoid
    # Of a softmax, a multiple of one, or a sigmoid; or of nothing else, if all are 0.
    within = outputs.min() >= 0 and 0 < outputs.max() <= 1
    if not is_built_here(member) and (sigmoid or within or are_probabilities(outputs)):
        softmax = is_graph(member) and softmax_heads(member)
        advice = "divtf.convert_member(member) takes its softmax off" if softmax else "remove what makes them"
        raise InputError(
            f"Expected members that give logits. Received: member {member.name!r} with probabilities, or "
            f"other numbers in [0, 1] only; {advice}"
        )
    finite = np.isfinite(outputs[: len(outputs) // len(_SCALES)]).all()
    require(finite, "members that give finite logits", f"member {member.name!r} with NaN or infinity")


def _check_precision(member: keras.Model) -> None:
    narrow = narrow_layers(member)
    require(
        not narrow,
        "members that compute in float32, float64 or bfloat16: input gradients underflow in float16",
        f"member {member.name!r} with {narrow[:3]} in float16",
    )


def require_floating_inputs(members: Sequence[keras.Model]) -> None:
    """Refuse members that take whole numbers, for which nothing has an input gradient.

    Raises:
        InputError: names one.
    """
    for member in members:
        inputs = getattr(member, "inputs", None) or ()
        whole = [str(each.dtype) for each in inputs if not keras.backend.is_float_dtype(each.dtype)]
        expected = "members of keras.Input(dtype='float32'), for input gradients; images may be bytes"
        require(not whole, expected, f"member {member.name!r} of dtype={', '.join(whole)}")


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
