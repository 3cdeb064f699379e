"""Adversarial sets of an evaluation's surrogates, which are trained, or read from files."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from divtf.data.datasets import ImageData
from divtf.errors import InputError, first_line, require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.surrogates import settings as own_settings
from divtf.networks.logits import MemberList, require_logits
from divtf.networks.named import warn_of_bytes
from divtf.pipeline import shared_ensembles, shared_paths
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.static_images import static_changes
from divtf.pipeline.surrogates import Surrogate, surrogates
from divtf.storage.digests import file_digest


@dataclasses.dataclass(frozen=True)
class SurrogatePlan:
    """Surrogates of which all is known but the weights of those that are to be trained.

    Attributes:
        meant: the surrogates.
        files: path -> the Keras model in that file.
        config: of the first target.
        data: the images.
    """

    meant: Sequence[Surrogate]
    files: Mapping[str, Any]
    config: RunConfig
    data: ImageData

    @classmethod
    def of(cls, surrogate_names: Sequence[str], configs: Sequence[RunConfig], data: ImageData) -> Self:
        """The plan, with files read before anything is trained.

        Args:
            surrogate_names: as `surrogates.surrogate` takes them.
            configs: of the targets.
            data: their images.

        Raises:
            InputError: if a file holds no model for these images.
        """
        meant = surrogates(surrogate_names, configs)
        files = {path: _load(path, data) for each in meant for path in each.files}
        return cls(meant, files, configs[0], data)

    def sets(self) -> dict[str, AdversarialSets]:
        """Name of each surrogate -> its adversarial sets; it is trained if need be."""
        return {each.name: self._sets_of(each) for each in self.meant}

    def _sets_of(self, meant: Surrogate) -> AdversarialSets:
        data = self.data
        trained_now = [
            shared_ensembles.ensemble(base, data, static_changes(base, data)) for base in meant.trained
        ]
        models = [*(model for model, _ in trained_now), *(self.files[path] for path in meant.files)]
        told = [*(settings(base, data) for base in meant.trained), *map(_of_file, meant.files)]
        if len(models) == len(trained_now) == 1:
            return shared_ensembles.adversarial_sets(*trained_now[0], told[0])
        members = [member for model in models for member in getattr(model, "members", [model])]
        parts = [own_settings(model, values) for model, values in zip(models, told, strict=True)]
        whole = {**_joined(parts), "made of": meant.name, "members": len(members)}
        directory = Path(self.config.run_dir).absolute().parent / shared_paths.SHARED
        return shared_ensembles.adversarial_sets(MemberList(members), directory, whole)


def _of_file(path: str) -> dict[str, Any]:
    """What tells a surrogate that was trained elsewhere: its file, and the file's content."""
    return {"file": path, "SHA-256": file_digest(Path(path))}


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What tells several ensembles, in their order: "7 + 9" where they differ, "-" for one without it."""
    joined = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part.get(name, "-") for part in parts]
        alike = all(value == values[0] for value in values)
        joined[name] = values[0] if alike else " + ".join(map(str, values))
    return joined


def _load(path: str, data: ImageData) -> Any:
    """The ensemble or model of a file, which takes the images and tells their classes apart.

    Raises:
        InputError: says what is wrong with it.
    """
    try:
        # In safe mode Keras runs no code that a file brings.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # A file that Keras did not write, or a damaged one, may fail in any way.
        raise InputError(
            f"Expected a surrogate that Keras can load in {path}. Received: {first_line(error)}"
        ) from error
    require(isinstance(model, keras.Model), f"a Keras model in {path}", f"a {type(model).__name__}")
    for member in getattr(model, "members", [model]):
        warn_of_bytes(path, member)
    _, classes = require_logits(model, tf.constant(np.zeros([1, *data.spec.image_shape], "float32")))
    require(
        classes == data.spec.num_classes,
        f"a surrogate of {data.spec.num_classes} classes, as the images have",
        f"{path}, which has {classes}",
    )
    return model
