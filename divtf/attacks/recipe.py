"""Attacks composed of pieces: what gradient is taken, how it is accumulated, how members are combined."""

import dataclasses
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.attacks import losses
from divtf.attacks.context import Context, streams
from divtf.attacks.pieces import Gradient, is_count, within
from divtf.attacks.threat import ThreatModel
from divtf.attacks.updates import Ascent, Momentum, repeat
from divtf.errors import is_number, require
from divtf.networks.logits import each_logits, log_mean_probability, member_logits
from divtf.runtime.own_code import classes_digest

Logits = Callable[[tf.Tensor], tf.Tensor]
_MOMENTUM = Momentum()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an attack is composed of.

    Attributes:
        pieces: what gradient is taken, of `attacks.pieces` or of your own; the first one is outermost.
        update: how it is accumulated and climbed, of `attacks.updates` or of your own.
        loss: what is raised, of `attacks.losses` or of your own, or the name of one of `LOSSES`.
        steps: number of steps.
        step: their size in epsilons; None makes them path / steps.
        path: length of all steps together, in epsilons, where `step` is None.
        shrink: whether they shrink, from that size on, to nothing as half a cosine.
        random_start: whether to begin anywhere in the ball, and not at the images.
        restarts: number of random starts; for each image the one is kept that leads furthest from the true
            class (towards the given one, with `Towards`) by the members' mean probability. A greater loss may
            leave an image in its class, by far, where the others share what is left.

    Raises:
        InputError: if a value is none of these.
    """

    # Whether it takes gradients of the target, batches may be attacked on several devices at a time, and how
    # many scores it may ask for.
    differentiates = True
    in_graph = True
    queries = 0

    pieces: tuple[Any, ...] = ()
    update: Any = _MOMENTUM
    loss: Any = "cross_entropy"
    steps: int = 10
    step: float | None = None
    path: float = 1.0
    shrink: bool = False
    random_start: bool = False
    restarts: int = 1

    def __post_init__(self):
        if isinstance(self.loss, str):
            known = self.loss in losses.LOSSES
            require(known, f"loss as one of {sorted(losses.LOSSES)}", f"loss={self.loss!r}")
            object.__setattr__(self, "loss", losses.LOSSES[self.loss])
        several = isinstance(self.pieces, tuple | list)
        require(several, "pieces as a tuple", f"pieces={self.pieces!r:.80}")
        object.__setattr__(self, "pieces", tuple(self.pieces))
        for piece in self.pieces:
            called = _is_value(piece) and callable(piece)
            require(called, "pieces as dataclasses that are called", f"{piece!r:.80}")
        moves = _is_value(self.update) and hasattr(self.update, "start") and hasattr(self.update, "move")
        require(moves, "update as a dataclass with `start` and `move`", f"update={self.update!r:.80}")
        called = _is_value(self.loss) and callable(self.loss)
        require(called, "loss as a dataclass that is called", f"loss={self.loss!r:.80}")
        require(is_count(self.steps), "whole steps >= 1", f"steps={self.steps!r}")
        holds = self.step is None or (is_number(self.step) and 0 < self.step <= 1)
        require(holds, "0 < step <= 1, in units of epsilon", f"step={self.step!r}")
        holds = is_number(self.path) and self.path > 0
        require(holds, "path as a number of epsilons > 0", f"path={self.path!r}")
        for name in ("shrink", "random_start"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name} as a bool", f"{name}={value!r}")
        require(is_count(self.restarts), "whole restarts >= 1", f"restarts={self.restarts!r}")
        several = self.restarts == 1 or self.random_start
        require(several, "a random start for several restarts", f"restarts={self.restarts}")

    @property
    def gradients(self) -> int:
        """Gradients of all members that the attack takes for an image."""
        cost = self.steps * self.restarts
        for part in (*self.pieces, self.update):
            cost *= getattr(part, "cost", 1)
        return cost

    @property
    def params(self) -> dict[str, Any]:
        """All that tells the attack from others, as JSON values; each part's fields by their names."""
        fields: dict[str, Any] = {}
        for part in (*self.pieces, self.update, self.loss):
            fields |= dataclasses.asdict(part)
        # The size of a step tells it.
        fields |= {name: getattr(self, name) for name in _OWN_FIELDS if name != "path"}
        # In full: two parts may have a field of one name.
        parts = [repr(part) for part in (*self.pieces, self.update, self.loss)]
        return {**fields, "step": self.step_in_epsilons, "loss": _name_of(self.loss), "parts": parts}

    @property
    def own_code(self) -> str:
        """A digest of the code of parts of your own, which you may change; "" without such a part."""
        kinds = [type(part) for part in (*self.pieces, self.update, self.loss)]
        own = [kind for kind in kinds if not kind.__module__.startswith("divtf.")]
        return classes_digest(own) if own else ""

    @property
    def step_in_epsilons(self) -> float:
        """The size of a step in epsilons."""
        return min(1.0, self.path / self.steps) if self.step is None else self.step

    def replace(self, given: Mapping[str, Any]) -> "Recipe":
        """The recipe with other values of its own fields and of those of its parts, by name.

        Raises:
            InputError: if there is no such field, or it cannot have the value.
        """
        own = {name: value for name, value in given.items() if name in (*_OWN_FIELDS, "loss")}
        recipe = dataclasses.replace(self, **own)
        parts = (*recipe.pieces, recipe.update, recipe.loss)
        known = [*_OWN_FIELDS, "loss", *(field.name for part in parts for field in dataclasses.fields(part))]
        require(set(given) <= set(known), f"parameters among {known}", f"{sorted(set(given) - set(known))}")
        # A part may have a field of such a name, as `Towards` has a loss: the value is the recipe's.
        rest = {name: value for name, value in given.items() if name not in own}
        *pieces, update, loss = (_with(part, rest) for part in parts)
        return dataclasses.replace(recipe, pieces=tuple(pieces), update=update, loss=loss)

    def prepared(
        self, target: Any, members: int, image_shape: Sequence[int], threat: ThreatModel
    ) -> Callable[..., tf.Tensor]:
        """The attack on one target as a graph.

        Args:
            target: an Ensemble, a list of members, or a callable that gives logits.
            members: how many it has.
            image_shape: of one image.
            threat: the threat model.

        Returns:
            A function to adversarial images from images [B, ...], labels [B], the images' numbers [B], the
            seed [], a pool of images [P, ...] and its labels [P].

        Raises:
            InputError: if a piece does not work on such images.
        """
        # Before tracing, which hides errors in its own.
        self.check(tf.TensorShape([None, *image_shape]))
        # The graph must not keep the target alive: a cache by target holds it.
        reference = weakref.ref(target)
        images = tf.TensorSpec([None, *image_shape], tf.float32)
        labels = tf.TensorSpec([None], tf.int64)
        numbers = tf.TensorSpec([None], tf.int32)
        signature = [images, labels, numbers, tf.TensorSpec([], tf.int32), images, labels]
        step_size = self.step_in_epsilons * threat.epsilon

        # Converting control flow on tensors, which CleverHans and Keras lack, takes longer than tracing.
        @tf.function(input_signature=signature, autograph=not isinstance(target, keras.Model))
        def attack(x, y, numbers, seed, pool, pool_labels):
            def logits(images):
                return member_logits(reference(), images)

            context = Context(threat, y, streams(seed, numbers), step_size, pool, pool_labels)
            return self(logits, each_logits(reference(), members), x, context)

        # One trace serves all batches. Concrete, it is not mistaken for needless retracing.
        return attack.get_concrete_function()

    def check(self, shape: tf.TensorShape) -> None:
        """Hold images of this shape to what the pieces work on.

        Raises:
            InputError: if a piece asks for images [B, H, W, C], and they are none.
        """
        for piece in self.pieces:
            fits = shape.rank == 4 or not getattr(piece, "pictures", False)
            require(fits, f"images [B, H, W, C] for {type(piece).__name__}", f"inputs of shape {shape}")

    def __call__(self, logits: Logits, each: Sequence[Logits], x: tf.Tensor, context: Context) -> tf.Tensor:
        """Adversarial images of x.

        Args:
            logits: from images [B, ...] to the logits of all members, [N, B, C].
            each: the same of each member alone, [1, B, C].
            x: images [B, ...].
            context: of these images.
        """
        ascent = Ascent(
            self._gradient_of(logits),
            [self._gradient_of(one) for one in each],
            x,
            context.threat,
            context.step_size,
        )
        if not self.random_start:
            return self._climb(ascent, x, context)

        def start(number, best, greatest):
            begun = context.fold(number)
            start = ascent.project(x + within(context.threat.epsilon, x, begun.fold(0)))
            images = self._climb(ascent, start, begun.fold(1))
            ahead = losses.lead(log_mean_probability(logits(images)), context.labels)
            value = -ahead if isinstance(self.loss, losses.Towards) else ahead
            # What is not a number is kept, for the guard to find: nothing is greater.
            better = (value > greatest) | tf.math.is_nan(value)
            of_pixels = tf.reshape(better, [-1] + [1] * (x.shape.rank - 1))
            return number + 1, tf.where(of_pixels, images, best), tf.where(better, value, greatest)

        least = tf.fill([tf.shape(x)[0]], x.dtype.min)
        _, best, _ = tf.while_loop(
            lambda number, *_: number < self.restarts, start, (0, x, least), parallel_iterations=1
        )
        return best

    def _climb(self, ascent: Ascent, start: tf.Tensor, context: Context) -> tf.Tensor:
        def step(number, images, kept):
            along = ascent
            if self.shrink:
                share = (1 + tf.cos(math.pi * tf.cast(number, start.dtype) / self.steps)) / 2
                along = dataclasses.replace(ascent, step_size=share * ascent.step_size)
            return self.update.move(along, images, kept, context.fold(number))

        return repeat(self.steps, step, start, self.update.start(start))

    def _gradient_of(self, logits: Logits) -> Gradient:
        """The gradient of the loss of these logits, through the pieces."""

        def gradient(images, context):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                value = self.loss(logits(images), context.labels)
            return tape.gradient(value, images)

        for piece in reversed(self.pieces):
            gradient = _through(piece, gradient)
        return gradient


# Set by name, as the fields of the parts.
_OWN_FIELDS = ("steps", "step", "path", "shrink", "random_start", "restarts")


def _through(piece: Any, gradient: Gradient) -> Gradient:
    return lambda images, context: piece(gradient, images, context)


def _with(part: Any, given: Mapping[str, Any]) -> Any:
    """The part with those of the values that it has a field for."""
    names = {field.name for field in dataclasses.fields(part)}
    return dataclasses.replace(part, **{name: given[name] for name in given if name in names})


def _name_of(loss: Any) -> str:
    """The name of a loss, whatever its fields; of one's own the class's."""
    if isinstance(loss, losses.Towards):
        return f"towards {_name_of(loss.loss)}"
    names = {type(known): name for name, known in losses.LOSSES.items()}
    return names.get(type(loss), type(loss).__name__)


def _is_value(part: Any) -> bool:
    return dataclasses.is_dataclass(part) and not isinstance(part, type)
