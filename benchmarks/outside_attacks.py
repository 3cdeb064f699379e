"""Do others fool more than divtf: python -m benchmarks.outside_attacks --runs=runs/demo.

The targets were evaluated by `divtf.evaluate` before. Attacks of ART and of foolbox are made on the same
surrogates and score each target; then they are made on the target itself, and Square asks it. The tables say
how many images withstand all of them, and by how many points more withstand what divtf tried: at most 2 are
aimed at. What the others found is kept in `outside-attacks/` beside the runs: interrupted, or given again
after another evaluation, the command makes only what is not there.

Needs the extras `attacks` and `bench`.
"""

import dataclasses
import functools
import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import divtf
from benchmarks.timing import Row, write_tables
from divtf.attacks import auto_pgd, outside
from divtf.attacks.threat import ThreatModel
from divtf.commands import evaluate
from divtf.data.images import images_digest
from divtf.errors import require, require_installed
from divtf.evaluation.model_digests import model_digest
from divtf.evaluation.predictions import predictions
from divtf.pipeline.finished import directories, families
from divtf.pipeline.surrogate_sets import SurrogatePlan
from divtf.storage.digests import array_digest
from divtf.storage.evaluations import TRANSFER, EvaluationRecord
from divtf.storage.kept import kept
from divtf.storage.records import packed, unpacked

# From a target, images, labels, the threat model and a seed of random draws to images.
Maker = Callable[[Any, np.ndarray, np.ndarray, ThreatModel, int], np.ndarray]
# Points by which divtf's worst case may lie above the other libraries', and above that of all together.
MOST = 2.0
# What attacks hang on: libraries, and how divtf asks them.
_LIBRARIES = ("adversarial-robustness-toolbox", "foolbox", "tensorflow", "keras")
_WRAPPERS = (outside, auto_pgd)
# A target is traced once for all attacks.
scores_of = functools.cache(outside.scores_of)


@dataclasses.dataclass(frozen=True)
class ByArt:
    """An attack of ART with its own cross-entropy; step sizes are given in units of epsilon."""

    name: str
    settings: Mapping[str, Any]

    def __call__(self, target, x, y, threat, seed):
        """Images of [n, ...], within the threat model."""
        from art.attacks import evasion
        from art.estimators.classification import TensorFlowV2Classifier

        keras.utils.set_random_seed(seed)
        scores = scores_of(target, x.shape[1:])
        classifier = TensorFlowV2Classifier(
            lambda x, training: scores(x),
            nb_classes=scores(x[:1]).shape[-1],
            input_shape=x.shape[1:],
            loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
            clip_values=(threat.clip_min, threat.clip_max),
            preprocessing=None,
        )
        sizes = {key: value * threat.epsilon for key, value in self.settings.items() if key == "eps_step"}
        given = {**self.settings, **sizes}
        attack = getattr(evasion, self.name)(classifier, eps=threat.epsilon, batch_size=len(x), **given)
        return attack.generate(x, y)


@dataclasses.dataclass(frozen=True)
class ByFoolbox:
    """An attack of foolbox on the scores, with its own cross-entropy or, for DeepFool, differences."""

    name: str
    settings: Mapping[str, Any]

    def __call__(self, target, x, y, threat, seed):
        """Images of [n, ...], within the threat model."""
        with warnings.catch_warnings():  # It imports names that SciPy 2 will not have.
            warnings.simplefilter("ignore", DeprecationWarning)
            import foolbox

        keras.utils.set_random_seed(seed)
        device = "/GPU:0" if tf.config.list_physical_devices("GPU") else "/CPU:0"
        bounds = (threat.clip_min, threat.clip_max)
        model = foolbox.TensorFlowModel(scores_of(target, x.shape[1:]), bounds, device)
        attack = getattr(foolbox.attacks, self.name)(**self.settings)
        _, x_adv, _ = attack(model, tf.constant(x), tf.constant(y), epsilons=threat.epsilon)
        return x_adv.numpy()


@dataclasses.dataclass(frozen=True)
class ByAutoPgd:
    """AutoPGD of ART as divtf wraps it: 100 steps."""

    loss: str

    def __call__(self, target, x, y, threat, seed):
        """Images of [n, ...], within the threat model."""
        return auto_pgd.auto_pgd(target, x, y, threat, loss=self.loss, seed=seed)


