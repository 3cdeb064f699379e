"""One target from training to report: section 4 of the paper, stage by stage."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from divtf.data.datasets import DatasetSpec, ImageData, load_dataset
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import require
from divtf.evaluation.stored import require_storable
from divtf.pipeline import board, exports, preflight, shared_ensembles, tracking, trained
from divtf.pipeline.config import RunConfig
from divtf.pipeline.finished import read_record
from divtf.pipeline.parts import DataPart, OutputPart
from divtf.pipeline.plan import Plan, Work, make_plan
from divtf.pipeline.record import attack, make_record
from divtf.pipeline.results import try_page
from divtf.pipeline.static_images import static_changes
from divtf.pipeline.surrogates import static_models
from divtf.reporting import report
from divtf.runtime import devices
from divtf.runtime.logs import get_logger
from divtf.runtime.workers import Team
from divtf.storage import checked_json, files, run_directory
from divtf.storage.digests import digest
from divtf.training.trackers import require_trackers

_LOG = get_logger(__name__)


def run(config: RunConfig, *, wait: bool = False) -> Path:
    """Train a target, attack it by transfer from a surrogate, report and export.

    A surrogate or static ensemble that is not there yet is trained first, in `shared-models` beside the
    run directory, where runs of the same data set, model and budget find it. Progress is logged, see
    `runtime.logs`.

    With strategy "multi_worker" each worker of TF_CONFIG calls this with the same configuration, on storage
    that they share. All take part in each training; the chief, which alone writes, does the rest.

    Args:
        config: what to do.
        wait: whether to wait for another process that holds the run directory.

    Returns:
        The run directory: config.json, metrics.jsonl, checkpoints/, tensorboard/, ensemble.keras,
        results.json, report.html, report.md, table.csv, pictures and, if asked for, saved_model/ and
        other exports.

    Raises:
        InputError: for input that does not fit, as another run's directory.
    """
    require(isinstance(config, RunConfig), "a RunConfig", f"{config!r:.80}")
    directory, output = Path(config.run_dir), config.part(OutputPart)
    _seed(config)
    team = devices.team(config.strategy)  # First: joining a cluster is what TensorFlow starts with.
    if not team.is_chief:
        _assist(config, team)
        return directory
    # What the user can mend is found out first, so that a refused run leaves no directory behind.
    preflight.require_fast_precision(config.precision)
    require_trackers(config.track or ())
    plan = make_plan(output)
    team.from_chief(plan.work)
    data = None
    if plan.work:
        data = load_data(config.part(DataPart))
        preflight.require_memory(config, data)
        _require_models(config, data.spec)
        require_storable(config.stored_as or "float32", (1, *data.spec.image_shape))
    opened = run_directory.open_run(directory, config.identity(), resume=config.resume, wait=wait)
    with opened, tracking.tracked(config) as tracked:
        _carry_out(plan.checked(output), config, data, tracked.listeners())
        tracked.finish(config, read_record(directory))
    return directory


def require_possible(configs: Iterable[RunConfig]) -> None:
    """Refuse runs of which one could not train its model, before the first of them takes its hours.

    Raises:
        InputError: says what is wrong with it.
    """
    loaded, known = functools.cache(load_data), set()
    for config in configs:
        told = digest(config.training() | {"seed": None})
        if told not in known and make_plan(config.part(OutputPart)).work:
            known.add(told)
            _require_models(config, loaded(config.part(DataPart)).spec)


def _require_models(config: RunConfig, spec: DatasetSpec) -> None:
    """Refuse a run of which one could not train the model, or one of its static ones."""
    static = static_models(config) if config.defence.adversarial else []
    for each in (config, *static):
        trained.require_model(each, spec)


def _carry_out(
    plan: Plan, config: RunConfig, data: ImageData | None, listeners: Sequence[keras.callbacks.Callback]
) -> None:
    """Do what is still to do, in the run directory that this process holds."""
    directory, output = Path(config.run_dir), config.part(OutputPart)
    if plan.damage:
        _LOG.info(f"{plan.damage}; measuring again")
    if plan.measured:
        trained.mend_metrics(config, directory)
        commit = read_record(directory).provenance.get("commit") or "an unknown commit"
        results = directory / run_directory.RESULTS
        _LOG.info(f"finished before, at {commit}: the figures are those of {results}")
    if plan.work and data is not None:
        target, seconds = _train(config, data, listeners)
        if not plan.measured:
            _keep(target, directory / run_directory.ENSEMBLE)
            record = make_record(config, data, target, seconds)
            board.show_record(config, record)
            checked_json.write_checked(directory / run_directory.RESULTS, record.to_json())
        if plan.exporting:
            exports.export(target, output, data)
    if not plan.measured or not (directory / report.REPORT).is_file():
        try_page(directory)
        report.write_report(directory, [read_record(directory)])  # Last: where it is, all else is.


def _keep(target: Ensemble, path: Path) -> None:
    """Write the ensemble for `keras.models.load_model`, without the state of its training."""
    plain = Ensemble.from_config(target.get_config())
    plain.set_weights(target.get_weights())
    with files.atomic_path(path) as partial:
        plain.save(partial)


def _assist(config: RunConfig, team: Team) -> None:
    """What a worker other than the chief does: its share of every training, in the chief's order.

    That holds for the surrogate and the static model too: trained by all they take no longer than a target,
    no worker waits for minutes without a word, and a checkpoint of theirs is gone on with in the same way.
    """
    if work := team.from_chief(Work.NOTHING):
        data = load_data(config.part(DataPart))
        _train(config, data)
        if work == Work.ALL and config.attacks:
            shared_ensembles.ensemble(config.base(config.surrogate_seed), data)
    _LOG.info("this worker's part, the training, is done; the chief evaluates by itself")


def _train(
    config: RunConfig, data: ImageData, listeners: Sequence[keras.callbacks.Callback] = ()
) -> tuple[Ensemble, float]:
    changes = static_changes(config, data)
    return trained.train(config, data, Path(config.run_dir), changes=changes, listeners=listeners)


def summary(output: OutputPart) -> str:
    """Where a finished run's report, pictures, curves and model lie."""
    directory = Path(output.run_dir)
    names = ["report.html", "report.md", "coherence.png", "accuracy.png", run_directory.TENSORBOARD]
    lines = [f"  {name:<14} {directory / name}" for name in names if (directory / name).exists()]
    return "\n".join([*lines, *exports.summary(output)])


def share(config: RunConfig, seed: int) -> None:
    """Make one of the ensembles of `shared_paths.seeds` with its adversarial sets, before runs need them.

    Such runs, started together, would wait for each other's ensemble, and make each set several times.
    """
    _seed(config)
    data = load_data(config.part(DataPart))
    trained.require_model(config, data.spec)
    if seed == config.static_seed:
        static_changes(config, data)
    else:
        attack(config, data, {})


def load_data(part: DataPart) -> ImageData:
    """The images of a run, as many as it is to have.

    Raises:
        InputError: if they cannot be had.
    """
    settings = dataclasses.asdict(part)
    return load_dataset(settings.pop("dataset"), **settings)


def _seed(config: RunConfig) -> None:
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
