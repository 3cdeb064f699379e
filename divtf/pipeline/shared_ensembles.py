"""Ensembles that several targets share, trained once and kept beside the runs: surrogate and static model."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divtf.data.datasets import ImageData
from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.networks.logits import MemberList
from divtf.pipeline.config import RunConfig
from divtf.pipeline.shared_paths import ADVERSARIAL, BATCH, directory_of
from divtf.pipeline.trained import train
from divtf.runtime import devices
from divtf.runtime.logs import prefixed
from divtf.storage import run_directory


def ensemble(base: RunConfig, data: ImageData, changes: Sequence[Any] = ()) -> tuple[Ensemble, Path]:
    """An ensemble trained apart, and its directory; trained if need be.

    It serves as surrogate or as static model for every target of the same data set, model and budget.

    Args:
        base: its configuration, as `RunConfig.base` gives it.
        data: training and test images.
        changes: by static attacks, as `Mixture` takes them, for modes ens and ens_div.
    """
    directory = directory_of(base)
    with prefixed(directory.name), contextlib.ExitStack() as stack:
        if devices.team(base.strategy).is_chief:
            opened = run_directory.open_run(directory, base.training(), resume=True, wait=True)
            stack.enter_context(opened)
        trained, _ = train(base, data, directory, changes=changes)
    return trained, directory


def adversarial_sets(
    model: Ensemble | MemberList, directory: Path, told: Mapping[str, Any] | None = None
) -> AdversarialSets:
    """The sets of adversarial images of such an ensemble, kept in its directory.

    Args:
        model: the ensemble.
        directory: its own.
        told: how it was trained, as `settings` tells it, for their manifests.
    """
    return AdversarialSets(model, directory / ADVERSARIAL, batch_size=BATCH, settings=told)
