"""How many scores the Square attack takes of a target until it fools it, image by image; kept in files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from divtf.attacks import outside
from divtf.attacks.attack import Attack
from divtf.data.images import blocks, images_digest
from divtf.evaluation.model_digests import model_digest
from divtf.evaluation.stored import as_stored
from divtf.storage import checked_json, run_directory
from divtf.storage.digests import array_digest, digest

# Images that are attacked at a time: what is done is kept so often.
_BATCH = 25


class QueryCounts:
    """Counts for one target, made once and kept.

    Args:
        target: an Ensemble, or what gives logits.
        directory: where counts are kept.
        stored_as: what the target sees of images, as `evaluation.stored` has it.
    """

    def __init__(self, target: Any, directory: Path, stored_as: str = "float32"):
        self._target, self._directory, self._stored_as = target, directory, stored_as
        self._digest = model_digest(target)

    def taken(self, attack: Attack, x: Any, y: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """For each of the images of these numbers how many scores the attack took, [len(numbers)].

        It is one more than the attack allows where it did not fool the target.

        Args:
            attack: `make_attack("square", ...)`.
            x: images [n, H, W, C].
            y: true classes [n].
            numbers: of the images that are attacked.
        """
        scores = outside.scores_of(self._target, x.shape[1:])
        threat = attack.threat

        def seen(images: np.ndarray) -> Any:
            stored = as_stored(images, self._stored_as, threat.clip_min, threat.clip_max)
            return scores(np.asarray(stored))

        found = [self._of_batch(attack, seen, x, y, part) for part in blocks(numbers, _BATCH)]
        return np.concatenate([np.zeros(0, int), *found])

    def _of_batch(
        self, attack: Attack, scores: Callable, x: Any, y: np.ndarray, numbers: np.ndarray
    ) -> np.ndarray:
        manifest = attack.describe() | {
            "target": self._digest,
            "images": images_digest(x),
            "labels": array_digest(y),
            "numbers": numbers.tolist(),
            "stored_as": self._stored_as,
        }
        path = self._directory / f"{attack.name}-{attack.threat.epsilon:g}-{digest(manifest)}.json"
        with run_directory.held(self._directory, wait=True):
            try:
                kept = checked_json.read_checked(path) if path.exists() else {}
            except checked_json.DamagedError:
                kept = {}
            if kept.get("manifest") != manifest:
                seed = int(numbers[0])
                result = outside.square(
                    scores,
                    np.asarray(x[numbers]),
                    y[numbers],
                    attack.threat,
                    seed=seed,
                    **attack.method.params,
                )
                kept = {"manifest": manifest, "queries": result.queries.tolist()}
                checked_json.write_checked(path, kept)
        return np.asarray(kept["queries"], int)
