"""Square by another library, the Adversarial Robustness Toolbox (ART), and how ART is used. Extra `attacks`.

ART searches. What it asks of a target and how queries are counted is here, by its public parameters alone: it
asks for the same images' scores again and again, and counts no queries. `attacks.auto_pgd` uses it too.
"""

import collections
import contextlib
import dataclasses
import importlib
import logging.config
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.attacks.threat import ThreatModel
from divtf.errors import is_number, require, require_installed
from divtf.networks.logits import as_target, class_indices, require_labels, require_one_label_each

BATCH = 250
"""Images that a target is asked for at a time."""
# ART's Square asks for the images as they are, for those that stand, and for new ones; then for all again.
_CALLS_AN_ITERATION = 3


@dataclasses.dataclass(frozen=True)
class SquareResult:
    """What Square found.

    Attributes:
        images: float32 [n, H, W, C]; of an image that was not fooled, the one with the least margin.
        queries: integer [n], how many an image took until it was misclassified: 0 if it was so from the
            start, and one more than were allowed if it never was. So `(queries > q).mean()` is the accuracy
            after q queries, for q up to what was allowed.
    """

    images: np.ndarray
    queries: np.ndarray


def square(
    logits: Callable[[np.ndarray], Any],
    x: np.ndarray,
    y: Any,
    threat: ThreatModel,
    *,
    queries: int = 5000,
    initial: float = 0.8,
    seed: int = 0,
) -> SquareResult:
    """The Square attack: random squares are kept where they lower the margin; no gradients.

    Args:
        logits: from images, float32 [b, H, W, C], to scores [b, C]: logits or log-probabilities. `scores_of`
            makes such a function of an Ensemble. It is asked for each new image once.
        x: images [n, H, W, C] in the image range.
        y: true classes [n], [n, 1] or one-hot [n, C].
        threat: budget and image range.
        queries: that an image may take, >= 2; the first has vertical stripes, each other one square. One that
            proposes what is there already counts as well, as in AutoAttack.
        initial: share of the image that the first squares cover, in (0, 1); less on images into which such a
            square does not fit.
        seed: of NumPy's global generator during the call; its state is put back.

    Raises:
        InputError: if a value does not fit, or ART is not installed.

    Source: Andriushchenko et al. (2020), Algorithms 1 and 2; AutoAttack's values (Croce & Hein, 2020).
    """
    x, y = checked(x, y, threat)
    require(x.ndim == 4, "images [n, H, W, C] for square, which draws squares", f"shape {x.shape}")
    require_whole("queries", queries, 2)
    fits = is_number(initial) and 0 < initial < 1
    require(fits, "initial in (0, 1)", f"initial={initial!r}")
    height, width = x.shape[1:3]
    require(min(height, width) >= 2, "images of at least 2 x 2 pixels for square", f"{height} x {width}")
    # ART draws a place in range(side - tile).
    initial = min(initial, (min(height, width) - 1) ** 2 / (height * width))
    load_art("square")
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    asked = _Remembered(logits)
    scores = asked(x)
    classes = scores.shape[-1]
    require_labels(y, classes)
    images, taken = x.copy(), np.zeros(len(x), int)
    (standing,) = np.nonzero(scores.argmax(axis=1) == y)
    if not len(standing):
        return SquareResult(images, taken)
    counted = _Counted(len(standing))
    attack = SquareAttack(
        BlackBoxClassifierNeuralNetwork(
            asked, x.shape[1:], classes, channels_first=False, clip_values=(threat.clip_min, threat.clip_max)
        ),
        adv_criterion=counted,
        max_iter=queries - 1,
        eps=threat.epsilon,
        p_init=initial,
        batch_size=len(x),
        verbose=False,
    )
    one_hot = np.eye(classes, dtype="float32")[y[standing]]
    with seeded(seed):
        images[standing] = attack.generate(x[standing], one_hot)
    # ART does not look at what its last query did.
    counted(asked(images[standing]), one_hot)
    taken[standing] = np.where(counted.queries > 0, counted.queries, queries + 1)
    return SquareResult(images, taken)


