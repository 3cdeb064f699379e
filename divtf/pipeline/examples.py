"""A few images of a run, clean and attacked, with what each member makes of them, for its page."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.predictions import all_member_logits
from divtf.networks.logits import log_mean_probability
from divtf.storage.examples import Example, Seen
from divtf.storage.records import CLEAN, WORST_CASE, TransferResult

COUNT = 8
# Larger pictures are shown smaller.
_PIXELS = 96


def strongest(results: Sequence[TransferResult]) -> list[TransferResult]:
    """Of the smallest and the largest epsilon, the attack that leaves the fewest images right."""
    attacked = [result for result in results if result.attack not in (CLEAN, WORST_CASE)]
    epsilons = sorted({result.epsilon for result in attacked})
    return [
        min((result for result in attacked if result.epsilon == epsilon), key=lambda result: result.correct)
        for epsilon in dict.fromkeys([*epsilons[:1], *epsilons[-1:]])
    ]


def examples(
    target: Ensemble, x: Any, y: np.ndarray, attacked: Mapping[tuple[str, float], Any]
) -> tuple[Example, ...]:
    """The first images, and what the target and each of its members make of each picture.

    Args:
        target: trained.
        x: clean images [n, H, W, C] in [0, 1].
        y: their true classes [n].
        attacked: (attack, epsilon) -> the same images as the target saw them when attacked.

    Returns:
        One example an image; none of images that are no pictures, having other than 1 or 3 channels.
    """
    if x.shape[-1] not in (1, 3):
        return ()
    seen: list[list[Seen]] = [[] for _ in y[:COUNT]]
    for (attack, epsilon), images in {(CLEAN, 0.0): x, **attacked}.items():
        first = np.asarray(images[np.arange(len(seen))], dtype="float32")
        logits = all_member_logits(target, first)
        members = logits.argmax(axis=-1)
        together = log_mean_probability(tf.constant(logits)).numpy().argmax(axis=-1)
        for place, views in enumerate(seen):
            classes = tuple(map(int, members[:, place]))
            views.append(Seen(attack, float(epsilon), png(first[place]), int(together[place]), classes))
    return tuple(
        Example(number, int(label), tuple(views))
        for number, (label, views) in enumerate(zip(y[:COUNT], seen, strict=True))
    )


def png(image: np.ndarray) -> str:
    """An image [H, W, 1 or 3] in [0, 1] as a PNG file in 8 bits, base64; no side is longer than 96."""
    from PIL import Image  # Here, since few need it.

    levels = np.rint(255 * image.astype("float64")).clip(0, 255).astype("uint8")
    picture = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    picture.thumbnail((_PIXELS, _PIXELS))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")