@dataclasses.dataclass(frozen=True)
class BySquare:
    """Square of ART as divtf wraps it."""

    queries: int

    def __call__(self, target, x, y, threat, seed):
        """Images of [n, ...], within the threat model."""
        scores = scores_of(target, x.shape[1:])
        return outside.square(scores, x, y, threat, queries=self.queries, seed=seed).images


# ART has momentum for PyTorch alone, and DeepFool for other norms.
OUTSIDE: dict[str, Maker] = {
    "ART FGSM": ByArt("FastGradientMethod", {"eps_step": 1.0}),
    "ART BIM": ByArt("BasicIterativeMethod", {"eps_step": 0.1, "max_iter": 10, "verbose": False}),
    "ART PGD": ByArt(
        "ProjectedGradientDescent",
        {"eps_step": 0.1, "max_iter": 30, "num_random_init": 1, "verbose": False},
    ),
    "ART AutoPGD, cross-entropy": ByAutoPgd("cross_entropy"),
    "ART AutoPGD, DLR": ByAutoPgd("dlr"),
    "foolbox FGSM": ByFoolbox("LinfFastGradientAttack", {}),
    "foolbox BIM": ByFoolbox("LinfBasicIterativeAttack", {"rel_stepsize": 0.1, "steps": 10}),
    "foolbox PGD": ByFoolbox("LinfProjectedGradientDescentAttack", {"rel_stepsize": 0.1, "steps": 30}),
    "foolbox MI-FGSM": ByFoolbox(
        "LinfMomentumIterativeFastGradientMethod", {"rel_stepsize": 0.1, "steps": 10}
    ),
    "foolbox Adam PGD": ByFoolbox(
        "LinfAdamProjectedGradientDescentAttack", {"rel_stepsize": 0.1, "steps": 30}
    ),
    "foolbox DeepFool": ByFoolbox("LinfDeepFoolAttack", {"steps": 30}),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """What attacks of other libraries did, each kept once it is found.

    It hangs on the models and images and on nothing that divtf tries: another protocol is compared with what
    was found before, and what was interrupted goes on with the next attack.

    Attributes:
        directory: where it is kept; None keeps nothing.
        seed: of each attack's random draws.
    """

    directory: Path | None = None
    seed: int = 0

    def of(self, attack: str, make: Maker, attacked: Any, targets: Mapping[str, Any], x, y, threat) -> dict:
        """For each target, by its name, which images stay right: bool [n]."""

        def found() -> dict[str, str]:
            x_adv = make(attacked, x, y, threat, self.seed)
            change, low, high = float(np.abs(x_adv - x).max()), float(x_adv.min()), float(x_adv.max())
            inside = change <= threat.epsilon + 1e-6 and threat.clip_min <= low and high <= threat.clip_max
            told = f"a change of {change:g}, {low:g} to {high:g}"
            require(inside, f"images of {attack} within {threat}", told)
            return {name: packed(predictions(target, x_adv) == y) for name, target in targets.items()}

        if self.directory is None:
            hits = found()
        else:
            depends = {
                "attack": repr(make),
                "seed": self.seed,
                "threat": dataclasses.asdict(threat),
                "attacked": model_digest(attacked),
                "targets": {name: model_digest(target) for name, target in targets.items()},
                "images": images_digest(x),
                "labels": array_digest(y),
                "versions": {name: metadata.version(name) for name in _LIBRARIES},
                "wrappers": [hashlib.sha256(Path(m.__file__).read_bytes()).hexdigest() for m in _WRAPPERS],
            }
            name = re.sub(r"\W+", "-", attack)
            hits = kept(self.directory, f"{name}-{threat.epsilon:g}", depends, found)
        return {name: np.array(unpacked(bits, len(y))) for name, bits in hits.items()}


def hits_of(
    makers: Mapping[str, Maker],
    attacked: Any,
    targets: Mapping[str, Any],
    x,
    y,
    threat,
    found: Found = Found(),
) -> dict:
    """For each target and attack, by their names, which images stay right: bool [n]."""
    hits: dict[str, dict[str, np.ndarray]] = {name: {} for name in targets}
    for attack, make in makers.items():
        for name, right in found.of(attack, make, attacked, targets, x, y, threat).items():
            hits[name][attack] = right
        shown = {name: f"{percent(each[attack]):.1f} %" for name, each in hits.items()}
        print(f"epsilon {threat.epsilon:g}, {attack}: {shown}", flush=True)
    return hits


def percent(hits: np.ndarray) -> float:
    return 100 * float(np.mean(hits))


def rows_of(others: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], clean: np.ndarray) -> list[Row]:
    """A table of the images that stay right under each attack, and under all of a side at once.

    Args:
        others: attack of another library -> which images are right under it, bool [n].
        own: the same of divtf's attacks.
        clean: which images are right before any attack, bool [n]; on both sides no other one counts, though
            an attack may move it to its class.
    """
    others, own = ({name: hits & clean for name, hits in side.items()} for side in (others, own))
    rows = [Row(f"{name}, %", percent(hits)) for name, hits in [*others.items(), *own.items()]]
    theirs, ours = (np.all(list(side.values()), axis=0) for side in (others, own))
    rows += [Row("worst case of the other libraries, %", percent(theirs))]
    rows += [Row("worst case of divtf, %", percent(ours))]
    rows += [Row("worst case of all, %", percent(theirs & ours))]
    rows += [Row("divtf's worst case above theirs, points", percent(ours) - percent(theirs), MOST)]
    # An attacker has both.
    rows += [
        Row("divtf's worst case above that of all, points", percent(ours) - percent(theirs & ours), MOST)
    ]
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
    found: Found = Found(),
) -> dict[str, list[Row]]:
    """The tables of one epsilon: for each target by transfer from all surrogates, then in a white box."""
    tables = {}
    others: dict[str, dict[str, np.ndarray]] = {name: {} for name in targets}
    for surrogate, model in surrogates.items():
        for name, right in hits_of(transfer, model, targets, *images, threat, found).items():
            others[name] |= {f"{attack} from {surrogate}": hits for attack, hits in right.items()}
    for name, record in records.items():
        # Of the surrogates on which the others were tried: the record may have more.
        standing = record.standing(
            threat.epsilon, lambda trial: trial.kind == TRANSFER and trial.surrogate in surrogates
        )
        tables[f"{name}, transfer, epsilon {threat.epsilon:g}"] = rows_of(
            others[name], {"divtf by transfer": np.array(standing)}, np.array(record.clean_hits)
        )
    for name, record in records.items():
        own = {"divtf by all attacks": np.array(record.standing(threat.epsilon))}
        target = {name: targets[name]}
        others_here = hits_of(white_box, targets[name], target, *images, threat, found)[name]
        tables[f"{name}, white box, epsilon {threat.epsilon:g}"] = rows_of(
            others_here, own, np.array(record.clean_hits)
        )
    return tables


