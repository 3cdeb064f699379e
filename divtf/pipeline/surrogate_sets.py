"""Adversarial sets of an evaluation's surrogates, which are trained, or read from files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.data.datasets import ImageData
from divtf.errors import InputError, first_line, require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.networks.logits import MemberList, require_logits
from divtf.pipeline import shared_ensembles, shared_paths
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.static_images import static_changes
from divtf.pipeline.surrogates import Surrogate, surrogates


def surrogate_sets(
    surrogate_names: Sequence[str], configs: Sequence[RunConfig], data: ImageData
) -> dict[str, AdversarialSets]:
    """Name of each surrogate -> its adversarial sets; files are read before anything is trained.

    Args:
        surrogate_names: as `surrogates.surrogate` takes them.
        configs: of the targets.
        data: its images.

    Raises:
        InputError: if a file holds no model for these images.
    """
    meant = surrogates(surrogate_names, configs)
    files = {path: _load(path, data) for each in meant for path in each.files}
    return {each.name: _sets_of(each, files, configs[0], data) for each in meant}


def _sets_of(
    meant: Surrogate, files: Mapping[str, Any], config: RunConfig, data: ImageData
) -> AdversarialSets:
    """The sets of one surrogate, which is trained if need be."""
    trained_now = [
        shared_ensembles.ensemble(base, data, static_changes(base, data)) for base in meant.trained
    ]
    models = [*(model for model, _ in trained_now), *(files[path] for path in meant.files)]
    if len(models) == len(trained_now) == 1:
        (base,) = meant.trained
        return shared_ensembles.adversarial_sets(*trained_now[0], settings(base, data))
    members = [member for model in models for member in getattr(model, "members", [model])]
    told = {"made of": meant.name, "members": len(members)}
    directory = Path(config.run_dir).absolute().parent / shared_paths.SHARED
    return shared_ensembles.adversarial_sets(MemberList(members), directory, told)


def _load(path: str, data: ImageData) -> Any:
    """The ensemble or model of a file, which takes the images and tells their classes apart.

    Raises:
        InputError: says what is wrong with it.
    """
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"Expected a surrogate that Keras can load in {path}. Received: {first_line(error)}"
        ) from error
    _, classes = require_logits(model, tf.constant(np.zeros([1, *data.spec.image_shape], "float32")))
    require(
        classes == data.spec.num_classes,
        f"a surrogate of {data.spec.num_classes} classes, as the images have",
        f"{path}, which has {classes}",
    )
    return model
