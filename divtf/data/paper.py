"""The paper's facts as data: its models' set-ups, data sets, budgets and attacks, and Table 2.

Source: Kariyappa and Qureshi (2019), "Improving Adversarial Robustness of Ensembles with Diversity
Training", sections 4.1 and 4.2, Table 2. This module imports no TensorFlow.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Setup:
    """The paper's choice for a model: data set and epochs (section 4.1)."""

    dataset: str
    epochs: int


# resnet26 and mix are given no epochs by the paper; they take those of resnet20.
SETUPS: dict[str, Setup] = {
    "conv3": Setup("mnist", 10),
    "conv4": Setup("cifar10", 20),
    "resnet20": Setup("cifar10", 40),
    "resnet26": Setup("cifar10", 40),
    "mix": Setup("cifar10", 40),
}

# Of Table 2.
MODELS = ("conv3", "conv4", "resnet20", "mix")
TARGETS = ("T_Base", "T_Div", "T_Ens", "T_Ens+Div")
ATTACKS = ("fgsm", "rfgsm", "ifgsm", "mifgsm", "pgd_cw")
EPSILONS = {"mnist": (0.1, 0.3), "cifar10": (0.03, 0.09)}
DATASETS = {model: SETUPS[model].dataset for model in MODELS}

# One line a row of the table: clean, then a pair for each of ATTACKS at the dataset's two EPSILONS.
_ROWS = {
    ("conv3", "T_Base"): (99.4, (91.4, 9.7), (92.0, 9.7), (86.1, 0.7), (85.7, 2.6), (92.3, 9.7)),
    ("conv3", "T_Div"): (99.2, (97.1, 34.3), (97.8, 30.6), (97.6, 20.4), (96.9, 16.9), (97.1, 35.9)),
    ("conv3", "T_Ens"): (99.4, (98.9, 61.3), (99.0, 42.5), (99.0, 56.3), (98.8, 45.9), (98.8, 44.8)),
    ("conv3", "T_Ens+Div"): (99.3, (98.9, 73.7), (99.0, 79.3), (99.0, 87.0), (98.8, 61.4), (98.2, 71.3)),
    ("conv4", "T_Base"): (85.1, (14.1, 7.8), (16.8, 3.2), (9.5, 2.8), (9.0, 7.4), (8.8, 5.9)),
    ("conv4", "T_Div"): (82.4, (45.3, 14.7), (56.0, 15.1), (51.4, 5.6), (35.0, 7.5), (43.9, 11.6)),
    ("conv4", "T_Ens"): (82.9, (64.6, 43.2), (70.5, 54.9), (69.4, 54.3), (59.9, 38.6), (62.1, 42.8)),
    ("conv4", "T_Ens+Div"): (80.5, (68.5, 54.2), (72.0, 66.7), (72.4, 66.3), (66.9, 55.4), (66.9, 54.3)),
    ("resnet20", "T_Base"): (88.9, (28.8, 13.1), (25.7, 7.1), (8.6, 3.2), (10.2, 6.3), (18.7, 10.2)),
    ("resnet20", "T_Div"): (84.0, (58.4, 32.4), (64.3, 23.9), (67.7, 44.2), (50.0, 11.7), (53.2, 25.4)),
    ("resnet20", "T_Ens"): (87.9, (70.9, 44.3), (77.2, 50.9), (79.6, 65.5), (66.5, 30.5), (65.9, 37.8)),
    ("resnet20", "T_Ens+Div"): (84.7, (74.9, 50.7), (78.1, 57.6), (79.7, 71.5), (74.1, 47.4), (71.3, 46.3)),
    ("mix", "T_Base"): (89.7, (27.9, 9.6), (30.9, 6.1), (13.9, 3.1), (10.6, 5.9), (26.0, 7.6)),
    ("mix", "T_Div"): (88.2, (55.8, 23.2), (65.1, 25.0), (61.8, 19.7), (42.4, 7.1), (55.9, 22.2)),
    ("mix", "T_Ens"): (87.4, (72.6, 49.6), (76.9, 58.4), (77.1, 61.4), (66.9, 27.9), (70.0, 47.1)),
    ("mix", "T_Ens+Div"): (86.4, (73.4, 52.2), (77.9, 64.1), (77.2, 67.5), (69.2, 39.7), (71.8, 50.4)),
}


def _accuracies(model: str, target: str) -> dict[str, dict[float, float]]:
    clean, *pairs = _ROWS[model, target]
    budgets = EPSILONS[DATASETS[model]]
    attacked = {
        attack: dict(zip(budgets, pair, strict=True)) for attack, pair in zip(ATTACKS, pairs, strict=True)
    }
    return {"clean": {0.0: clean}, **attacked}


TABLE_2 = {model: {target: _accuracies(model, target) for target in TARGETS} for model in MODELS}
"""model -> target -> "clean" or attack -> epsilon -> accuracy in percent."""


def paper_accuracy(model: str, target: str, attack: str, epsilon: float) -> float | None:
    """The accuracy that Table 2 gives, in percent.

    Args:
        model: a name of `MODELS`; the table has each on one dataset, see `DATASETS`.
        target: a name of `TARGETS`.
        attack: a name of `ATTACKS`, or "clean" with epsilon 0.
        epsilon: l_inf budget, in units of the image range.

    Returns:
        The accuracy, or None where the table has no such cell.

    Source: section 4.2, Table 2.
    """
    cells = TABLE_2.get(model, {}).get(target, {}).get(attack, {})
    return next((value for key, value in cells.items() if math.isclose(key, epsilon, abs_tol=1e-9)), None)


def is_paper_dataset(model: str, dataset: str) -> bool:
    """Whether the dataset is the model's in Table 2; a part of it, as "mnist5k", is not."""
    return DATASETS.get(model) == dataset
