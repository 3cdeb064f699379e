"""How many scores the Square attack takes of a target until it fools it, image by image."""

from typing import Any

import numpy as np

from divtf.attacks import outside
from divtf.attacks.attack import Attack
from divtf.data.images import blocks
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.stored import as_stored

# Images that are attacked at a time: what is done is kept so often.
_BATCH = 25


def queries_taken(
    sets: AdversarialSets,
    attack: Attack,
    x: Any,
    y: np.ndarray,
    numbers: np.ndarray,
    stored_as: str = "float32",
) -> np.ndarray:
    """For each of the images of these numbers how many scores the attack took, [len(numbers)].

    It is one more than the attack allows where it did not fool the target.

    Args:
        sets: of the target, beside which the counts are kept.
        attack: `make_attack("square", ...)`.
        x: images [n, H, W, C].
        y: true classes [n].
        numbers: of the images that are attacked.
        stored_as: what the target sees of images, as `evaluation.stored` has it.
    """
    scores = outside.scores_of(sets.surrogate, x.shape[1:])
    threat = attack.threat

    def seen(images: np.ndarray) -> Any:
        return scores(np.asarray(as_stored(images, stored_as, threat.clip_min, threat.clip_max)))

    def kept_of(part: np.ndarray) -> list[int]:
        """The counts of one batch."""

        def asked() -> list[int]:
            given = {**attack.method.params, "seed": int(part[0])}
            return outside.square(seen, np.asarray(x[part]), y[part], threat, **given).queries.tolist()

        depends = attack.describe() | {"numbers": part.tolist(), "stored_as": stored_as}
        return sets.kept(f"{attack.name}-{threat.epsilon:g}", depends, x, y, asked)

    counts = [count for part in blocks(numbers, _BATCH) for count in kept_of(part)]
    return np.array(counts, int)
