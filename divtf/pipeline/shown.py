"""A run in a few names and values, for tools that show many runs side by side. No TensorFlow."""

import json
import statistics

from divtf.pipeline.config import RunConfig
from divtf.storage.records import CLEAN, TargetRecord


def settings(config: RunConfig) -> dict[str, bool | int | float | str]:
    """What makes the run what it is, as plain values by name; lists are joined, and what is open left out."""
    values = {"target": config.target} | config.identity()
    return {name: _plain(value) for name, value in values.items() if value is not None}


def figures(record: TargetRecord) -> dict[str, float]:
    """What the run found: accuracies in [0, 1] by names such as "final/fgsm at 0.1", coherence and GAL.

    The names are made of letters, digits, spaces and of _ . / alone: some tools refuse others.
    """
    found = {}
    for result in record.results:
        under = "" if result.attack == CLEAN else f" at {result.epsilon:g}"
        found[f"final/{result.attack}{under}"] = result.accuracy
    if record.coherence:
        found["final/coherence"] = statistics.fmean(record.coherence)
        found["final/gal"] = record.gradients["gal"]
    return found


def _plain(value: object) -> bool | int | float | str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)
