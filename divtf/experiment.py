"""One target from training to report: section 4 of the paper, stage by stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf import distribution, preflight, report, run_dir, shared_homes, shared_models, workers
from divtf.analysis import gradient_statistics
from divtf.attacks import make_attack
from divtf.config import MODES, SETUPS, RunConfig
from divtf.datasets import ImageData, load_dataset
from divtf.ensemble import Ensemble
from divtf.errors import require
from divtf.export import export_saved_model, require_free
from divtf.finished import read_record
from divtf.records import TargetRecord, TransferResult
from divtf.threat import ThreatModel
from divtf.training import mend_metrics, train
from divtf.transfer import AdversarialSets, evaluate_transfer, weights_digest

# Where this run exported to, so that it is known for its own when the run is gone on with.
_EXPORTS = "exports.json"
# Test images for coherence, and images shown in TensorBoard.
_ALIGNMENT_IMAGES = 2000
_SHOWN_IMAGES = 8
# What else training goes by, as fields of the configuration; budgets name those that are not the defaults.
_TRAINED_BY = ("batch_size", "learning_rate", "weight_decay", "schedule", "gal_weight", "negative_slope")
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
    on = distribution.strategy(config.strategy)  # First: joining a cluster is what TensorFlow starts with.
    if not workers.is_chief(on):
        _assist(config, on, say)
        return directory
    # What the user can mend is found out first, so that a refused run leaves no directory behind.
    preflight.require_fast_precision(config.precision)
    damage, exporting = _damage(directory / run_dir.RESULTS), _wants_export(config, directory)
    finished = damage is None
    data = load_data(config) if workers.from_chief(on, _plan(finished, exporting)) else None
    if data is not None:
        preflight.require_memory(config, data)
    with run_dir.open_run(directory, config.identity(), resume=config.resume, waiting=waiting):
        # Looked at again: whoever held the directory before may have finished the run.
        damage, exporting = (
            _damage(directory / run_dir.RESULTS),
            exporting and _wants_export(config, directory),
        )
        finished = damage is None
        if damage:
            say(f"{damage}; measuring again")
        if finished:
            mend_metrics(config, directory, say)
            commit = read_record(directory).provenance.get("commit") or "an unknown commit"
            say(f"finished before, at {commit}: the figures are those of {directory / run_dir.RESULTS}")
        if data is not None and (exporting or not finished):
            target, seconds = _train(config, data, directory, say)
            if not finished:
                record = _evaluate(config, data, target, seconds, directory, say)
                run_dir.write_checked(directory / run_dir.RESULTS, record.to_json())
            if exporting:
                _export(target, _export_path(config, directory), directory)
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
            shared_models.ensemble(config, config.surrogate_seed, data, say)
    say("this worker's part, the training, is done; the chief evaluates by itself")


def _damage(path: Path) -> str | None:
    """What is wrong with a file of results: nothing (None), that it is not there (""), or its damage."""
    if not path.exists():
        return ""
    try:
        run_dir.read_checked(path)
    except run_dir.DamagedError as error:
        return str(error)
    return None


def summary(directory: Path, config: RunConfig) -> str:
    """Where a finished run's report, pictures, curves and model lie."""
    names = ["report.md", "coherence.png", "accuracy.png", run_dir.TENSORBOARD]
    lines = [f"  {name:<14} {directory / name}" for name in names if (directory / name).exists()]
    if config.export is not None:
        lines.append(f"  {'SavedModel':<14} {_export_path(config, directory)}")
    return "\n".join(lines)


def share(config: RunConfig, seed: int, say: Callable[[str], object] = print) -> None:
    """Make one of the ensembles of `shared_homes.seeds` with its adversarial sets, before runs need them.

    Such runs, started together, would wait for each other's ensemble, and make each set several times.
    """
    config = config.resolved()
    _seed(config)
    data = load_data(config)
    if seed == config.static_seed:
        shared_models.static_signs(config, data, say)
    else:
        _attack(config, data, {}, say)


def _seed(config: RunConfig) -> None:
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _train(config: RunConfig, data: ImageData, directory: Path, say) -> tuple[Ensemble, float]:
    signs = None
    if "adversarial" in MODES[config.mode].sources:
        signs = shared_models.static_signs(config, data, say)
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
        provenance=run_dir.environment_of(directory)
        | {"hours": seconds / 3600, "weights": weights_digest(target)},
        **aligned,
    )


