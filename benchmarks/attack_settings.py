"""What accuracies hang on: python -m benchmarks.attack_settings --runs=runs/mnist [--images=500].

Attacks the surrogate of finished runs at the largest epsilon, and scores the runs' targets, with other
settings of the attacks than those of Table 2. The paper leaves the step of PGD-CW open. Then attacks the
surrogate as it was before its last epoch, to tell how far accuracies depend on its training.
"""

import dataclasses
from pathlib import Path

import keras
import numpy as np
from absl import app, flags

from benchmarks.timing import Row, write_tables
from divtf import Ensemble, ThreatModel, make_attack
from divtf.errors import require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import predictions
from divtf.pipeline.config import RunConfig
from divtf.pipeline.experiment import load_data
from divtf.pipeline.finished import directories, read_config
from divtf.pipeline.parts import DataPart, EnsemblePart
from divtf.pipeline.shared_paths import directory_of
from divtf.pipeline.trained import build_ensemble, restore
from divtf.storage.run_directory import CHECKPOINTS

RUNS = flags.DEFINE_string("runs", "runs/mnist", "Directory of finished runs of one model and data set.")
IMAGES = flags.DEFINE_integer("images", 500, "Attack the first test images.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")

# As in Table 2 first; then with one setting changed.
SETTINGS = [
    ("ifgsm", {}),
    ("ifgsm", {"steps": 30}),
    ("mifgsm", {}),
    ("pgd_cw", {}),
    ("pgd_cw", {"step": 1 / 30}),
    ("pgd_cw", {"step": 0.5}),
    ("pgd_cw", {"step": 1.0}),
    ("pgd_cw", {"confidence": 0.0}),
]
# Attacks of the surrogate's earlier checkpoints.
COURSE = [("fgsm", {}), ("ifgsm", {}), ("pgd_cw", {})]


def described(name: str, settings: dict) -> str:
    changed = ", ".join(f"{key} {value:.3g}" for key, value in settings.items())
    return f"{name} with {changed}" if changed else name


def measure(surrogate: Ensemble, targets: dict, images: tuple, attack: tuple, epsilon: float) -> dict:
    """Accuracy of each target in percent, by its name."""
    (name, settings), (x, y) = attack, images
    x_adv, _ = AdversarialSets(surrogate).images(make_attack(name, ThreatModel(epsilon), **settings), x, y)
    return {name: 100 * float(np.mean(predictions(target, x_adv) == y)) for name, target in targets.items()}


def checkpointed(path: Path, config: RunConfig, spec) -> Ensemble:
    """An ensemble in float32 with the weights of a checkpoint."""
    ensemble = build_ensemble(config.part(EnsemblePart), spec)
    ensemble.set_weights(keras.saving.load_model(path, compile=False).get_weights())
    return ensemble


def main() -> None:
    paths = directories(Path(RUNS.value))
    require(bool(paths), f"finished runs below {RUNS.value}", "none")
    configs = {path: dataclasses.replace(read_config(path), run_dir=str(path)) for path in paths}
    config = next(iter(configs.values()))
    data = load_data(config.part(DataPart))
    images, epsilon = data.test_set(IMAGES.value), config.largest_epsilon
    targets = {config.target: restore(config, data.spec, path) for path, config in configs.items()}
    base = config.base(config.surrogate_seed)
    directory = directory_of(base)
    *earlier, _ = sorted((directory / CHECKPOINTS).glob("*.keras"))
    tables = {}

    def score(title: str, surrogate: Ensemble, attacks: list) -> None:
        rows: list[Row] = []
        for attack in attacks:
            found = measure(surrogate, targets, images, attack, epsilon)
            rows += [Row(f"{described(*attack)}: {target}, %", value) for target, value in found.items()]
            print(f"{title}, {described(*attack)}: {found}", flush=True)
        tables[title] = rows

    score("surrogate, trained", restore(base, data.spec, directory), SETTINGS)
    for path in earlier:
        score(f"surrogate at {path.stem}", checkpointed(path, base, data.spec), COURSE)
    if OUTPUT.value:
        budget = {"images": len(images[1]), "epsilon": float(np.round(epsilon, 6)), "runs": RUNS.value}
        write_tables(Path(OUTPUT.value), "Accuracy by the attacks' settings", budget, tables)


if __name__ == "__main__":
    app.run(lambda _: main())
