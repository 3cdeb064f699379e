"""Trained ensembles: built, trained in a run directory or gone on with, and restored from there."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from divtf.data.datasets import DatasetSpec, ImageData
from divtf.data.mixture import Mixture
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.objectives import names as objectives
from divtf.ensembles.objectives.registry import make_objective
from divtf.errors import InputError, require
from divtf.networks import names
from divtf.networks.models import build_members
from divtf.pipeline import own_models, preflight, shared_paths
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import EnsemblePart
from divtf.runtime import devices
from divtf.runtime.logs import get_logger
from divtf.runtime.workers import Team
from divtf.storage import run_directory
from divtf.storage.digests import digest
from divtf.training import fit
from divtf.training.checkpoints import Checkpoints, State
from divtf.training.settings import Settings

_LOG = get_logger(__name__)


def build_ensemble(part: EnsemblePart, spec: DatasetSpec, *, precision: str = "float32") -> Ensemble:
    """A new ensemble, not compiled."""
    return Ensemble(_new_members(part, spec, precision), _objective(part), memory=part.memory)


def _objective(part: EnsemblePart) -> Any:
    return make_objective(part.objective_name, **part.objective_settings)


def _new_members(part: EnsemblePart, spec: DatasetSpec, precision: str) -> list[keras.Model]:
    return build_members(
        part.model,
        part.num_members,
        spec.image_shape,
        spec.num_classes,
        seed=part.seed,
        activation=part.activation,
        negative_slope=part.negative_slope,
        dtype=precision,
    )


def require_model(config: RunConfig, spec: DatasetSpec) -> None:
    """Refuse an objective that cannot be, or cannot train the members, before a directory is made.

    And a model or an objective of the user's own that cannot be made, trained or kept.

    Raises:
        InputError: says what is wrong with them.
    """
    part = config.part(EnsemblePart)
    _objective(part)
    own_objective = objectives.is_own(config.objective_name)
    if not (config.is_own or own_objective or config.objective_name in objectives.PARTICULAR):
        return
    ensemble = build_ensemble(part, spec, precision=config.precision)
    if config.is_own:
        own_models.require_kept(config.model_name, ensemble)
    if own_objective:
        own_models.require_objective(config, ensemble, spec)
    if not config.is_own:
        return
    for seed in shared_paths.seeds(config).values():
        base = config.base(seed)
        directory = shared_paths.directory_of(base)
        state = _checkpoints(base, directory).restore()
        # Those of files have the same layers, but weights drawn anew: not every layer can be made again.
        members = _new_members(base.part(EnsemblePart), spec, config.precision)
        if state is not None:
            own_models.require_unchanged(state.ensemble, members, config, spec, directory)


def train(
    config: RunConfig,
    data: ImageData,
    directory: Path,
    *,
    changes: Sequence[Any] = (),
    listeners: Sequence[keras.callbacks.Callback] = (),
) -> tuple[Ensemble, float]:
    """Train the configuration's ensemble, or go on from the newest checkpoint in the directory.

    Args:
        config: of the run.
        data: training and test images.
        directory: a run directory that this process holds; on several workers, that the chief holds, and
            that all of them can read.
        changes: of the training images by static attacks, as `Mixture` takes them, for modes ens and ens_div.
        listeners: callbacks that only look on.

    Returns:
        The trained ensemble in float32, whatever the precision of its training, and the seconds spent
        training it, interruptions not counted. After training on several workers it is a copy on this
        one, which each may use without the others.

    Raises:
        InputError: if training meets a loss or gradient that is not finite, or loses a worker; the last
            checkpoint stays.
    """
    preflight.require_fast_precision(config.precision)
    own_models.import_code(config)
    team, settings = devices.team(config.strategy), config.part(Settings)
    mixture = _mixture(config, data, changes)
    total = mixture.steps_per_epoch * settings.epochs
    checkpoints = _checkpoints(config, directory)
    if team.is_chief:
        checkpoints.mend_metrics(directory / run_directory.METRICS)
    _require_agreement(team, config, checkpoints, directory, data.spec.fingerprint)
    with team.scope():
        state = checkpoints.restore() or _new_state(config, data.spec, total)
    # Whatever it was before an interruption: numbers are the same.
    state.ensemble.memory = config.memory
    if state.step:
        _LOG.info(_found(state, total))
        # A checkpoint's is what `get_config` told of it: one of the user's own may have left some out.
        state.ensemble.objective = _objective(config.part(EnsemblePart))
        _require_same_training(state, config, data.spec, directory, team)
    # Outside the scope: what Keras makes on the way, as to save, would take all workers.
    if state.step < total:
        images = f"{mixture.examples_per_epoch} images"
        members = f"{config.num_members} x {config.model_name}"
        _LOG.info(f"trains {config.target}: {members}, {settings.epochs} epochs of {images}")
        fit.fit(
            state,
            settings,
            mixture,
            directory=directory,
            checkpoints=checkpoints,
            team=team,
            listeners=listeners,
        )
    return _for_evaluation(state.ensemble, config, data.spec, team), state.seconds


def _mixture(config: RunConfig, data: ImageData, changes: Sequence[Any]) -> Mixture:
    return Mixture(
        data,
        config.defence.sources,
        config.largest_epsilon,
        config.batch_size,
        config.seed,
        changes,
        uniform_budgets=config.static_budgets == "uniform",
    )


def _new_state(config: RunConfig, spec: DatasetSpec, total: int) -> State:
    """That of training before its first of so many steps."""
    ensemble = build_ensemble(config.part(EnsemblePart), spec, precision=config.precision)
    ensemble.compile(fit.optimizer(config.part(Settings), total))
    # Otherwise the first step makes its variables, and has to be traced a second time without that.
    ensemble.optimizer.build(ensemble.trainable_variables)
    return State(ensemble=ensemble, images=spec.fingerprint)


def _found(state: State, total: int) -> str:
    """What a checkpoint is of, in words."""
    if state.step >= total:
        return f"was trained before: step {state.step} of {total}"
    earlier = "" if state.images is not None else "; an earlier version began it: other shifts and noise"
    return f"goes on from step {state.step} of {total}{earlier}"


def _require_same_training(
    state: State, config: RunConfig, spec: DatasetSpec, directory: Path, team: Team
) -> None:
    """Refuse to go on with other images or another model of the user's own than it began with."""
    _require_same_images(state, config, spec, directory)
    if config.is_own and not team.has_several:
        anew = _new_members(config.part(EnsemblePart), spec, config.precision)
        own_models.require_unchanged(state.ensemble, anew, config, spec, directory)


