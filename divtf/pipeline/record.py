"""What a run measures on its target: accuracy under attack, and the alignment of the input gradients."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from divtf.attacks.attack import Attack, make_attack
from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData
from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.gradients import gradient_statistics
from divtf.evaluation.model_digests import weights_digest
from divtf.evaluation.stored import as_stored
from divtf.evaluation.transfer import evaluate_transfer
from divtf.networks import names
from divtf.pipeline import board, shared_ensembles, shared_paths
from divtf.pipeline.budget import budget, settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.examples import examples, strongest
from divtf.pipeline.leaking import on_static_models
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, run_directory
from divtf.storage.digests import digest
from divtf.storage.examples import ExamplesRecord
from divtf.storage.records import TargetRecord, TransferResult

_LOG = get_logger(__name__)
# Test images for coherence.
_ALIGNMENT_IMAGES = 2000


def make_record(config: RunConfig, data: ImageData, target: Ensemble, seconds: float) -> TargetRecord:
    """Measure the target of a run, which was trained for so many seconds."""
    directory = Path(config.run_dir)
    results = attack(config, data, {config.target: target}, shown_in=directory)
    alignment = _alignment(target, data) if config.num_members > 1 else {}
    trained = {
        "hours": seconds / 3600,
        "weights": weights_digest(target),
        "training": _training_digest(config, data),
    }
    return TargetRecord(
        target=config.target,
        model=config.model_name,
        dataset=config.dataset_name,
        seed=config.seed,
        results=tuple(results),
        budget=budget(config, data),
        class_names=data.spec.class_names,
        on_static_models=on_static_models(config, data, target),
        provenance=run_directory.environment_of(directory) | trained,
        **alignment,
    )


def _training_digest(config: RunConfig, data: ImageData) -> str:
    """Of all that the weights depend on but seeds and where images of the user's own lie."""
    apart = {"seed": None, "static_seed": None}
    images = {"dataset": config.dataset_name, "images": data.spec.fingerprint}
    files = [file.digest for file in names.files_of(config.model)]
    return digest(config.training() | apart | images | {"model": files or config.model})


def attack(
    config: RunConfig, data: ImageData, targets: Mapping[str, Ensemble], shown_in: Path | None = None
) -> list[TransferResult]:
    """Attack the surrogate, and score each target; without targets this makes the adversarial sets only."""
    x, y = test_set = data.test_set()
    attacked = x[: config.max_attack_examples], y[: config.max_attack_examples]
    if not config.attacks:
        return evaluate_transfer(None, targets, attacked, [], clean=test_set, batch_size=shared_paths.BATCH)
    places = itertools.product(config.epsilons, config.attacks)
    attacks = [make_attack(name, ThreatModel(epsilon)) for epsilon, name in places]
    base = config.base(config.surrogate_seed)
    surrogate, directory = shared_ensembles.ensemble(base, data)
    sets = shared_ensembles.adversarial_sets(surrogate, directory, settings(base, data))
    results = evaluate_transfer(
        sets,
        targets,
        attacked,
        attacks,
        clean=test_set,
        surrogate_name=directory.name,
        stored_as=config.stored_as or "float32",
        batch_size=shared_paths.BATCH,
    )
    if shown_in:
        images = {each: sets.images(each, *attacked)[0] for each in _largest(attacks)}
        board.show_images(attacked[0], images, shown_in)
        _keep_examples(config, data, targets[config.target], attacked, sets, results)
    return results


def _keep_examples(
    config: RunConfig,
    data: ImageData,
    target: Ensemble,
    attacked: tuple[Any, np.ndarray],
    sets: AdversarialSets,
    results: Sequence[TransferResult],
) -> None:
    """A few images and what the members make of them, beside the record."""
    shown = {}
    for result in strongest(results):
        images, _ = sets.images(make_attack(result.attack, ThreatModel(result.epsilon)), *attacked)
        shown[result.attack, result.epsilon] = as_stored(images, result.stored_as)
    surrogate = next((result.surrogate for result in results if result.surrogate), "")
    record = ExamplesRecord(
        target=config.target,
        model=config.model_name,
        dataset=config.dataset_name,
        seed=config.seed,
        examples=examples(target, *attacked, shown),
        surrogate=surrogate,
        class_names=data.spec.class_names,
    )
    checked_json.write_checked(Path(config.run_dir) / run_directory.EXAMPLES, record.to_json())


def _alignment(target: Ensemble, data: ImageData) -> dict[str, Any]:
    """The fields of a record that tell of the input gradients."""
    _LOG.info("measures coherence")
    statistics = gradient_statistics(target, *data.test_set(_ALIGNMENT_IMAGES))
    gradients = ("gal", "zero_entries", "zero_products")
    return {
        "coherence": tuple(statistics.coherence.tolist()),
        "pair_cosines": tuple(map(tuple, statistics.pair_cosines.tolist())),
        "gradients": {name: getattr(statistics, name) for name in gradients},
    }


def _largest(attacks: Sequence[Attack]) -> list[Attack]:
    """The attacks of the largest epsilon."""
    largest = max(attack.threat.epsilon for attack in attacks)
    return [attack for attack in attacks if attack.threat.epsilon == largest]