def main() -> None:
    given = flags.FLAGS
    root = Path(given.runs)
    require_installed("this benchmark", "attacks,bench", ("art", "foolbox"))
    (family,) = families(directories(root))
    records = {record.target: record for record in evaluate.collect(root, given.protocol)}
    runs = {config.target: divtf.load_run(path) for path, config in family.items()}
    require(set(records) == set(runs), f"evaluations of all runs below {root}", f"{sorted(records)}")
    outside.load_art("this benchmark")
    first, record = next(iter(runs.values())), next(iter(records.values()))
    configs = [run.config for run in runs.values()]
    named = [name for name in record.surrogates if not name.startswith("same as ")]
    sets = SurrogatePlan.of(named, configs, first.data).sets()
    square = {f"ART Square, {given.queries} queries": BySquare(given.queries)} if given.queries else {}
    tables: dict[str, list[Row]] = {}
    for epsilon in map(float, given.at or record.epsilons):
        tables |= tables_of(
            {name: each.surrogate for name, each in sets.items()},
            {name: run.ensemble for name, run in runs.items()},
            records,
            first.data.test_set(record.images),
            ThreatModel(epsilon),
            white_box=OUTSIDE | square,
            found=Found(root / "outside-attacks", given.seed),
        )
    budget = {"images": record.images, "queries": given.queries, "seed": given.seed, "runs": given.runs}
    write_tables(Path(given.output), "Attacks of other libraries and divtf's own", budget, tables)


if __name__ == "__main__":
    flags.DEFINE_string("runs", "runs/demo", "Directory of evaluated runs of one model, data set and seed.")
    flags.DEFINE_string("protocol", "strong", "By which they were evaluated.")
    flags.DEFINE_list("at", [], "Epsilons; default: those of the runs.")
    flags.DEFINE_integer("queries", 1000, "Of Square, in a white box; 0 leaves it out.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of random starts.", lower_bound=0)
    flags.DEFINE_string("output", "benchmarks/results/outside_attacks", "Write PATH.json and PATH.md.")
    app.run(lambda _: main())