def scores_of(target: Any, image_shape: tuple[int, ...]) -> Callable[[Any], tf.Tensor]:
    """A target's scores as one graph, from images [b, ...] of that shape in float32 to [b, C].

    Args:
        target: an Ensemble, a list of members, or a callable that gives logits.
        image_shape: of one image.
    """
    target = as_target(target)
    signature = [tf.TensorSpec([None, *image_shape], tf.float32)]
    # Keras lacks control flow on tensors, and converting it takes longer than tracing.
    converted = not isinstance(target, keras.Model)
    graph = tf.function(lambda x: target(x), input_signature=signature, autograph=converted)
    concrete = graph.get_concrete_function()
    return lambda x: concrete(tf.convert_to_tensor(x, tf.float32))


class _Remembered:
    """Scores of images, of which those asked for a moment ago are remembered."""

    def __init__(self, logits: Callable[[np.ndarray], Any]):
        self._logits = logits
        self._calls: collections.deque[dict] = collections.deque(maxlen=_CALLS_AN_ITERATION)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        known = collections.ChainMap(*self._calls)
        keys = [image.tobytes() for image in x]
        new = {key: i for i, key in enumerate(keys) if key not in known}
        scores = dict(zip(new, self._ask(x[list(new.values())]), strict=True))
        answers = {key: scores[key] if key in scores else known[key] for key in keys}
        self._calls.append(answers)
        return np.stack([answers[key] for key in keys])

    def _ask(self, x: np.ndarray) -> list[np.ndarray]:
        parts = [np.asarray(self._logits(x[i : i + BATCH])) for i in range(0, len(x), BATCH)]
        for part in parts:
            require(part.ndim == 2, "a target that gives scores [b, C]", f"outputs of shape {part.shape}")
            require(bool(np.isfinite(part).all()), "finite scores of a target", "NaN or infinity")
        return [row for part in parts for row in part]


class _Counted:
    """ART's criterion of success, which is asked before the first query and after each but the last.

    An image costs one query between two calls as long as it stands, and none later.
    """

    def __init__(self, count: int):
        self.queries = np.zeros(count, int)
        """How many each image took; 0 as long as it stands."""
        self._past = 0

    def __call__(self, scores: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
        fooled = scores.argmax(axis=1) != one_hot.argmax(axis=1)
        self.queries[fooled & (self.queries == 0)] = self._past
        self._past += 1
        return fooled


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, from which ART draws, for a while."""
    whole = isinstance(seed, int | np.integer) and 0 <= seed < 2**32
    require(whole, "a seed in [0, 2^32), as NumPy's global generator takes it", f"seed={seed!r}")
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def checked(x: Any, y: Any, threat: ThreatModel) -> tuple[np.ndarray, np.ndarray]:
    """Images in float32 and labels as indices.

    Raises:
        InputError: if they do not fit together, or to the image range.
    """
    x, y = np.array(x, "float32"), class_indices(y)
    require_one_label_each(x, y)
    threat.require_in_range(float(x.min()), float(x.max()))
    return x, y


def require_whole(name: str, value: Any, least: int) -> None:
    """Refuse a value that is no whole number, or too small a one.

    Raises:
        InputError: names it.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(fits, f"whole {name} >= {least}", f"{name}={value!r}")


def load_art(what: str) -> None:
    """Import ART, and keep away what its import does to the rest of the program.

    It warns of PyTorch, which is not needed, and configures logging anew, which closes the handlers of all
    loggers: a log file of the program would end there.
    """
    require_installed(what, "attacks", ("art",))
    if "art" in sys.modules:
        return
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("art")
    finally:
        logging.config.dictConfig = configure
    logging.getLogger("art").addHandler(logging.NullHandler())
