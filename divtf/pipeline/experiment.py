"""One target from training to report: section 4 of the paper, stage by stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf.attacks.attack import make_attack
from divtf.attacks.threat import ThreatModel
from divtf.data.datasets import ImageData, load_dataset
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.gradients import gradient_statistics
from divtf.evaluation.model_digests import weights_digest
from divtf.evaluation.transfer import evaluate_transfer
from divtf.pipeline import preflight, shared_ensembles, shared_paths
from divtf.pipeline.budget import budget
from divtf.pipeline.config import RunConfig
from divtf.pipeline.exports import export, export_path, wants_export
from divtf.pipeline.finished import read_record
from divtf.pipeline.modes import MODES
from divtf.pipeline.trained import mend_metrics, train
from divtf.reporting import report
from divtf.runtime import devices, workers
from divtf.storage import checked_json, run_directory
from divtf.storage.records import TargetRecord, TransferResult

# Test images for coherence, and images shown in TensorBoard.
_ALIGNMENT_IMAGES = 2000
_SHOWN_IMAGES = 8
# What is trained: nothing, the target (or its checkpoint read), the surrogate too.
_NOTHING, _TARGET, _ALL = range(3)


def run(
    config: RunConfig,
    say: Callable[[str], object] = print,
    waiting: Callable[[str], object] | None = None,
) -> Path:
    """Train a target, attack it by transfer from a surrogate, report and export.

    A surrogate or static ensemble that is not there yet is trained first, in `shared-models` beside the
    run directory, where runs of the same data set, model and budget find it.

    With strategy "multi_worker" each worker of TF_CONFIG calls this with the same configuration, on storage
    that they share. All take part in each training; the chief, which alone writes, does the rest.

    Args:
        config: what to do; None in it takes the paper's value.
        say: takes a line of progress.
        waiting: what to do while another process holds the run directory, as in `run_dir.open_run`.

    Returns:
        The run directory: config.json, metrics.jsonl, checkpoints/, tensorboard/, results.json,
        report.md, table.csv, pictures and, if asked for, saved_model/.

    Raises:
        InputError: for input that does not fit, as another run's directory.
    """
    require(isinstance(config, RunConfig), "a RunConfig", f"{config!r:.80}")
    config = config.resolved()
    directory = Path(config.run_dir)
    _seed(config)
    on = devices.strategy(config.strategy)  # First: joining a cluster is what TensorFlow starts with.
    if not workers.is_chief(on):
        _assist(config, on, say)
        return directory
    # What the user can mend is found out first, so that a refused run leaves no directory behind.
    preflight.require_fast_precision(config.precision)
    damage, exporting = _damage(directory / run_directory.RESULTS), wants_export(config, directory)
    finished = damage is None
    data = load_data(config) if workers.from_chief(on, _plan(finished, exporting)) else None
    if data is not None:
        preflight.require_memory(config, data)
    with run_directory.open_run(directory, config.identity(), resume=config.resume, waiting=waiting):
        # Looked at again: whoever held the directory before may have finished the run.
        damage, exporting = (
            _damage(directory / run_directory.RESULTS),
            exporting and wants_export(config, directory),
        )
        finished = damage is None
        if damage:
            say(f"{damage}; measuring again")
        if finished:
            mend_metrics(config, directory, say)
            commit = read_record(directory).provenance.get("commit") or "an unknown commit"
            say(f"finished before, at {commit}: the figures are those of {directory / run_directory.RESULTS}")
        if data is not None and (exporting or not finished):
            target, seconds = _train(config, data, directory, say)
            if not finished:
                record = _evaluate(config, data, target, seconds, directory, say)
                checked_json.write_checked(directory / run_directory.RESULTS, record.to_json())
            if exporting:
                export(target, export_path(config, directory), directory)
        if not finished or not (directory / report.REPORT).is_file():
            report.write_report(directory, [read_record(directory)])
    return directory


def _plan(finished: bool, exporting: bool) -> int:
    """What all workers are to do together."""
    return _ALL if not finished else _TARGET if exporting else _NOTHING


def _assist(config: RunConfig, on: tf.distribute.Strategy, say: Callable[[str], object]) -> None:
    """What a worker other than the chief does: its share of every training, in the chief's order.

    That holds for the surrogate and the static model too: trained by all they take no longer than a target,
    no worker waits for minutes without a word, and a checkpoint of theirs is gone on with in the same way.
    """
    if plan := workers.from_chief(on, _NOTHING):
        data = load_data(config)
        _train(config, data, Path(config.run_dir), say)
        if plan == _ALL and config.attacks:
            shared_ensembles.ensemble(config, config.surrogate_seed, data, say)
    say("this worker's part, the training, is done; the chief evaluates by itself")


def _damage(path: Path) -> str | None:
    """What is wrong with a file of results: nothing (None), that it is not there (""), or its damage."""
    if not path.exists():
        return ""
    try:
        checked_json.read_checked(path)
    except checked_json.DamagedError as error:
        return str(error)
    return None


def summary(directory: Path, config: RunConfig) -> str:
    """Where a finished run's report, pictures, curves and model lie."""
    names = ["report.md", "coherence.png", "accuracy.png", run_directory.TENSORBOARD]
    lines = [f"  {name:<14} {directory / name}" for name in names if (directory / name).exists()]
    if config.export is not None:
        lines.append(f"  {'SavedModel':<14} {export_path(config, directory)}")
    return "\n".join(lines)


