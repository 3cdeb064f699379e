"""The evaluation of trained targets by a protocol: surrogates, attacks in turn, and what is left."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from divtf.attacks.attack import Attack, make_attack, towards
from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData
from divtf.ensembles.ensemble import Ensemble
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.guarded import Guarded
from divtf.evaluation.stored import require_storable
from divtf.evaluation.surrogates import images_and_labels_digest, warn_of_weak
from divtf.evaluation.trials import Attempt, Standing, draws
from divtf.pipeline import evaluation_checks, experiment, finished, shared_paths, trained
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import DataPart
from divtf.pipeline.protocols import Protocol, Trial
from divtf.pipeline.surrogate_sets import SurrogatePlan
from divtf.pipeline.surrogates import require_alike
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, environment, run_directory
from divtf.storage.evaluations import KINDS, TRANSFER, WHITE_BOX, EvaluationRecord, TrialResult
from divtf.storage.records import WORST_CASE, packed, unpacked

_LOG = get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class _Attacks:
    """What a protocol tries at one epsilon."""

    transfer: Sequence[Attempt]
    white_box: Sequence[Attempt]
    square: Attack | None


@dataclasses.dataclass(frozen=True)
class _Target:
    """A trained target, its directory, and what is kept there of attacks on it."""

    ensemble: Ensemble
    directory: Path
    sets: AdversarialSets


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """Targets of one model, data set and seed, with all that their evaluation needs but trained surrogates.

    Attributes:
        data: training and test images.
        attacks: epsilon, ascending -> what is tried at it.
        targets: by their names.
        surrogates: what is to be trained, and what was read.
    """

    data: ImageData
    attacks: Mapping[float, _Attacks]
    targets: Mapping[str, _Target]
    surrogates: SurrogatePlan


def evaluate_all(
    families: Iterable[Mapping[Path, RunConfig]], protocol: Protocol, *, skip: bool = True
) -> list[EvaluationRecord]:
    """Attack targets by a protocol; each one's record is kept in its directory.

    Interrupted and called again, it finds what is done.

    Args:
        families: of each model, data set and seed the targets: run directory -> configuration, with that
            directory in it.
        protocol: what is tried.
        skip: whether images that have fooled every target of a family are left out of further attacks.

    Raises:
        InputError: if an attack, image, surrogate or target that it needs cannot be had, before anything is
            trained for any of them.
    """
    families = list(families)
    require_alike(config for family in families for config in family.values())
    load_data = functools.cache(experiment.load_data)  # Seeds share their images.
    waiting = [_prepared(family, protocol, load_data) for family in families]
    records = []
    while waiting:  # What is done leaves memory.
        records += _evaluated(waiting.pop(0), protocol, skip)
    return records


def _prepared(
    family: Mapping[Path, RunConfig], protocol: Protocol, load_data: Callable[[DataPart], ImageData]
) -> _Prepared:
    """All that an evaluation needs but trained surrogates.

    Raises:
        InputError: if something cannot be had.
    """
    data, surrogates, attacks = _possible(list(family.values()), protocol, load_data)
    targets = {each.target: _target(each, path, data) for path, each in family.items()}
    return _Prepared(data, attacks, targets, surrogates)


def require_possible(configs: Iterable[RunConfig], protocol: Protocol) -> None:
    """Read images and surrogates' files, before a target is trained.

    Raises:
        InputError: if targets of these configurations could not be evaluated by the protocol.
    """
    for config in {config.part(DataPart): config for config in configs}.values():
        _possible([config], protocol, experiment.load_data)


def _possible(
    configs: Sequence[RunConfig], protocol: Protocol, load_data: Callable[[DataPart], ImageData]
) -> tuple[ImageData, SurrogatePlan, dict[float, _Attacks]]:
    """What an evaluation has beside its targets, which are of one model, data set and seed.

    Raises:
        InputError: if something cannot be had.
    """
    data = load_data(configs[0].part(DataPart))
    count = protocol.images_of(len(data.x_test))
    require_storable(protocol.stored_as, (count, *data.spec.image_shape))
    epsilons = sorted(configs[0].epsilons)
    attacks = {epsilon: _attacks(protocol, epsilon, data.spec.num_classes) for epsilon in epsilons}
    return data, SurrogatePlan.of(protocol.surrogates, configs, data), attacks


def _evaluated(prepared: _Prepared, protocol: Protocol, skip: bool) -> list[EvaluationRecord]:
    """Train the surrogates, attack the targets, and keep their records."""
    data, targets, attacks = prepared.data, prepared.targets, list(prepared.attacks.values())
    x, y = data.test_set(protocol.images)
    surrogates = prepared.surrogates.sets()
    results: dict[str, list[TrialResult]] = {name: [] for name in targets}
    ensembles = {name: target.ensemble for name, target in targets.items()}
    clean = Standing(ensembles, x, y, stored_as=protocol.stored_as, skip=skip)
    for tried in attacks:
        for standing in _standing(clean, targets, surrogates, tried, protocol):
            for name, found in standing.results.items():
                results[name] += found
    told = {name: sets.told(x, y) for name, sets in surrogates.items()}
    warn_of_weak(max(each["clean accuracy"] for each in told.values()), clean.standing)
    records = [
        _record(target, clean.standing[name], x, y, protocol, tuple(prepared.attacks), results[name], told)
        for name, target in targets.items()
    ]
    if protocol.checks:
        records = [
            _checked(record, targets[record.target].sets, surrogates, attacks[0], data, x, y)
            for record in records
        ]
    for record in records:
        directory = targets[record.target].directory
        path = directory / run_directory.evaluation(protocol.name)
        earlier = finished.read_evaluation(directory, protocol.name)
        if earlier and earlier.images > record.images:
            _LOG.warning(f"{path} was of {earlier.images} images, and is of {record.images} now")
        checked_json.write_checked(path, record.to_json())
    return records


def _target(config: RunConfig, path: Path, data: ImageData) -> _Target:
    ensemble = trained.restore(config, data.spec, path)
    sets = AdversarialSets(
        ensemble,
        path / shared_paths.ADVERSARIAL,
        batch_size=shared_paths.BATCH,
        settings=settings(config, data),
        # Attacks refuse a model without gradients; the checks for masked ones are to tell of it.
        attacked=Guarded(ensemble),
    )
    return _Target(ensemble, path, sets)


def _standing(
    clean: Standing,
    targets: Mapping[str, _Target],
    surrogates: Mapping[str, AdversarialSets],
    attacks: _Attacks,
    protocol: Protocol,
) -> list[Standing]:
    """What the attacks of one epsilon did; under each kind all images stand at first."""
    by_transfer, by_gradients, by_queries = (clean.untried() for _ in KINDS)
    by_transfer.by_transfer(surrogates, attacks.transfer)
    own_sets = {name: target.sets for name, target in targets.items()}
    by_gradients.by_gradients(own_sets, attacks.white_box)
    if attacks.square:
        left = {name: by_transfer.standing[name] & by_gradients.standing[name] for name in targets}
        by_queries.by_queries(own_sets, attacks.square, protocol.query_images, left)
    return [by_transfer, by_gradients, by_queries]


def _record(
    target: _Target,
    clean: np.ndarray,
    x: Any,
    y: np.ndarray,
    protocol: Protocol,
    epsilons: tuple[float, ...],
    results: Sequence[TrialResult],
    surrogates: Mapping[str, Mapping[str, Any]],
) -> EvaluationRecord:
    run = finished.read_record(target.directory)
    return EvaluationRecord(
        **run.common(),
        protocol=protocol.name,
        images=len(y),
        epsilons=epsilons,
        clean=packed(clean),
        trials=tuple(results),
        surrogates=surrogates,
        stored_as=protocol.stored_as,
        query_images=min(protocol.query_images, len(y)) if protocol.queries else 0,
        images_digest=images_and_labels_digest(x, y),
        paper=tuple(result for result in run.results if result.attack == WORST_CASE),
        analysis=environment.environment(),
        changed=protocol.changed,
    )


def _checked(
    record: EvaluationRecord,
    sets: AdversarialSets,
    surrogates: Mapping[str, AdversarialSets],
    attacks: _Attacks,
    data: ImageData,
    x: Any,
    y: np.ndarray,
) -> EvaluationRecord:
    """The record with its checks, and with the detection of the first attack of each kind by gradients."""
    first = {trial.kind: trial for trial in reversed(record.trials)}
    name, of_surrogate = next(iter(surrogates.items()))
    made = {
        f"{first[TRANSFER].attack} from {name}": (of_surrogate, attacks.transfer[0], first[TRANSFER]),
        f"{first[WHITE_BOX].attack} on the target": (sets, attacks.white_box[0], first[WHITE_BOX]),
    }
    attacked, start = {}, np.array(x)
    for title, (source, attempt, trial) in made.items():
        numbers = np.flatnonzero(np.array(unpacked(trial.tried, len(y))))
        if len(numbers):
            seed = draws(attempt.attack, trial.version)
            images, _ = source.images(attempt.attack, x, y, numbers=numbers, seed=seed)
            attacked[title] = images, y[numbers], np.array(record.clean_hits)[numbers]
            if trial.kind == WHITE_BOX:
                start[numbers] = images
    checked = evaluation_checks.checked(record, sets, x, y)
    return evaluation_checks.detected(checked, sets, data.test_set(), attacked, start)


def _attacks(protocol: Protocol, epsilon: float, classes: int) -> _Attacks:
    square = None
    if protocol.queries:
        square = make_attack("square", ThreatModel(epsilon), queries=protocol.queries)
    transfer, white_box = (
        _attempts(trials, epsilon, classes) for trials in (protocol.transfer, protocol.white_box)
    )
    return _Attacks(transfer, white_box, square)


def _attempts(trials: Sequence[Trial], epsilon: float, classes: int) -> list[Attempt]:
    """The trials that images of so many classes admit."""
    return [
        Attempt(_attack(trial, epsilon), trial.versions, trial.rank)
        for trial in trials
        if classes >= trial.classes
    ]


def _attack(trial: Trial, epsilon: float) -> Attack:
    attack = make_attack(trial.attack, ThreatModel(epsilon), **trial.params)
    return towards(attack, f"{trial.attack}_to_{trial.rank}") if trial.rank else attack
