"""What a run asks of models and objectives of the user's own, beside that they can be made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from divtf.data.datasets import DatasetSpec
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.objectives import names as objectives
from divtf.errors import InputError, require
from divtf.networks import named, names
from divtf.pipeline.config import RunConfig
from divtf.runtime import own_code
from divtf.runtime.logs import get_logger
from divtf.storage import digests
from divtf.training.checkpoints import State

_LOG = get_logger(__name__)


def import_code(config: RunConfig) -> None:
    """Import the modules of MODULE:NAME, for classes of layers and objectives in a checkpoint."""
    model = names.module_of(config.model)
    objective = config.objective_name.partition(":")[0] if objectives.is_own(config.objective_name) else ""
    for flag, module in {"model": model, "objective": objective}.items():
        try:
            if module:
                own_code.import_module(module, flag)
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


def require_same_objective(objective: Any, state: State, directory: Path) -> None:
    """Refuse an objective that has become another one since a checkpoint of its training.

    Args:
        objective: as the code makes it now.
        state: of the checkpoint.
        directory: of the checkpoint.

    Raises:
        InputError: if its settings or its class's code are others.
    """
    serialize = keras.saving.serialize_keras_object
    same = serialize(objective) == serialize(state.ensemble.objective)
    require(
        same and digests.code_digest([type(objective)]) == (state.code or ""),
        f"objective {type(objective).__name__} as it was when {directory} was made",
        "one of other settings or code now; a --run_dir in another directory begins anew",
    )


def require_kept(name: str, ensemble: Ensemble) -> None:
    """Refuse layers, or an objective, that a checkpoint of the ensemble could not be read with.

    Raises:
        InputError: says what Keras cannot make again.
    """
    try:
        text = json.dumps(keras.saving.serialize_keras_object(ensemble))
        keras.saving.deserialize_keras_object(json.loads(text), safe_mode=True)
    except Exception as error:  # Whatever the user's layers say.
        raise InputError(
            "Expected members and objective that Keras can save and load: without Lambda, own classes "
            "registered by keras.saving.register_keras_serializable, with get_config and from_config. "
            f"Received: {name}: {named.reason(error)}"
        ) from error
