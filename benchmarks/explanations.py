"""Why T_Ens keeps less than in the paper: python -m benchmarks.explanations --runs=runs/table2_conv3.

What the paper leaves open, and may matter, is measured with and without: the attack (CleverHans's own loss,
the step of PGD-CW), the surrogate (its seed, its epochs, the static model itself), and the training of T_Ens
(the static model's members and epochs, how its budgets are drawn), the last of them at --epochs. What is
trained stays below --runs, so that a second call goes on; --only does a part, for processes side by side.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from absl import app, flags
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from benchmarks import timing
from divtf import Ensemble, ThreatModel, make_attack
from divtf.attacks.attack import Attack, compose_attack
from divtf.attacks.searches import Search
from divtf.data import mixture
from divtf.data.datasets import ImageData
from divtf.data.paper import TARGETS, paper_accuracy
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
from divtf.reporting.markdown import grid_markdown
from divtf.storage import run_directory

RUNS = flags.DEFINE_string("runs", "runs/table2_conv3", "Directory of a table's runs, T_Ens among them.")
EPOCHS = flags.DEFINE_integer("epochs", 2, "Of the targets that are trained here.", lower_bound=1)
IMAGES = flags.DEFINE_integer("images", 2000, "Attack the first test images.", lower_bound=1)
ONLY = flags.DEFINE_list("only", None, "Names of targets to measure and surrogates to attack; all of them.")
SURROGATES = flags.DEFINE_list(
    "surrogates", None, "Names of those from which targets are attacked; all of them."
)
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")

Trained = Callable[[], Ensemble]


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
    "pgd_cw, step epsilon": ("pgd_cw", {"step": 1.0}),
    "ifgsm, loss of the mean probability": ("ifgsm", {"loss": "mean_probability"}),
    "ifgsm, CleverHans's own loss": CleverHans(),
    "ifgsm, CleverHans's own, of probabilities taken for logits": CleverHans(probabilities=True),
}
AS_TRAINED = "as published"


def surrogates(config: RunConfig) -> dict[str, RunConfig]:
    """What the targets are attacked from, by name."""
    base, seed = config.base, config.surrogate_seed
    return {
        AS_TRAINED: base(seed),
        **{f"seed {other}": base(other) for other in (seed + 1, seed + 2)},
        **{f"{epochs} epochs": base(seed, epochs=epochs) for epochs in (2, 5) if epochs < config.epochs},
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
    """T_Ens as the pipeline trains it, and with one thing changed."""
    epochs = EPOCHS.value
    return {
        f"T_Ens, {epochs} epochs": Variant(),
        f"T_Ens, {epochs} epochs, one static network": Variant({"static_models": ("plain1",)}),
        f"T_Ens, {epochs} epochs, static model of {config.epochs}": Variant(static_epochs=config.epochs),
        f"T_Ens, {epochs} epochs, budgets drawn once": Variant(budgets_once=True),
        f"T_Ens, {epochs} epochs, uniform budgets": Variant({"static_budgets": "uniform"}),
        f"T_Ens, {epochs} epochs, static model attacked by I-FGSM": Variant({"static_attacks": ("ifgsm",)}),
        "T_Ens, 5 epochs": Variant({"epochs": 5}),
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


def attacked(base: RunConfig, config: RunConfig, data: ImageData) -> tuple[AdversarialSets, dict[str, Any]]:
    """The sets of a surrogate, and its images by each attack, which are kept there."""
    sets = shared_ensembles.adversarial_sets(*shared_ensembles.ensemble(base, data))
    images = data.test_set(IMAGES.value)
    return sets, {title: sets.images(attack, *images)[0] for title, attack in attacks(config).items()}


def measured(
    target: Ensemble, bases: Mapping[str, RunConfig], config: RunConfig, data: ImageData
) -> dict[str, dict[str, float]]:
    """Clean accuracy, and that under each attack from each surrogate, in percent."""
    x, y = data.test_set(IMAGES.value)

    def accuracy(images: Any) -> float:
        return 100 * float(np.mean(predictions(target, images) == y))

    found = {"none": {"clean": accuracy(x)}}
    depends = {
        "target": weights_digest(target),
        "attacks": [attack.describe() for attack in attacks(config).values()],
    }
    for name, base in bases.items():
        sets, images = attacked(base, config, data)
        found[name] = sets.kept(
            "explanation",
            depends,
            x,
            y,
            lambda images=images: {t: accuracy(each) for t, each in images.items()},
        )
    return found


def targets(
    root: Path, runs: Sequence[RunConfig], config: RunConfig, data: ImageData
) -> Mapping[str, Trained]:
    """What gives each target: of the table those that are trained, and the variants."""
    shorter = dataclasses.replace(config, epochs=EPOCHS.value)
    ours = [run for run in runs if _epochs_of(Path(run.run_dir)) >= run.epochs]
    return {
        **{run.target: lambda run=run: restore(run, data.spec, Path(run.run_dir)) for run in ours},
        **{
            name: lambda name=name, each=each: each.train(shorter, data, root / name)
            for name, each in variants(config).items()
        },
    }


def _epochs_of(directory: Path) -> int:
    path = directory / run_directory.METRICS
    return len(path.read_text("utf-8").splitlines()) if path.is_file() else 0


def markdown(record: Mapping[str, Any]) -> str:
    """For each surrogate a table of accuracies in percent, targets by attacks, with those of the paper."""
    lines, found = timing.head(record), record["found"]
    for surrogate in dict.fromkeys(name for of_target in found.values() for name in of_target):
        shown = {name: of_target[surrogate] for name, of_target in found.items() if surrogate in of_target}
        attacks = list(next(iter(shown.values())))
        grid = [["accuracy, %", *attacks]]
        for name, values in shown.items():
            grid.append([name, *(f"{values[attack]:.1f}" for attack in attacks)])
            if surrogate == AS_TRAINED and name in TARGETS:
                papers = [
                    paper_accuracy(record["budget"]["model"], name, attack, record["budget"]["epsilon"])
                    for attack in attacks
                ]
                grid.append([f"{name}, paper", *("" if value is None else f"{value:g}" for value in papers)])
        lines += [f"## Surrogate: {surrogate}", "", grid_markdown(grid, numbers=True), ""]
    return "\n".join(lines)


def main() -> None:
    begun = sorted(path.parent for path in Path(RUNS.value).glob(f"*/{run_directory.CONFIG}"))
    require(bool(begun), f"a table's runs below {RUNS.value}", "none")
    runs = [dataclasses.replace(read_config(path), run_dir=str(path)) for path in begun]
    config, root = dataclasses.replace(runs[0], mode="ens"), Path(RUNS.value) / "explanations"
    data, found = load_data(config.part(DataPart)), {}
    bases, only = surrogates(config), ONLY.value or []
    wanted = {name: base for name, base in bases.items() if name in (SURROGATES.value or bases)}
    known = targets(root, runs, config, data)
    unknown = {*only, *(SURROGATES.value or [])} - {*bases, *known}
    require(not unknown, f"names of {', '.join([*bases, *known])}", ", ".join(unknown))
    for name, base in bases.items():
        if name in only:
            attacked(base, config, data)
    for name, target in known.items():
        if not only or name in only:
            found[name] = measured(target(), wanted, config, data)
            print(f"{name}: {found[name]}", flush=True)
    if OUTPUT.value:
        budget = {
            "model": config.model,
            "images": IMAGES.value,
            "epsilon": config.largest_epsilon,
            "epochs here": EPOCHS.value,
        }
        record = timing.made("What differences from the paper's Table 2 come of", budget) | {"found": found}
        timing.write(Path(OUTPUT.value), record, markdown(record))


if __name__ == "__main__":
    app.run(lambda _: main())
