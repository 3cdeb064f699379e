"""What a run asks of models and objectives of the user's own, beside that they can be made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from divtf.data.datasets import DatasetSpec
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.objectives import names as objectives
from divtf.errors import InputError, require
from divtf.networks import named, names
from divtf.pipeline.config import RunConfig
from divtf.runtime import own_code
from divtf.runtime.logs import get_logger

_LOG = get_logger(__name__)


def import_code(config: RunConfig) -> None:
    """Import the modules of MODULE:NAME, for classes of layers and objectives in a checkpoint."""
    model = names.module_of(config.model)
    objective = objectives.parted(config.objective_name)[0].partition(":")[0]
    for flag, module in {"model": model, "objective": objective}.items():
        try:
            if module:
                own_code.import_module(module, flag)
        except InputError as error:
            _LOG.info(f"{error}; a checkpoint with its classes cannot be loaded: see PYTHONPATH")


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


def require_objective(config: RunConfig, ensemble: Ensemble, spec: DatasetSpec) -> None:
    """Refuse an objective that cannot be kept, or cannot be put into a graph.

    Raises:
        InputError: says why.
    """
    name, digest = objectives.parted(config.objective_name)
    require(bool(digest), "an objective of a module with a file of its own", f"{name}, whose code is in none")
    require_kept(name, ensemble.objective)
    ensemble.compile("adam")
    ensemble.optimizer.build(ensemble.trainable_variables)
    batch = tf.TensorSpec([None, *spec.image_shape], tf.float32), tf.TensorSpec([None], tf.int64)
    expected = f"{name} to be called with members, images, labels and training in a graph, and to give Terms"
    with own_code.told_in_one_line(expected):
        for step in (ensemble.train_step, ensemble.test_step):
            tf.function(step, autograph=False).get_concrete_function(batch)


def require_kept(name: str, made: Any) -> None:
    """Refuse an ensemble of layers, or an objective, that a checkpoint could not be read with.

    Raises:
        InputError: says what Keras cannot make again.
    """
    try:
        text = json.dumps(keras.saving.serialize_keras_object(made))
        again = keras.saving.deserialize_keras_object(json.loads(text), safe_mode=True)
    except Exception as error:  # Whatever the user's classes say.
        raise InputError(
            "Expected members and objective that Keras can save and load: without Lambda, own classes "
            "registered by keras.saving.register_keras_serializable, with get_config and from_config. "
            f"Received: {name}: {named.reason(error)}"
        ) from error
    found = f"{type(again).__module__}.{type(again).__name__}"
    require(
        type(again) is type(made), f"{name} under a name of its own in Keras's registry", f"that of {found}"
    )
