"""Do others fool more than divtf: python -m benchmarks.outside_attacks --runs=runs/demo.

The targets were evaluated by `divtf.evaluate` before. Attacks of ART and of foolbox are made on the same
surrogates and score each target; then they are made on the target itself, and Square asks it. The tables say
how many images withstand all of them, and by how many points more withstand what divtf tried: at most 2 are
aimed at.

Needs the extras `attacks` and `bench`.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import divtf
from benchmarks.timing import Row, write_tables
from divtf.attacks import outside
from divtf.attacks.auto_pgd import auto_pgd
from divtf.attacks.threat import ThreatModel
from divtf.commands import evaluate
from divtf.errors import require, require_installed
from divtf.evaluation.predictions import predictions
from divtf.pipeline.finished import directories, families
from divtf.pipeline.surrogate_sets import surrogate_sets
from divtf.storage.evaluations import TRANSFER, EvaluationRecord

# From a target, images, labels and the threat model to images.
Maker = Callable[[Any, np.ndarray, np.ndarray, ThreatModel], np.ndarray]
# Points by which divtf's worst case may lie above the other libraries'.
MOST = 2.0
# A target is traced once for all attacks.
scores_of = functools.cache(outside.scores_of)


def by_art(name: str, **settings) -> Maker:
    """An attack of ART with its own cross-entropy; step sizes are given in units of epsilon."""

    def make(target, x, y, threat):
        from art.attacks import evasion
        from art.estimators.classification import TensorFlowV2Classifier

        scores = scores_of(target, x.shape[1:])
        classifier = TensorFlowV2Classifier(
            lambda x, training: scores(x),
            nb_classes=scores(x[:1]).shape[-1],
            input_shape=x.shape[1:],
            loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
            clip_values=(threat.clip_min, threat.clip_max),
            preprocessing=None,
        )
        sizes = {key: value * threat.epsilon for key, value in settings.items() if key == "eps_step"}
        attack = getattr(evasion, name)(classifier, eps=threat.epsilon, batch_size=len(x), **settings | sizes)
        return attack.generate(x, y)

    return make


def by_foolbox(name: str, **settings) -> Maker:
    """An attack of foolbox on the scores, with its own cross-entropy or, for DeepFool, differences."""

    def make(target, x, y, threat):
        with warnings.catch_warnings():  # It imports names that SciPy 2 will not have.
            warnings.simplefilter("ignore", DeprecationWarning)
            import foolbox

        device = "/GPU:0" if tf.config.list_physical_devices("GPU") else "/CPU:0"
        bounds = (threat.clip_min, threat.clip_max)
        model = foolbox.TensorFlowModel(scores_of(target, x.shape[1:]), bounds, device)
        attack = getattr(foolbox.attacks, name)(**settings)
        _, x_adv, _ = attack(model, tf.constant(x), tf.constant(y), epsilons=threat.epsilon)
        return x_adv.numpy()

    return make


def by_auto_pgd(loss: str) -> Maker:
    """AutoPGD of ART as divtf wraps it: 100 steps."""
    return lambda target, x, y, threat: auto_pgd(target, x, y, threat, loss=loss)


def by_square(queries: int) -> Maker:
    """Square of ART as divtf wraps it."""

    def make(target, x, y, threat):
        return outside.square(scores_of(target, x.shape[1:]), x, y, threat, queries=queries).images

    return make


# ART has momentum for PyTorch alone, and DeepFool for other norms.
OUTSIDE: dict[str, Maker] = {
    "ART FGSM": by_art("FastGradientMethod", eps_step=1.0),
    "ART BIM": by_art("BasicIterativeMethod", eps_step=0.1, max_iter=10, verbose=False),
    "ART PGD": by_art(
        "ProjectedGradientDescent", eps_step=0.1, max_iter=30, num_random_init=1, verbose=False
    ),
    "ART AutoPGD, cross-entropy": by_auto_pgd("cross_entropy"),
    "ART AutoPGD, DLR": by_auto_pgd("dlr"),
    "foolbox FGSM": by_foolbox("LinfFastGradientAttack"),
    "foolbox BIM": by_foolbox("LinfBasicIterativeAttack", rel_stepsize=0.1, steps=10),
    "foolbox PGD": by_foolbox("LinfProjectedGradientDescentAttack", rel_stepsize=0.1, steps=30),
    "foolbox MI-FGSM": by_foolbox("LinfMomentumIterativeFastGradientMethod", rel_stepsize=0.1, steps=10),
    "foolbox Adam PGD": by_foolbox("LinfAdamProjectedGradientDescentAttack", rel_stepsize=0.1, steps=30),
    "foolbox DeepFool": by_foolbox("LinfDeepFoolAttack", steps=30),
}


def hits_of(makers: Mapping[str, Maker], attacked: Any, targets: Mapping[str, Any], x, y, threat) -> dict:
    """For each target and attack, by their names, which images stay right: bool [n]."""
    hits: dict[str, dict[str, np.ndarray]] = {name: {} for name in targets}
    for attack, make in makers.items():
        x_adv = make(attacked, x, y, threat)
        change, low, high = float(np.abs(x_adv - x).max()), float(x_adv.min()), float(x_adv.max())
        inside = change <= threat.epsilon + 1e-6 and threat.clip_min <= low and high <= threat.clip_max
        require(inside, f"images of {attack} within {threat}", f"a change of {change:g}, {low:g} to {high:g}")
        for name, target in targets.items():
            hits[name][attack] = predictions(target, x_adv) == y
        found = {name: f"{percent(each[attack]):.1f} %" for name, each in hits.items()}
        print(f"epsilon {threat.epsilon:g}, {attack}: {found}", flush=True)
    return hits


def percent(hits: np.ndarray) -> float:
    return 100 * float(np.mean(hits))


def rows_of(others: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]) -> list[Row]:
    """A table of the images that stay right under each attack, and under all of a side at once."""
    rows = [Row(f"{name}, %", percent(hits)) for name, hits in [*others.items(), *own.items()]]
    theirs, ours = (np.all(list(side.values()), axis=0) for side in (others, own))
    rows += [Row("worst case of the other libraries, %", percent(theirs))]
    rows += [Row("worst case of divtf, %", percent(ours))]
    rows += [Row("worst case of all, %", percent(theirs & ours))]
    rows += [Row("divtf's worst case above theirs, points", percent(ours) - percent(theirs), MOST)]
    return rows


def tables_of(
    surrogates: Mapping[str, Any],
    targets: Mapping[str, Any],
    records: Mapping[str, EvaluationRecord],
    images: tuple[np.ndarray, np.ndarray],
    threat: ThreatModel,
    *,
    white_box: Mapping[str, Maker],
    transfer: Mapping[str, Maker] = OUTSIDE,
) -> dict[str, list[Row]]:
    """The tables of one epsilon: for each target by transfer from all surrogates, then in a white box."""
    tables = {}
    others: dict[str, dict[str, np.ndarray]] = {name: {} for name in targets}
    for surrogate, model in surrogates.items():
        for name, found in hits_of(transfer, model, targets, *images, threat).items():
            others[name] |= {f"{attack} from {surrogate}": hits for attack, hits in found.items()}
    for name, record in records.items():
        own = {"divtf by transfer": np.array(record.standing_under(TRANSFER, threat.epsilon))}
        tables[f"{name}, transfer, epsilon {threat.epsilon:g}"] = rows_of(others[name], own)
    for name, record in records.items():
        own = {"divtf by all attacks": np.array(record.standing(threat.epsilon))}
        found = hits_of(white_box, targets[name], {name: targets[name]}, *images, threat)[name]
        tables[f"{name}, white box, epsilon {threat.epsilon:g}"] = rows_of(found, own)
    return tables


def main(arguments) -> None:
    del arguments
    given = flags.FLAGS
    root = Path(given.runs)
    require_installed("this benchmark", "attacks,bench", ("art", "foolbox"))
    (family,) = families(directories(root))
    records = {record.target: record for record in evaluate.collect(root, given.protocol)}
    runs = {config.target: divtf.load_run(path) for path, config in family.items()}
    require(set(records) == set(runs), f"evaluations of all runs below {root}", f"{sorted(records)}")
    outside.load_art("this benchmark")
    keras.utils.set_random_seed(given.seed)
    first, record = next(iter(runs.values())), next(iter(records.values()))
    configs = [run.config for run in runs.values()]
    named = [name for name in record.surrogates if not name.startswith("same as ")]
    sets = surrogate_sets(named, configs, first.data)
    square = {f"ART Square, {given.queries} queries": by_square(given.queries)} if given.queries else {}
    tables: dict[str, list[Row]] = {}
    for epsilon in map(float, given.at or record.epsilons):
        tables |= tables_of(
            {name: each.surrogate for name, each in sets.items()},
            {name: run.ensemble for name, run in runs.items()},
            records,
            first.data.test_set(record.images),
            ThreatModel(epsilon),
            white_box=OUTSIDE | square,
        )
    budget = {"images": record.images, "queries": given.queries, "seed": given.seed, "runs": given.runs}
    write_tables(Path(given.output), "Attacks of other libraries and divtf's own", budget, tables)


if __name__ == "__main__":
    flags.DEFINE_string("runs", "runs/demo", "Directory of evaluated runs of one model, data set and seed.")
    flags.DEFINE_string("protocol", "strong", "By which they were evaluated.")
    flags.DEFINE_list("at", [], "Epsilons; default: those of the runs.")
    flags.DEFINE_integer("queries", 1000, "Of Square, in a white box; 0 leaves it out.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the random starts of ART and foolbox.", lower_bound=0)
    flags.DEFINE_string("output", "benchmarks/results/outside_attacks", "Write PATH.json and PATH.md.")
    app.run(main)
