"""The evaluation of trained targets by a protocol: surrogates, attacks in turn, and what is left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.attacks.attack import make_attack
from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData
from divtf.errors import InputError, first_line, require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.surrogates import images_and_labels_digest
from divtf.evaluation.trials import Attempt, Standing
from divtf.networks.logits import MemberList, require_logits
from divtf.pipeline import experiment, finished, shared_ensembles, shared_paths, trained
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import DataPart
from divtf.pipeline.protocols import Protocol, Trial
from divtf.pipeline.surrogates import Surrogate, surrogate
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, environment, run_directory
from divtf.storage.evaluations import EvaluationRecord
from divtf.storage.records import WORST_CASE, packed

_LOG = get_logger(__name__)


def evaluate(
    family: Mapping[Path, RunConfig], protocol: Protocol, *, skip: bool = True
) -> list[EvaluationRecord]:
    """Attack the targets of one model, data set and seed by a protocol; each record is kept in its directory.

    Interrupted and called again, it finds the adversarial sets that are done.

    Args:
        family: run directory -> configuration of each target, with that directory in it.
        protocol: what is tried.
        skip: whether images that have fooled every target are left out of further attacks.

    Raises:
        InputError: if an image, surrogate or target that it needs cannot be had, before anything is trained.
    """
    config = next(iter(family.values()))
    data = experiment.load_data(config.part(DataPart))
    x, y = data.test_set(protocol.images)
    require(
        len(y) == protocol.images, f"{protocol.images} test images for the protocol", f"{len(data.y_test)}"
    )
    targets = {each.target: trained.restore(each, data.spec, path) for path, each in family.items()}
    places = {each.target: path for path, each in family.items()}
    sets = _surrogate_sets(protocol.surrogates, config, data)
    own_sets = {
        name: AdversarialSets(
            target,
            places[name] / shared_paths.ADVERSARIAL,
            batch_size=shared_paths.BATCH,
            settings=settings(family[places[name]], data),
        )
        for name, target in targets.items()
    }
    found: dict[str, list] = {name: [] for name in targets}
    for epsilon in config.epsilons:
        for standing in _attacked(targets, x, y, epsilon, protocol, sets, own_sets, skip):
            for name, results in standing.results.items():
                found[name] += results
    clean = Standing(targets, x, y).standing
    runs = {name: finished.read_record(path) for name, path in places.items()}
    records = [
        EvaluationRecord(
            **runs[name].common(),
            protocol=protocol.name,
            images=len(y),
            epsilons=config.epsilons,
            clean=packed(clean[name]),
            trials=tuple(found[name]),
            surrogates={key: each.told(x, y) for key, each in sets.items()},
            stored_as=protocol.stored_as,
            query_images=protocol.query_images,
            images_digest=images_and_labels_digest(x, y),
            paper=tuple(result for result in runs[name].results if result.attack == WORST_CASE),
            analysis=environment.environment(),
        )
        for name in targets
    ]
    for record in records:
        path = places[record.target] / run_directory.evaluation(protocol.name)
        checked_json.write_checked(path, record.to_json())
    return records


def _attacked(targets, x, y, epsilon, protocol: Protocol, sets, own_sets, skip) -> list[Standing]:
    """The outcomes of all attacks at one epsilon: by transfer, then on each target itself."""
    options: dict[str, Any] = {"stored_as": protocol.stored_as, "skip": skip}
    from_outside, from_inside = (Standing(targets, x, y, **options) for _ in range(2))
    from_outside.by_transfer(sets, _attempts(protocol.transfer, epsilon))
    from_inside.by_gradients(own_sets, _attempts(protocol.white_box, epsilon))
    return [from_outside, from_inside]


def _attempts(trials: Sequence[Trial], epsilon: float) -> list[Attempt]:
    return [
        Attempt(make_attack(trial.attack, ThreatModel(epsilon), **trial.params), trial.versions)
        for trial in trials
    ]


def _surrogate_sets(
    surrogate_names: Sequence[str], config: RunConfig, data: ImageData
) -> dict[str, AdversarialSets]:
    """Name of each surrogate -> its adversarial sets; files are read before anything is trained."""
    meant = [surrogate(name, config) for name in surrogate_names]
    files = {path: _load(path, data) for each in meant for path in each.files}
    return {each.name: _sets_of(each, files, config, data) for each in meant}


def _sets_of(
    meant: Surrogate, files: Mapping[str, Any], config: RunConfig, data: ImageData
) -> AdversarialSets:
    """The sets of one surrogate, which is trained if need be."""
    trained_now = [shared_ensembles.ensemble(base, data) for base in meant.trained]
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