def _attack(config, data, targets, say, shown_in: Path | None = None) -> list[TransferResult]:
    """Attack the surrogate, and score each target; without targets this makes the adversarial sets only."""
    x, y = data.test_set()
    attacked = slice(config.max_attack_examples)
    surrogate, home = None, None
    if config.attacks:
        surrogate, home = shared_models.ensemble(config, config.surrogate_seed, data, say)
    attacks = [make_attack(a, ThreatModel(epsilon)) for epsilon in config.epsilons for a in config.attacks]
    results = evaluate_transfer(
        surrogate,
        targets,
        (x[attacked], y[attacked]),
        attacks,
        clean=(x, y),
        directory=home and home / shared_homes.ADVERSARIAL,
        surrogate_name=home.name if home else "",
        batch_size=shared_homes.BATCH,
        say=say,
    )
    if surrogate and home and shown_in:
        sets = shared_models.adversarial_sets(surrogate, home, say)
        _show_images(sets, attacks, x[attacked], y[attacked], shown_in)
    return results


def budget(config: RunConfig, data: ImageData) -> dict[str, object]:
    """What a run may spend and how it trains; `reduced` where that is less than the paper's (section 4.1)."""
    config = config.resolved()
    paper = RunConfig(model=config.model, dataset=config.dataset).resolved()
    limits = (config.max_train_examples, config.max_test_examples, config.max_attack_examples)
    less = config.num_members < paper.num_members or config.epochs < paper.epochs
    weaker = not set(paper.attacks) <= set(config.attacks) or not set(paper.epsilons) <= set(config.epsilons)
    static = {"static seed": config.static_seed, "static attack": config.static_attack}
    # Not all of them count in every mode.
    trained_by = config.training()
    others = [name for name in _TRAINED_BY if trained_by.get(name) not in (None, getattr(paper, name))]
    elsewhere = config.dataset != SETUPS[config.model].dataset
    return {
        "members": config.num_members,
        "epochs": config.epochs,
        "steps": config.epochs * -(-len(data.x_train) * len(MODES[config.mode].sources) // config.batch_size),
        "training images": len(data.x_train),
        "test images": len(data.x_test),
        "attacked images": min(len(data.x_test), config.max_attack_examples or len(data.x_test)),
        "precision": config.precision,
        "surrogate seed": config.surrogate_seed,
        **(static if "adversarial" in MODES[config.mode].sources else {}),
        **{name.replace("_", " "): trained_by[name] for name in others},
        "reduced": less or weaker or elsewhere or any(limit is not None for limit in limits),
    }


def _show_images(sets: AdversarialSets, attacks, x, y, directory: Path) -> None:
    """Clean images beside adversarial ones in TensorBoard, at the largest epsilon."""
    largest = max(attack.threat.epsilon for attack in attacks)
    writer = tf.summary.create_file_writer(str(directory / run_dir.TENSORBOARD))
    with writer.as_default(step=0):
        for attack in attacks:
            if attack.threat.epsilon == largest:
                x_adv, _ = sets.images(attack, x, y)
                pairs = np.concatenate([x[:_SHOWN_IMAGES], x_adv[:_SHOWN_IMAGES]], axis=2)
                name = f"clean and {attack.name}, epsilon {largest:g}"
                tf.summary.image(name, pairs, max_outputs=_SHOWN_IMAGES)
    writer.close()


def _wants_export(config: RunConfig, directory: Path) -> bool:
    """Whether the SavedModel is asked for and not there yet.

    Raises:
        InputError: if its place is taken by something else, or by what the run itself writes: better said
            before the training than after.
    """
    if config.export is None:
        return False
    path = _export_path(config, directory)
    place, run = path.resolve(), directory.resolve()
    apart = not (place.is_relative_to(run) or run.is_relative_to(place))
    require(
        apart or place == run / run_dir.SAVED_MODEL,
        f"--export outside of the run directory, or as its {run_dir.SAVED_MODEL}",
        f"export={path}",
    )
    ours = not config.export or str(path.absolute()) in _exports(directory)
    if ours and (path / "saved_model.pb").exists():
        return False
    require_free(path)
    return True


def _export(target: Ensemble, path: Path, directory: Path) -> None:
    # Noted before it is made: the move to its place is all or nothing.
    run_dir.write_json(directory / _EXPORTS, sorted({*_exports(directory), str(path.absolute())}))
    export_saved_model(target, path)


def _exports(directory: Path) -> list[str]:
    path = directory / _EXPORTS
    paths = run_dir.read_json(path) if path.exists() else []
    require(isinstance(paths, list), f"a list of paths in {path}", f"{paths!r:.80}")
    return paths


def _export_path(config: RunConfig, directory: Path) -> Path:
    return Path(config.export) if config.export else directory / run_dir.SAVED_MODEL