def _require_same_images(state: State, config: RunConfig, spec: DatasetSpec, directory: Path) -> None:
    require(
        (state.images or "") == spec.fingerprint,
        f"the images of {config.dataset} as they were when training in {directory} began",
        "other ones; another --run_dir trains on them",
    )


def restore(config: RunConfig, spec: DatasetSpec, directory: Path) -> Ensemble:
    """The trained ensemble of a finished run, in float32.

    Raises:
        InputError: if the directory has no whole checkpoint, or only one from before the end of training,
            or if that is of other images.
    """
    own_models.import_code(config)
    state = _checkpoints(config, directory).restore()
    trained = len(state.history) if state else 0
    if state is None or trained < config.epochs:
        received = f"one of epoch {trained}" if state else "none"
        raise InputError(
            f"Expected a whole checkpoint of epoch {config.epochs}, the last one, in "
            f"{directory / run_directory.CHECKPOINTS}. Received: {received}; "
            f"without {run_directory.RESULTS} --resume makes it anew"
        )
    _require_same_images(state, config, spec, directory)
    return _for_evaluation(state.ensemble, config, spec, devices.team(config.strategy))


def mend_metrics(config: RunConfig, directory: Path) -> None:
    """Write the metrics of a finished run again if they are not those that its checkpoint remembers."""
    _checkpoints(config, directory).mend_metrics(directory / run_directory.METRICS, finished=True)


def _checkpoints(config: RunConfig, directory: Path) -> Checkpoints:
    return Checkpoints(directory / run_directory.CHECKPOINTS, run=digest(config.training()))


def _require_agreement(
    team: Team, config: RunConfig, checkpoints: Checkpoints, directory: Path, images: str
) -> None:
    """Hold all workers to the chief's configuration, images and checkpoint, before they make anything.

    Raises:
        InputError: on a worker that has others; the chief then learns that it is gone.
    """
    if not team.has_several:  # The newest checkpoint need not be read twice.
        return
    training = config.training()
    team.require_same(
        training, "the chief's configuration on every worker", f"another one: {digest(training)}"
    )
    team.require_same(images, f"the chief's images of {config.dataset} on every worker", "other ones here")
    step = checkpoints.newest_step()
    chiefs = team.from_chief(step)
    team.require_same(
        step,
        f"the chief's checkpoint of step {chiefs} in {directory} on every worker: they are to share storage",
        f"that of step {step}",
    )


def _for_evaluation(ensemble: Ensemble, config: RunConfig, spec: DatasetSpec, team: Team) -> Ensemble:
    """The ensemble in float32, on the devices of this process."""
    if config.precision == "float32" and not team.has_several:
        return ensemble
    with contextlib.nullcontext() if team.has_several else team.strategy.scope():
        exact = _untrained(ensemble, config, spec)
        exact.set_weights(ensemble.get_weights())
        exact.compile()
    return exact


def _untrained(ensemble: Ensemble, config: RunConfig, spec: DatasetSpec) -> Ensemble:
    """One of the same layers in float32; files that it went on from may be elsewhere by now."""
    if names.files_of(config.model):
        return Ensemble.from_config(ensemble.get_config())
    return Ensemble(
        _new_members(config.part(EnsemblePart), spec, "float32"), ensemble.objective, memory=ensemble.memory
    )
