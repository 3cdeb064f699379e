"""The configuration of a run: typed, validated, and the only source of the command's flags.

This module imports no TensorFlow.
"""

import dataclasses
import functools
import hashlib
import json
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from divtf.datasets import DATASETS
from divtf.errors import InputError, require

ATTACK_NAMES = ("fgsm", "rfgsm", "ifgsm", "mifgsm", "pgd_cw")
STRATEGIES = ("single", "mirrored", "multi_worker")
PRECISIONS = ("float32", "mixed_bfloat16")
SCHEDULES = ("constant", "cosine")
STATIC_ATTACKS = ("fgsm", "step_ll")


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a target is trained (sections 4.1 and 4.2).

    Attributes:
        target: its name in Table 2.
        gal: whether GAL is added to the cross-entropy (Equation 9).
        sources: the image sources over which an epoch passes.
    """

    target: str
    gal: bool
    sources: tuple[str, ...]


MODES: dict[str, Mode] = {
    "base": Mode("T_Base", False, ("augmented",)),
    "div": Mode("T_Div", True, ("augmented", "noise")),
    "ens": Mode("T_Ens", False, ("augmented", "adversarial")),
    "ens_div": Mode("T_Ens+Div", True, ("augmented", "noise", "adversarial")),
    # Not in the paper: how much of T_Div's gain the noise gives without GAL.
    "noise": Mode("T_Noise", False, ("augmented", "noise")),
}


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


def _flag(
    default: Any, help_text: str, check: tuple[Callable[[Any], bool], str] | None = None, **metadata: Any
) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text, "check": check, **metadata})


def _one_of(names: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in names, f"one of {{{', '.join(names)}}}"


# What a path may be: a scheme such as gs:// would make a directory of that name here.
_DATA_DIR = (lambda path: path != "" and path.isprintable(), "a path of printable characters")
_PATH = (
    lambda path: _DATA_DIR[0](path) and "://" not in path,
    "a path on this machine, of printable characters",
)
_TYPES = {str: "text", bool: "true or false"}
# Training is in single precision, where larger numbers are infinite.
_LARGEST = 3.4e38
_POSITIVE = (lambda value: 0 < value <= _LARGEST, f"a number > 0, at most {_LARGEST:g}")
_NOT_NEGATIVE = (lambda value: 0 <= value <= _LARGEST, f"a number >= 0, at most {_LARGEST:g}")
_COUNT = (lambda value: 1 <= value < 2**31, "a whole number in [1, 2^31)")
_MEMBERS = (lambda value: 1 <= value <= 1000, "a whole number in [1, 1000]")
_SEED = (lambda value: 0 <= value < 2**31, "a whole number in [0, 2^31)")
_SLOPE = (lambda value: 0 <= value < 1, "a number in [0, 1)")
_ATTACKS = (
    lambda names: set(names) <= set(ATTACK_NAMES) and len(set(names)) == len(names),
    f"distinct names of {{{', '.join(ATTACK_NAMES)}}}",
)
_EPSILONS = (
    lambda values: 0 < len(set(values)) == len(values) and all(0 < value <= 1 for value in values),
    "distinct numbers in (0, 1], at least one",
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One target, from its training to its report. None takes the paper's value for the model.

    Every field is a flag of the command; its metadata hold the flag's help and check.

    Raises:
        InputError: if a value is of another type or out of range, or two contradict each other.
    """

    # Where the default is None, `resolved` puts the paper's value; the types are those after that.
    # What is trained.
    model: str = _flag("conv3", "Architecture of the members.", _one_of(SETUPS))
    mode: str = _flag("div", "Defence to train.", _one_of(MODES))
    num_members: int = _flag(5, "Members of every ensemble: target, surrogate and static model.", _MEMBERS)
    activation: str = _flag("leaky_relu", "Activation of the members.", _one_of(("leaky_relu", "relu")))
    negative_slope: float = _flag(0.1, "Slope of LeakyReLU below zero.", _SLOPE)
    gal_weight: float = _flag(0.5, "lambda of Equation 9.", _NOT_NEGATIVE)
    # On what.
    dataset: str = _flag(None, "Data set; default: the paper's for the model.", _one_of(DATASETS))
    data_dir: str | None = _flag(
        None,
        "Data directory of tensorflow-datasets; default: its own.",
        _DATA_DIR,
        identity=False,
        path=True,
    )
    max_train_examples: int | None = _flag(None, "Keep the first training images only.", _COUNT)
    max_test_examples: int | None = _flag(None, "Keep the first test images only.", _COUNT)
    # How.
    epochs: int = _flag(None, "Passes over the training data; default: the paper's.", _COUNT)
    batch_size: int = _flag(128, "Images a step, over all devices.", _COUNT)
    learning_rate: float = _flag(0.001, "Step size of Adam.", _POSITIVE)
    weight_decay: float = _flag(0.0, "Decoupled weight decay; 0 is plain Adam.", _NOT_NEGATIVE)
    schedule: str = _flag("constant", "Learning rate over the run.", _one_of(SCHEDULES))
    seed: int = _flag(0, "Seed of the target's weights and data.", _SEED)
    strategy: str = _flag(
        "single",
        "Devices to train on: one, all of this machine, or those of the machines in TF_CONFIG.",
        _one_of(STRATEGIES),
    )
    precision: str = _flag("float32", "Arithmetic of the members in training.", _one_of(PRECISIONS))
    deterministic: bool = _flag(False, "Bit-equal reruns, at some cost in speed.")
    # Attacked how.
    attacks: tuple[str, ...] = _flag(ATTACK_NAMES, "Attacks on the surrogate.", _ATTACKS)
    epsilons: tuple[float, ...] = _flag(None, "l_inf budgets; default: the paper's.", _EPSILONS)
    max_attack_examples: int | None = _flag(None, "Attack the first test images only.", _COUNT)
    surrogate_seed: int = _flag(1000, "Seed of the surrogate ensemble.", _SEED)
    static_seed: int = _flag(2000, "Seed of the static ensemble of modes ens and ens_div.", _SEED)
    static_attack: str = _flag(
        "fgsm",
        "What makes D_adv: FGSM by true labels, or a step to the least likely class, which tells no label.",
        _one_of(STATIC_ATTACKS),
    )
    # Kept where.
    run_dir: str = _flag(
        None, "Run directory; default: made up below runs/.", _PATH, identity=False, path=True
    )
    resume: bool = _flag(False, "Go on with an existing run of the same configuration.", identity=False)
    checkpoint_minutes: float = _flag(
        10.0, "Time between checkpoints within an epoch.", _POSITIVE, identity=False
    )
    export: str | None = _flag(
        None,
        "Export a SavedModel: to the run directory, or to --export=PATH.",
        (lambda path: path == "" or _PATH[0](path), _PATH[1]),
        identity=False,
        switch=True,
        path=True,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _adopted(getattr(self, field.name), field_type(field.name))
            if field.metadata.get("path") and isinstance(value, str):
                value = os.path.expanduser(value)  # Shells leave the ~ of --run_dir=~/runs as it is.
            # Equal values of another type, as 1 for 1.0, would give the run another digest.
            object.__setattr__(self, field.name, value)
            if value is not None or field.default is not None:
                _check_field(field, value)
        require(
            self.num_members >= 2 or not MODES[self.mode].gal,
            f"--num_members of at least 2 for mode {self.mode}, whose members are to diverge",
            f"num_members={self.num_members}",
        )
        require(
            len({self.seed, self.surrogate_seed, self.static_seed}) == 3,
            "distinct seeds for target, surrogate and static ensemble: the attacker has neither of ours",
            f"seed={self.seed}, surrogate_seed={self.surrogate_seed}, static_seed={self.static_seed}",
        )

    def resolved(self) -> "RunConfig":
        """The configuration with the paper's values in place of None (section 4.1)."""
        setup = SETUPS[self.model]
        dataset = self.dataset or setup.dataset
        defaults: dict[str, Any] = {
            "dataset": dataset,
            "epochs": self.epochs or setup.epochs,
            "epsilons": self.epsilons or DATASETS[dataset].epsilons,
        }
        resolved = dataclasses.replace(self, **defaults)
        return dataclasses.replace(resolved, run_dir=self.run_dir or f"runs/{resolved.name}")

    @property
    def rectified(self) -> bool:
        """Whether the members have ReLU, the ablation of section 3.4: by name, or by a slope of 0."""
        return self.activation == "relu" or self.negative_slope == 0

    @property
    def least_likely(self) -> bool:
        """Whether the target trains on images that lead to the static model's least likely class."""
        return "adversarial" in MODES[self.mode].sources and self.static_attack == "step_ll"

    @property
    def target(self) -> str:
        """The target's name in records, tables and pictures: Table 2's; "T_Div (ReLU)" in the ablation."""
        ablations = [*(["ReLU"] if self.rectified else []), *(["Step-LL"] if self.least_likely else [])]
        return MODES[self.mode].target + (f" ({', '.join(ablations)})" if ablations else "")

    @property
    def name(self) -> str:
        """A name for the run, for directories."""
        ablations = ("-relu" if self.rectified else "") + ("-step_ll" if self.least_likely else "")
        return f"{self.dataset}-{self.model}-{self.mode}{ablations}-seed{self.seed}"

    @property
    def largest_epsilon(self) -> float:
        """epsilon of D_noise and D_adv: the paper's largest for the data set, whatever is attacked."""
        return DATASETS[self.resolved().dataset].epsilons[-1]

    def training(self) -> dict[str, Any]:
        """The resolved values on which the trained weights depend, by field name."""
        attacked = ("attacks", "epsilons", "max_attack_examples", "max_test_examples", "surrogate_seed")
        without_static = () if "adversarial" in MODES[self.mode].sources else ("static_seed",)
        left_out = {*attacked, *without_static, *(() if MODES[self.mode].gal else ("gal_weight",))}
        return {name: value for name, value in self.identity().items() if name not in left_out}

    def base(self, seed: int) -> "RunConfig":
        """The same set-up trained in mode base from another seed: a surrogate or static ensemble."""
        # The other seeds have no meaning there; they only have to differ.
        others = iter(s for s in (0, 1, 2) if s != seed)
        return dataclasses.replace(
            self, mode="base", seed=seed, surrogate_seed=next(others), static_seed=next(others), export=None
        )

    def identity(self) -> dict[str, Any]:
        """The resolved values that make this run what it is, as JSON has them."""
        values = self.resolved()
        names = [field.name for field in dataclasses.fields(self) if field.metadata.get("identity", True)]
        if not self.least_likely:  # Runs of 0.1.0 lack it, and stay the same runs.
            names.remove("static_attack")
        return json.loads(json.dumps({name: getattr(values, name) for name in names}))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunConfig":
        """A configuration from a JSON object of field values.

        Raises:
            InputError: for fields that this version does not know, or values out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"Expected fields of this version's configuration. Received: {', '.join(unknown)}"
            )
        return cls(**values)


@functools.cache
def field_type(name: str) -> Any:
    """The type of a RunConfig field's value, None aside: int for `int | None`."""
    hint = typing.get_type_hints(RunConfig)[name]
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _adopted(value: Any, kind: Any) -> Any:
    """The value in its field's type, if it is a number, path or list that has the same meaning there."""
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_adopted(item, typing.get_args(kind)[0]) for item in value)
    if isinstance(value, os.PathLike) and kind is str:
        return os.fspath(value)
    number: Any = {int: numbers.Integral, float: numbers.Real}.get(kind, ())
    return kind(value) if isinstance(value, number) and not isinstance(value, bool) else value


def _has_type(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(item, typing.get_args(kind)[0]) for item in value)
    return type(value) is kind


def _check_field(field: dataclasses.Field, value: Any) -> None:
    kind = field_type(field.name)
    holds, expected = field.metadata["check"] or (lambda _: True, _TYPES.get(kind, ""))
    require(
        _has_type(value, kind) and holds(value),
        f"--{field.name} as {expected}",
        f"{field.name}={_shown(value)}",
    )


def digest(values: Any) -> str:
    """A short name for JSON-like values: 12 hexadecimal digits of their SHA-256."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if text.isprintable() else ascii(text)