def share(config: RunConfig, seed: int, say: Callable[[str], object] = print) -> None:
    """Make one of the ensembles of `shared_paths.seeds` with its adversarial sets, before runs need them.

    Such runs, started together, would wait for each other's ensemble, and make each set several times.
    """
    config = config.resolved()
    _seed(config)
    data = load_data(config)
    if seed == config.static_seed:
        shared_ensembles.static_signs(config, data, say)
    else:
        _attack(config, data, {}, say)


def _seed(config: RunConfig) -> None:
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _train(config: RunConfig, data: ImageData, directory: Path, say) -> tuple[Ensemble, float]:
    signs = None
    if "adversarial" in MODES[config.mode].sources:
        signs = shared_ensembles.static_signs(config, data, say)
    return train(config, data, directory, signs=signs, say=say)


def load_data(config: RunConfig) -> ImageData:
    """The images of the run, as many as it is to have.

    Raises:
        InputError: if they cannot be had.
    """
    config = config.resolved()
    return load_dataset(
        config.dataset,
        data_dir=config.data_dir,
        max_train_examples=config.max_train_examples,
        max_test_examples=config.max_test_examples,
    )


def _evaluate(config, data, target, seconds, directory, say) -> TargetRecord:
    results = _attack(config, data, {config.target: target}, say, shown_in=directory)
    x, y = data.test_set(_ALIGNMENT_IMAGES)
    aligned: dict[str, Any] = {}
    if config.num_members > 1:
        say("measures coherence")
        statistics = gradient_statistics(target, x, y)
        aligned = {
            "coherence": tuple(statistics.coherence.tolist()),
            "pair_cosines": tuple(map(tuple, statistics.pair_cosines.tolist())),
            "gradients": {
                name: getattr(statistics, name) for name in ("gal", "zero_entries", "zero_products")
            },
        }
    return TargetRecord(
        target=config.target,
        model=config.model,
        dataset=config.dataset,
        seed=config.seed,
        results=tuple(results),
        budget=budget(config, data),
        provenance=run_directory.environment_of(directory)
        | {"hours": seconds / 3600, "weights": weights_digest(target)},
        **aligned,
    )


def _attack(config, data, targets, say, shown_in: Path | None = None) -> list[TransferResult]:
    """Attack the surrogate, and score each target; without targets this makes the adversarial sets only."""
    x, y = data.test_set()
    attacked = slice(config.max_attack_examples)
    surrogate, home = None, None
    if config.attacks:
        surrogate, home = shared_ensembles.ensemble(config, config.surrogate_seed, data, say)
    attacks = [make_attack(a, ThreatModel(epsilon)) for epsilon in config.epsilons for a in config.attacks]
    results = evaluate_transfer(
        surrogate,
        targets,
        (x[attacked], y[attacked]),
        attacks,
        clean=(x, y),
        directory=home and home / shared_paths.ADVERSARIAL,
        surrogate_name=home.name if home else "",
        batch_size=shared_paths.BATCH,
        say=say,
    )
    if surrogate and home and shown_in:
        sets = shared_ensembles.adversarial_sets(surrogate, home, say)
        _show_images(sets, attacks, x[attacked], y[attacked], shown_in)
    return results


def _show_images(sets: AdversarialSets, attacks, x, y, directory: Path) -> None:
    """Clean images beside adversarial ones in TensorBoard, at the largest epsilon."""
    largest = max(attack.threat.epsilon for attack in attacks)
    writer = tf.summary.create_file_writer(str(directory / run_directory.TENSORBOARD))
    with writer.as_default(step=0):
        for attack in attacks:
            if attack.threat.epsilon == largest:
                x_adv, _ = sets.images(attack, x, y)
                pairs = np.concatenate([x[:_SHOWN_IMAGES], x_adv[:_SHOWN_IMAGES]], axis=2)
                name = f"clean and {attack.name}, epsilon {largest:g}"
                tf.summary.image(name, pairs, max_outputs=_SHOWN_IMAGES)
    writer.close()
