"""Why targets keep less than in the paper: python -m benchmarks.explanations --runs=runs/table2_conv3.

What the paper leaves open, and may matter, is measured with and without: the attack (CleverHans's own loss,
the step of PGD-CW), the surrogate (its seed, its epochs, the static model itself), and the training of T_Ens
(the static model's members and epochs, how its budgets are drawn), the last of them at --epochs. What is
trained stays below --runs, so that a second call goes on; --only does a part, for processes side by side.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from absl import app, flags
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from benchmarks import timing
from benchmarks.explanation_tables import AS_TRAINED, WITH, markdown
from divtf import Ensemble, ThreatModel, make_attack
from divtf.attacks.attack import Attack, compose_attack
from divtf.attacks.searches import Search
from divtf.data import mixture
from divtf.data.datasets import ImageData
from divtf.data.paper import SETUPS
from divtf.errors import require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.model_digests import weights_digest
from divtf.evaluation.predictions import predictions
from divtf.pipeline import shared_ensembles
from divtf.pipeline.config import RunConfig
from divtf.pipeline.experiment import load_data
from divtf.pipeline.finished import read_config
from divtf.pipeline.parts import DataPart
from divtf.pipeline.static_images import static_changes
from divtf.pipeline.trained import restore, train
from divtf.storage import run_directory
from divtf.storage.records import packed

RUNS = flags.DEFINE_string("runs", "runs/table2_conv3", "Directory of a table's runs.")
EPOCHS = flags.DEFINE_integer("epochs", 2, "Of the targets that are trained here.", lower_bound=1)
IMAGES = flags.DEFINE_integer("images", 2000, "Attack the first test images.", lower_bound=1)
ONLY = flags.DEFINE_list("only", None, "Names of targets to measure and surrogates to attack; all of them.")
SURROGATES = flags.DEFINE_list(
    "surrogates", None, "Names of those from which targets are attacked; all of them."
)
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")


@dataclasses.dataclass(frozen=True)
class CleverHans(Search):
    """I-FGSM by CleverHans's own loop and loss.

    Attributes:
        probabilities: whether it takes the mean probability for logits, or its logarithm, as it is.
    """

    probabilities: bool = False

    @property
    def gradients(self) -> int:
        """One a step."""
        return 10

    def prepared(self, target, members, image_shape, threat):
        """As `Recipe.prepared`."""

        def logits(x):
            return tf.exp(target(x)) if self.probabilities else target(x)

        def attack(x, y, numbers, seed, pool, pool_labels):
            bounds = {"clip_min": threat.clip_min, "clip_max": threat.clip_max}
            step, steps = threat.epsilon / self.gradients, self.gradients
            return projected_gradient_descent(
                logits, x, threat.epsilon, step, steps, np.inf, y=y, rand_init=False, **bounds
            )

        return attack


# Name in the tables -> what is tried, at an epsilon.
ATTACKS: dict[str, tuple[str, Mapping[str, Any]] | CleverHans] = {
    **{name: (name, {}) for name in ("fgsm", "rfgsm", "ifgsm", "mifgsm", "pgd_cw")},
    f"pgd_cw{WITH}a step of epsilon": ("pgd_cw", {"step": 1.0}),
    f"ifgsm{WITH}the loss of the mean probability": ("ifgsm", {"loss": "mean_probability"}),
    f"ifgsm{WITH}CleverHans's own loss": CleverHans(),
    f"ifgsm{WITH}CleverHans's own loss of probabilities taken for logits": CleverHans(probabilities=True),
}


def surrogates(config: RunConfig) -> dict[str, RunConfig]:
    """What the targets are attacked from, by name."""
    base, seed = config.base, config.surrogate_seed
    return {
        AS_TRAINED: base(seed),
        **{f"seed {other}": base(other) for other in (seed + 1, seed + 2)},
        **{f"{epochs} epochs": base(seed, epochs=epochs) for epochs in (2, 5, 10) if epochs != config.epochs},
        "the static model": base(config.static_seed),
    }


def budgets_drawn_once(changes: Sequence[np.ndarray], epsilon: float, seed: int) -> list[np.ndarray]:
    """Changes in units of epsilon that hold a budget for each image, drawn as section 4.2 has it."""
    drawn = tf.random.stateless_truncated_normal([len(changes[0])], [seed, 0], stddev=epsilon / 2)
    shares = np.abs(drawn.numpy()) / epsilon
    return [np.rint(each * shares[:, None, None, None]).astype("int8") for each in changes]


def _as_it_is(draw: mixture.Draw) -> tf.Tensor:
    """D_adv where changes hold their budgets."""
    return tf.clip_by_value(draw.image + draw.epsilon * tf.convert_to_tensor(draw.change), 0, 1)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A target that is trained here.

    Attributes:
        changes: of the configuration of T_Ens.
        static_epochs: of its static model; None is as many as its own.
        budgets_once: whether each image has one budget, and not another in each epoch.
    """

    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    static_epochs: int | None = None
    budgets_once: bool = False

    def train(self, config: RunConfig, data: ImageData, directory: Path) -> Ensemble:
        """Train it, or go on with it."""
        config = dataclasses.replace(config, **self.changes)
        changes = static_changes(
            dataclasses.replace(config, epochs=self.static_epochs or config.epochs), data
        )
        sources = {}
        if self.budgets_once:
            changes = budgets_drawn_once(changes, float(config.largest_epsilon), config.seed)
            sources["adversarial"] = _as_it_is
        with mock.patch.dict(mixture.SOURCES, sources):
            return train(config, data, directory, changes=changes)[0]


