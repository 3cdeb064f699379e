"""What objectives share: their settings, and what they take of the members."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.ensembles import alignment
from divtf.ensembles.objectives.terms import Terms
from divtf.errors import is_number, require
from divtf.networks.logits import at_least_float32, cross_entropy

Members = Sequence[Callable[..., tf.Tensor]]


def setting(default: Any, expected: str, holds: Callable[[Any], bool], **options: Any) -> Any:
    """A field of an objective that holds a number.

    Args:
        default: its value.
        expected: what it may be in words, with its name.
        holds: tells that of a number; anything else is refused before.
        **options: of `dataclasses.field`.
    """
    return dataclasses.field(default=default, metadata={"expected": expected, "holds": holds}, **options)


def weight(default: float, name: str) -> Any:
    """A field for the weight of a term, at least 0."""
    return setting(default, f"{name} that is finite and >= 0", lambda value: value >= 0)


def count(default: int, name: str) -> Any:
    """A field for a whole number of at least 1."""
    return setting(default, f"whole {name} >= 1", lambda value: value >= 1 and value == int(value))


@dataclasses.dataclass(frozen=True)
class Objective:
    """What objectives share; an object of your own needs no more than the call.

    Called with members, N callables `member(x, training=...)` that give logits [B, C]; images x [B, ...];
    labels y, class indices [B] or the classes' probabilities, floating [B, C]; and training, whether for a
    training step. Gives `Terms`.

    Attributes:
        label_smoothing: share of each label that is spread over all classes, in [0, 1).

    Raises:
        InputError: if a setting is out of range.
    """

    label_smoothing: float = setting(
        0.0, "label_smoothing in [0, 1)", lambda share: 0 <= share < 1, kw_only=True
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if "holds" not in field.metadata:
                continue  # Of an objective of one's own, which may be of any type.
            value = getattr(self, field.name)
            holds = is_number(value) and field.metadata["holds"](value)
            require(holds, field.metadata["expected"], f"{field.name}={value!r}")
            kind: Any = type(field.default)
            object.__setattr__(self, field.name, kind(value))

    @property
    def least_members(self) -> int:
        """The fewest members that it makes sense with."""
        return 1

    @property
    def second_order(self) -> bool:
        """Whether its gradient is one of second order, for which the members' layers have to be exact."""
        return False

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """The terms."""
        raise NotImplementedError

    def require_members(self, members: Sequence[keras.Model], num_classes: int) -> None:
        """Refuse built members that the objective cannot train.

        Raises:
            InputError: says why.
        """

    def checked(self, x: tf.Tensor) -> tf.Tensor:
        """The images of a training step, which are there only if the objective takes them."""
        return x

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        """The inverse of `get_config`."""
        return cls(**config)

    def clean(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> "MemberValues":
        """Logits and cross-entropies of the members on images, without their gradients."""
        logits = tf.stack([at_least_float32(member(x, training=training)) for member in members])
        losses, _ = cross_entropy(logits, y, self.label_smoothing)
        return MemberValues(logits, losses)

    def aligned(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> "MemberValues":
        """The same with the gradients of the cross-entropies with respect to the images."""
        return MemberValues(
            *alignment.input_gradients(members, x, y, training=training, label_smoothing=self.label_smoothing)
        )

    def observed(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> "MemberValues":
        """What objectives take that need no gradients: in evaluation these are measured all the same."""
        if training or len(members) < 2:
            return self.clean(members, x, y, training=training)
        values = self.aligned(members, x, y, training=training)
        return dataclasses.replace(values, gradients=alignment.finite(values.gradients))


@dataclasses.dataclass(frozen=True)
class Memberwise(Objective):
    """An objective of what each member gives by itself: a step can take one member after the other."""

    def taken(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> "MemberValues":
        """What it takes of the members; of some of them it is the same as their part of all.

        Logits and losses; in evaluation gradients, too.
        """
        return self.observed(members, x, y, training=training)

    def combined(self, values: "MemberValues", y: tf.Tensor) -> Terms:
        """The terms from what all members gave."""
        raise NotImplementedError

    def __call__(self, members: Members, x: tf.Tensor, y: tf.Tensor, *, training: bool) -> Terms:
        """The terms; see `Objective`."""
        return self.combined(self.taken(members, x, y, training=training), y)


@dataclasses.dataclass(frozen=True)
class MemberValues:
    """What members give for images.

    Attributes:
        logits: [N, B, C].
        losses: their cross-entropies, [N, B].
        gradients: of these with respect to the images, [N, B, D]; None where they were not taken.
    """

    logits: tf.Tensor
    losses: tf.Tensor
    gradients: Any = None

    def parts(self) -> list[tf.Tensor]:
        """Those that were taken, in order."""
        return [part for part in (self.logits, self.losses, self.gradients) if part is not None]

    def terms(self, diversity: tf.Tensor | None = None) -> Terms:
        """Terms that minimise the mean cross-entropy, and what is added to it, [B]."""
        cross_entropy = tf.reduce_mean(self.losses, axis=0)
        parts: dict[str, tf.Tensor] = {}
        if self.gradients is not None and self.gradients.shape[0] > 1:
            parts["gal"] = alignment.gradient_alignment_loss(self.gradients)
            parts["coherence"] = alignment.coherence(self.gradients)
        loss = cross_entropy if diversity is None else cross_entropy + diversity
        return Terms(self.logits, loss, cross_entropy, diversity=diversity, **parts)


def kept_state(members: Members) -> list[tf.Tensor]:
    """What a pass in training moves: statistics and the state of random numbers, in the order of members."""
    return [tf.identity(variable) for variable in _moved(members)]


def restore(members: Members, state: Sequence[tf.Tensor]) -> None:
    """Put it back, so that a step of several passes moves it once."""
    for variable, value in zip(_moved(members), state, strict=True):
        variable.assign(value)


def _moved(members: Members) -> list[Any]:
    return [variable for member in members for variable in getattr(member, "non_trainable_variables", ())]
