"""What a run asks of models of the user's own, beside that they can be built."""

import json
from collections.abc import Sequence
from pathlib import Path

import keras

from divtf.data.datasets import DatasetSpec
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError, require
from divtf.networks import named, names
from divtf.pipeline.config import RunConfig
from divtf.runtime.logs import get_logger

_LOG = get_logger(__name__)


def import_layers(model: str) -> None:
    """Import the module of MODULE:FUNCTION, for layers of its own that a checkpoint may have."""
    if module := names.module_of(model):
        try:
            named.import_module(module)
        except InputError as error:
            _LOG.info(f"{error}; going on without it")


def require_unchanged(
    ensemble: Ensemble, members: Sequence[keras.Model], config: RunConfig, spec: DatasetSpec, directory: Path
) -> None:
    """Refuse a checkpoint of what the user's code meant before.

    Args:
        ensemble: of the checkpoint.
        members: as the code makes them now; they are given the checkpoint's weights.
        config: of the run.
        spec: of its images.
        directory: of the checkpoint.

    Raises:
        InputError: if they do not compute the same from the same weights.
    """
    same = [
        named.computes_as(member, saved, spec.image_shape)
        for member, saved in zip(members, ensemble.members, strict=True)
    ]
    require(
        all(same),
        f"--model={config.model_name} as it was when {directory} was made",
        "one that computes something else now; a --run_dir in another directory begins anew",
    )


def require_kept(name: str, ensemble: Ensemble) -> None:
    """Refuse layers that a checkpoint of the ensemble could not be read with.

    Raises:
        InputError: says what Keras cannot make again.
    """
    try:
        text = json.dumps(keras.saving.serialize_keras_object(ensemble))
        keras.saving.deserialize_keras_object(json.loads(text), safe_mode=True)
    except Exception as error:  # Whatever the user's layers say.
        raise InputError(
            f"Expected members that Keras can save and load: without Lambda, with own layers registered by "
            f"keras.saving.register_keras_serializable. Received: {name}: {named.reason(error)}"
        ) from error
