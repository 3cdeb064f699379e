"""The evaluation of trained targets by a protocol: surrogates, attacks in turn, and what is left."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divtf.attacks.attack import Attack, make_attack
from divtf.attacks.threat import ThreatModel
from divtf.errors import require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.query_counts import QueryCounts
from divtf.evaluation.surrogates import images_and_labels_digest
from divtf.evaluation.trials import Attempt, Standing
from divtf.pipeline import experiment, finished, shared_paths, trained
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import DataPart
from divtf.pipeline.protocols import Protocol, Trial
from divtf.pipeline.surrogate_sets import surrogate_sets
from divtf.storage import checked_json, environment, run_directory
from divtf.storage.evaluations import EvaluationRecord, TrialResult
from divtf.storage.records import WORST_CASE, packed


@dataclasses.dataclass(frozen=True)
class _Attacks:
    """What a protocol tries at one epsilon."""

    transfer: Sequence[Attempt]
    white_box: Sequence[Attempt]
    square: Attack | None


def evaluate(
    family: Mapping[Path, RunConfig], protocol: Protocol, *, skip: bool = True
) -> list[EvaluationRecord]:
    """Attack the targets of one model, data set and seed by a protocol; each record is kept in its directory.

    Interrupted and called again, it finds what is done.

    Args:
        family: run directory -> configuration of each target, with that directory in it.
        protocol: what is tried.
        skip: whether images that have fooled every target are left out of further attacks.

    Raises:
        InputError: if an attack, image, surrogate or target that it needs cannot be had, before anything is
            trained.
    """
    config = next(iter(family.values()))
    attacks = {epsilon: _attacks(protocol, epsilon) for epsilon in config.epsilons}
    data = experiment.load_data(config.part(DataPart))
    x, y = data.test_set(protocol.images)
    require(len(y) == protocol.images, f"at most {len(y)} images, as there are", f"images={protocol.images}")
    targets = {each.target: trained.restore(each, data.spec, path) for path, each in family.items()}
    surrogates = surrogate_sets(protocol.surrogates, config, data)
    places = {each.target: path for path, each in family.items()}
    own_sets = {
        name: AdversarialSets(
            targets[name],
            path / shared_paths.ADVERSARIAL,
            batch_size=shared_paths.BATCH,
            settings=settings(family[path], data),
        )
        for name, path in places.items()
    }
    counts = {
        name: QueryCounts(targets[name], path / shared_paths.ADVERSARIAL, protocol.stored_as)
        for name, path in places.items()
    }
    options: dict[str, Any] = {"stored_as": protocol.stored_as, "skip": skip}
    found: dict[str, list[TrialResult]] = {name: [] for name in targets}
    for tried in attacks.values():
        # Of each kind of attack an image is to withstand all, whatever another kind did to it.
        by_transfer, by_gradients, by_queries = (Standing(targets, x, y, **options) for _ in range(3))
        by_transfer.by_transfer(surrogates, tried.transfer)
        by_gradients.by_gradients(own_sets, tried.white_box)
        if tried.square:
            by_queries.by_queries(counts, tried.square, protocol.query_images)
        for name in targets:
            found[name] += [
                *by_transfer.results[name],
                *by_gradients.results[name],
                *by_queries.results[name],
            ]
    clean = Standing(targets, x, y).standing
    told = {name: sets.told(x, y) for name, sets in surrogates.items()}
    records = []
    for name, path in places.items():
        run = finished.read_record(path)
        record = EvaluationRecord(
            **run.common(),
            protocol=protocol.name,
            images=len(y),
            epsilons=config.epsilons,
            clean=packed(clean[name]),
            trials=tuple(found[name]),
            surrogates=told,
            stored_as=protocol.stored_as,
            query_images=protocol.query_images if protocol.queries else 0,
            images_digest=images_and_labels_digest(x, y),
            paper=tuple(result for result in run.results if result.attack == WORST_CASE),
            analysis=environment.environment(),
        )
        checked_json.write_checked(path / run_directory.evaluation(protocol.name), record.to_json())
        records.append(record)
    return records


def _attacks(protocol: Protocol, epsilon: float) -> _Attacks:
    square = None
    if protocol.queries:
        square = make_attack("square", ThreatModel(epsilon), queries=protocol.queries)
    return _Attacks(_attempts(protocol.transfer, epsilon), _attempts(protocol.white_box, epsilon), square)


def _attempts(trials: Sequence[Trial], epsilon: float) -> list[Attempt]:
    return [
        Attempt(make_attack(trial.attack, ThreatModel(epsilon), **trial.params), trial.versions)
        for trial in trials
    ]