def variants(config: RunConfig) -> dict[str, Variant]:
    """T_Ens and T_Ens+Div as the pipeline trains them, and T_Ens with one thing changed."""
    budget, whole = f"of {config.epochs} epochs", SETUPS[config.model].epochs
    ours = f"T_Ens {budget}"
    changed = {
        "one static network": Variant({"static_models": ("plain1",)}),
        f"a static model of {whole} epochs": Variant(static_epochs=whole),
        "budgets drawn once": Variant(budgets_once=True),
        "uniform budgets": Variant({"static_budgets": "uniform"}),
        "the static model attacked by I-FGSM": Variant({"static_attacks": ("ifgsm",)}),
        "5 epochs": Variant({"epochs": 5}),
    }
    return {
        ours: Variant(),
        **{f"{ours}{WITH}{change}": variant for change, variant in changed.items()},
        f"T_Ens+Div {budget}": Variant({"mode": "ens_div"}),
    }


def attacks(config: RunConfig) -> dict[str, Attack]:
    """What is tried, at the largest epsilon."""
    threat = ThreatModel(config.largest_epsilon)
    return {
        title: compose_attack("cleverhans", threat, tried)
        if isinstance(tried, CleverHans)
        else make_attack(tried[0], threat, **tried[1])
        for title, tried in ATTACKS.items()
    }


Attacked = tuple[AdversarialSets, dict[str, Any]]
"""The sets of a surrogate, and its images by each attack, which are kept there."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What targets are tried with.

    Attributes:
        config: of T_Ens, in the budget of what is trained here.
        data: training and test images.
        images: those of the test images that are attacked [n, ...], and their classes [n].
        root: where targets are trained.
    """

    config: RunConfig
    data: ImageData
    images: tuple[Any, np.ndarray]
    root: Path

    def attacked(self, base: RunConfig) -> Attacked:
        """A surrogate, attacked."""
        sets = shared_ensembles.adversarial_sets(*shared_ensembles.ensemble(base, self.data))
        made = {title: sets.images(attack, *self.images)[0] for title, attack in attacks(self.config).items()}
        return sets, made

    def target(self, name: str, runs: Mapping[str, RunConfig]) -> Ensemble:
        """One of the table's runs, or of the variants, which is trained if need be."""
        if name in runs:
            return restore(runs[name], self.data.spec, Path(runs[name].run_dir))
        return variants(self.config)[name].train(self.config, self.data, self.root / name)

    def hits(self, target: Ensemble, images: Any) -> str:
        """Which images a target classifies as labelled, `packed`."""
        return packed(predictions(target, images) == self.images[1])

    def hits_from(self, attacked: Attacked, target: Ensemble) -> dict[str, str]:
        """The same under each attack from a surrogate."""
        sets, images = attacked
        depends = {
            "target": weights_digest(target),
            "attacks": {title: attack.describe() for title, attack in attacks(self.config).items()},
            "kept": "which images stand",
        }

        def measure() -> dict[str, str]:
            return {title: self.hits(target, made) for title, made in images.items()}

        return sets.kept("explanation", depends, *self.images, measure)


def trained_runs(root: Path) -> dict[str, RunConfig]:
    """The runs of a table that are trained, by target, all of the seed of the first of them.

    Raises:
        InputError: if a table was not begun there.
    """
    begun = sorted(path.parent for path in root.glob(f"*/{run_directory.CONFIG}"))
    require(bool(begun), f"a table's runs below {root}", "none")
    runs = [dataclasses.replace(read_config(path), run_dir=str(path)) for path in begun]
    trained = [run for run in runs if _epochs_of(Path(run.run_dir)) >= run.epochs]
    require(bool(trained), f"a trained run below {root}", "none")
    return {run.target: run for run in trained if run.seed == trained[0].seed}


def _epochs_of(directory: Path) -> int:
    path = directory / run_directory.METRICS
    return len(path.read_text("utf-8").splitlines()) if path.is_file() else 0


def main() -> None:
    runs = trained_runs(Path(RUNS.value))
    table = next(iter(runs.values()))
    require(table.model in SETUPS, f"runs of {', '.join(SETUPS)}", table.model)
    config = dataclasses.replace(table, mode="ens", epochs=EPOCHS.value)
    data = load_data(config.part(DataPart))
    bench = Bench(config, data, data.test_set(IMAGES.value), Path(RUNS.value) / "explanations")
    bases, names = surrogates(table), [*runs, *variants(config)]
    only, sources = ONLY.value or [*bases, *names], SURROGATES.value or list(bases)
    for given, known in ((only, [*bases, *names]), (sources, list(bases))):
        unknown = [name for name in given if name not in known]
        require(not unknown, f"names of {', '.join(known)}", ", ".join(unknown))
    attacked = {name: bench.attacked(base) for name, base in bases.items() if name in {*only, *sources}}
    budget = {
        "model": table.model,
        "images": len(bench.images[1]),
        "epsilon": table.largest_epsilon,
        "seed": table.seed,
        "epochs": table.epochs,
        "epochs here": EPOCHS.value,
        "precision": table.precision,
    }
    record = timing.made("What differences from the paper's Table 2 come of", budget)
    record["found"] = {}
    for name in [name for name in names if name in only]:
        target = bench.target(name, runs)
        found = {"none": {"clean": bench.hits(target, bench.images[0])}}
        record["found"][name] = found | {
            source: bench.hits_from(attacked[source], target) for source in sources
        }
        print(f"{name}: measured", flush=True)
        if OUTPUT.value:
            timing.write(Path(OUTPUT.value), record, markdown(record))


if __name__ == "__main__":
    app.run(lambda _: main())
