"""The configuration of a run: typed, validated, and the only source of the command's flags.

This module imports no TensorFlow.
"""

import dataclasses
import functools
import json
import os
import re
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from divtf.data import own
from divtf.data.datasets import DATASETS
from divtf.data.paper import ATTACKS as PAPER_ATTACKS
from divtf.data.paper import SETUPS, Setup
from divtf.ensembles.objectives import names as objectives
from divtf.errors import InputError, require
from divtf.networks import names
from divtf.pipeline import objective_fields, static_fields
from divtf.pipeline.fields import (
    ATTACKS,
    COUNT,
    DATA_DIR,
    EPSILONS,
    EXPORT_FORMATS,
    LABEL,
    MEMBERS,
    NOT_NEGATIVE,
    PATH,
    PATH_OR_NOTHING,
    POSITIVE,
    SEED,
    SIZE,
    SLOPE,
    SWITCH,
    TRACKERS,
    Check,
    adopt,
    check_value,
    flag,
    one_of,
    require_one_place,
    without_none,
)
from divtf.pipeline.modes import MODES, Mode
from divtf.pipeline.objective_fields import ObjectiveFields
from divtf.pipeline.static_fields import StaticFields
from divtf.storage.records import STORED_AS
from divtf.training.settings import SCHEDULES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STRATEGIES = ("single", "mirrored", "multi_worker")
PRECISIONS = ("float32", "mixed_bfloat16")
# How a target says in tables that its members have another activation than the paper's.
ACTIVATIONS = {"leaky_relu": "", "relu": "ReLU", "silu": "SiLU"}
MODEL = Check(
    lambda model: model in SETUPS or names.is_own(model),
    f"one of {{{', '.join(SETUPS)}}}, or of your own {names.FORMS}",
    SETUPS,
)
# The paper's number of members.
_MEMBERS = 5
Part = TypeVar("Part", bound="DataclassInstance")


def _grouped(values: Mapping[str, str]) -> str:
    """For each value the names that have it: "mnist for conv3; cifar10 for conv4, mix"."""
    names = {value: [name for name in values if values[name] == value] for value in values.values()}
    return "; ".join(f"{value} for {', '.join(names[value])}" for value in names)


_DATASETS = _grouped({name: setup.dataset for name, setup in SETUPS.items()})
_EPOCHS = _grouped({name: str(setup.epochs) for name, setup in SETUPS.items()})
_EPSILONS = _grouped({name: ",".join(map(str, spec.epsilons)) for name, spec in DATASETS.items()})
_DATASET = Check(
    lambda name: name in DATASETS or (own.is_own(name) and DATA_DIR.holds(name)),
    f"one of {{{', '.join(DATASETS)}}}, PATH.npz, a directory with train/CLASS/file, or tfds:NAME",
    DATASETS,
)
# What runs of earlier versions lack, and stay the same runs as long as it is not given.
_LATER = ("label", "image_size", "flips", "stored_as", *objective_fields.LATER)


@dataclasses.dataclass(frozen=True)
class RunConfig(ObjectiveFields, StaticFields):
    """One target, from its training to its report.

    Where a value is None, the paper's for the model takes its place when the configuration is made; so
    `dataclasses.replace` keeps what was filled in: data set, epochs, epsilons and run directory. Every field
    is a flag of the command; its metadata hold the flag's help and check.

    Raises:
        InputError: if a value is of another type or out of range, or two contradict each other.
    """

    # What is trained.
    label: str | None = flag(
        None,
        "Name of the target in records, tables, pictures and directories.",
        LABEL,
        stands_for="the mode's, with what differs from it",
    )
    model: str = flag("conv3", f"Architecture of the members; your own: {names.FORMS}.", MODEL)
    mode: str = flag("div", "Defence to train.", one_of(MODES))
    num_members: int = flag(
        None,
        "Members of every ensemble: target, surrogate and static model.",
        MEMBERS,
        stands_for="5, or as many as the files of --model hold",
    )
    activation: str = flag("leaky_relu", "Activation of the members.", one_of(ACTIVATIONS))
    negative_slope: float = flag(0.1, "Slope of LeakyReLU below zero.", SLOPE)
    # On what. The types of fields that begin as None are those after it was filled in.
    dataset: str = flag(
        None,
        "Data set; or your images: PATH.npz, a directory with train/CLASS/file and test/CLASS/file, or "
        "tfds:NAME of tensorflow-datasets.",
        _DATASET,
        stands_for=f"the paper's: {_DATASETS}",
    )
    image_size: tuple[int, ...] | None = flag(
        None,
        "Height and width to which images of a directory or of tfds:NAME are resized.",
        SIZE,
        stands_for="the size that they all have",
    )
    flips: bool | None = flag(
        None,
        "Mirror training images at random.",
        SWITCH,
        stands_for="yes for cifar10, no for others",
    )
    data_dir: str | None = flag(
        None,
        "Data directory of tensorflow-datasets.",
        DATA_DIR,
        identity=False,
        path=True,
        stands_for="TFDS_DATA_DIR, or its own in the home directory",
    )
    max_train_examples: int | None = flag(
        None, "Keep the first training images only.", COUNT, stands_for="all of them"
    )
    max_test_examples: int | None = flag(
        None, "Keep the first test images only.", COUNT, stands_for="all of them"
    )
    # How.
    epochs: int = flag(None, "Passes over the training data.", COUNT, stands_for=f"the paper's: {_EPOCHS}")
    batch_size: int = flag(128, "Images a step, over all devices.", COUNT)
    learning_rate: float = flag(0.001, "Step size of Adam.", POSITIVE)
    weight_decay: float = flag(0.0, "Decoupled weight decay; 0 is plain Adam.", NOT_NEGATIVE)
    schedule: str = flag("constant", "Learning rate over the run.", one_of(SCHEDULES))
    seed: int = flag(0, "Seed of the target's weights and data.", SEED)
    strategy: str = flag(
        "single",
        "Devices to train on: one, all of this machine, or those of the machines in TF_CONFIG.",
        one_of(STRATEGIES),
    )
    precision: str = flag("float32", "Arithmetic of the members in training.", one_of(PRECISIONS))
    memory: str | None = flag(
        None,
        "Of a training step: low takes one member after the other, which is slower, for many or large ones.",
        one_of(("low",)),
        identity=False,  # The numbers are the same.
        stands_for="all members at a time",
    )
    deterministic: bool = flag(False, "Bit-equal reruns, at some cost in speed.", SWITCH)
    # Attacked how.
    attacks: tuple[str, ...] = flag(PAPER_ATTACKS, "Attacks on the surrogate.", ATTACKS)
    epsilons: tuple[float, ...] = flag(
        None,
        "l_inf budgets, in units of the image range [0, 1]; asked for with images of your own.",
        EPSILONS,
        stands_for=f"the paper's: {_EPSILONS}",
    )
    max_attack_examples: int | None = flag(
        None, "Attack the first test images only.", COUNT, stands_for="all of them"
    )
    stored_as: str | None = flag(
        None,
        "What targets see of adversarial images: all digits, 256 levels, or JPEG of quality 95.",
        one_of(STORED_AS),
        stands_for="float32",
    )
    surrogate_seed: int = flag(1000, "Seed of the surrogate ensemble.", SEED)
    static_seed: int = flag(2000, "Seed of the static ensemble of modes ens and ens_div.", SEED)
    # Kept where.
    run_dir: str = flag(
        None,
        "Run directory.",
        PATH,
        identity=False,
        path=True,
        stands_for="runs/DATASET-MODEL-MODE-seedSEED; of a table runs/table2",
    )
    resume: bool = flag(
        False, "Go on with an existing run of the same configuration.", SWITCH, identity=False
    )
    checkpoint_minutes: float = flag(
        10.0, "Time between checkpoints within an epoch.", POSITIVE, identity=False
    )
    export: str | None = flag(
        None,
        "Export the trained ensemble: to the run directory, or to --export=PATH.",
        PATH_OR_NOTHING,
        identity=False,
        switch=True,
        path=True,
        stands_for="no export",
    )
    export_format: tuple[str, ...] | None = flag(
        None,
        "What to --export: a SavedModel, of float32 or of uint8 images, an ONNX file, or a LiteRT file in "
        "float32, float16 or int8.",
        EXPORT_FORMATS,
        identity=False,
        stands_for="saved_model",
    )
    track: tuple[str, ...] | None = flag(
        None,
        "Tell these of the run too, in a folder beside its own unless they are set to another place.",
        TRACKERS,
        identity=False,
        stands_for="TensorBoard alone",
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = adopt(getattr(self, field.name), field_type(field.name))
            if field.metadata.get("path") and isinstance(value, str):
                value = os.path.expanduser(value)  # Shells leave the ~ of --run_dir=~/runs as it is.
            # Equal values of another type, as 1 for 1.0, would give the run another digest.
            object.__setattr__(self, field.name, value)
            if value is not None or field.default is not None:
                check_value(field.name, value, field_type(field.name), field.metadata)
        self._fill_in()
        require_one_place(self.export, self.export_format)
        require(
            self.num_members >= 2
            or not (self.objective_name in objectives.OF_SEVERAL or self.adversarial_gal),
            f"--num_members of at least 2 for {self._what_diverges}, whose members are to diverge",
            f"num_members={self.num_members}",
        )
        objective_fields.require_own_settings(self, self.objective_name)
        require(
            self.memory is None or self.objective_name in objectives.MEMBERWISE,
            f"--memory=low with an objective of {{{', '.join(objectives.MEMBERWISE)}}}",
            f"objective {self.objective_name}",
        )
        require(
            len({self.seed, self.surrogate_seed, self.static_seed}) == 3,
            "distinct seeds for target, surrogate and static ensemble: the attacker has neither of ours",
            f"seed={self.seed}, surrogate_seed={self.surrogate_seed}, static_seed={self.static_seed}",
        )

    def _fill_in(self) -> None:
        """Put the paper's values in place of None (section 4.1), and a name for the run directory."""
        if self.objective is not None:
            object.__setattr__(self, "objective", objectives.pinned(self.objective))
        if self.is_own:
            self._check_own()
        setup = Setup(self.dataset, self.epochs) if self.is_own else SETUPS[self.model]
        given = self.dataset or setup.dataset
        dataset = given if given in DATASETS else own.absolute(given)
        object.__setattr__(self, "dataset", dataset)
        paper = {
            "num_members": names.members_in(self.model) or _MEMBERS,
            "epochs": setup.epochs,
            "epsilons": DATASETS[dataset].epsilons if dataset in DATASETS else None,
        }
        for name, value in paper.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        require(
            self.epsilons is not None,
            f"--epsilons for --dataset={given}, for which the paper gives none, in units of the image range "
            "[0, 1], as --epsilons=0.03,0.09",
            "none",
        )
        if self.image_size is not None and len(self.image_size) == 1:
            object.__setattr__(self, "image_size", 2 * self.image_size)
        if self.run_dir is None:
            object.__setattr__(self, "run_dir", f"runs/{self.name}")

    def _check_own(self) -> None:
        """Hold a model of the user's own to what it needs, and its files to what they hold now."""
        for name in ("dataset", "epochs"):
            require(
                getattr(self, name) is not None,
                f"--{name} for --model={self.model}, for which the paper gives none",
                f"{name}=None",
            )
        require(
            (self.activation, self.negative_slope) == ("leaky_relu", 0.1),
            f"no --activation and no --negative_slope with --model={self.model}, which has its own",
            f"activation={self.activation}, negative_slope={self.negative_slope}",
        )
        require(
            self.precision == "float32" or not names.files_of(self.model),
            "--precision=float32 for saved members, which have their own",
            f"precision={self.precision}",
        )
        object.__setattr__(self, "model", names.pinned(self.model))
        held = names.members_in(self.model)
        require(
            self.num_members in (None, held) or held is None,
            f"--num_members={held}, as many as the files of --model hold",
            f"num_members={self.num_members}",
        )

    @property
    def is_own(self) -> bool:
        """Whether the model is the user's own, none of the paper's."""
        return self.model not in SETUPS

    @property
    def model_name(self) -> str:
        """The model in names of runs, records and tables, where the paper's keep theirs for themselves."""
        return names.short(self.model, SETUPS) if self.is_own else self.model

    @property
    def defence(self) -> Mode:
        """What the mode means."""
        return MODES[self.mode]

    @property
    def objective_name(self) -> str:
        """What training minimises: as given, or what the mode asks for."""
        return self.objective or self._objective_of_mode

    @property
    def _objective_of_mode(self) -> str:
        return "gal" if self.defence.gal else "cross_entropy"

    @property
    def _what_diverges(self) -> str:
        return f"objective {self.objective}" if self.objective else f"mode {self.mode}"

    @property
    def objective_settings(self) -> dict[str, Any]:
        """The objective's settings by name: those given, and budgets that go by the data set."""
        smallest, largest = min(self.epsilons_of_dataset), self.largest_epsilon
        budgets = {"trs": smallest, "adversarial": smallest, "dverge": largest}
        name = self.objective_name
        budget = {"epsilon": budgets[name]} if name in budgets else {}
        return budget | objective_fields.settings_of(self, name)

    @property
    def activation_name(self) -> str:
        """The members' activation; LeakyReLU of slope 0 is ReLU, the ablation of section 3.4."""
        flat = self.activation == "leaky_relu" and self.negative_slope == 0
        return "relu" if flat else self.activation

    @property
    def target(self) -> str:
        """The target's name in records, tables and pictures: as given, or Table 2's; "T_Div (ReLU)"."""
        if self.label:
            return self.label
        other = self.objective_name != self._objective_of_mode
        ablations = [
            *([objectives.label(self.objective_name)] if other else []),
            objectives.LABELS["gal"] if self.adversarial_gal else "",
            ACTIVATIONS[self.activation_name],
            *([static_fields.ablation(self)[0]] if self.defence.adversarial else []),
        ]
        told = ", ".join(filter(None, ablations))
        return self.defence.target + (f" ({told})" if told else "")

    @property
    def dataset_name(self) -> str:
        """The data set's name in records, tables and directories; of images of one's own a short one."""
        return self.dataset if self.dataset in DATASETS else own.short_name(self.dataset)

    @property
    def name(self) -> str:
        """A name for the run, for directories."""
        if self.label:
            label = re.sub(r"[^\w+.]+", "_", self.label)
            return f"{self.dataset_name}-{self.model_name}-{label}-seed{self.seed}"
        parts = [
            *(self.dataset_name, self.model_name, self.mode),
            objectives.short(self.objective) if self.objective else "",
            "gal" if self.adversarial_gal else "",
            self.activation_name if self.activation_name != "leaky_relu" else "",
            static_fields.ablation(self)[1] if self.defence.adversarial else "",
            f"seed{self.seed}",
        ]
        return "-".join(filter(None, parts))

    @property
    def largest_epsilon(self) -> float:
        """The budget of D_noise and D_adv, the paper's largest for the data set, whatever is attacked.

        For images of one's own it is the largest of `epsilons`.
        """
        return max(self.epsilons_of_dataset)

    @property
    def epsilons_of_dataset(self) -> tuple[float, ...]:
        """The paper's budgets for the data set, whatever is attacked; of images of one's own `epsilons`."""
        return DATASETS[self.dataset].epsilons if self.dataset in DATASETS else self.epsilons

    def part(self, kind: type[Part]) -> Part:
        """The part of the configuration that a stage needs: its values for the fields of a dataclass."""
        return kind(**{field.name: getattr(self, field.name) for field in dataclasses.fields(kind)})

    def training(self) -> dict[str, Any]:
        """The values on which the trained weights depend, by field name."""
        left_out = {
            *("attacks", "epsilons", "stored_as", "max_attack_examples", "max_test_examples"),
            *("surrogate_seed", "label"),
        }
        if not self.defence.adversarial:
            left_out.add("static_seed")
        if self.objective_name != "gal":
            left_out.add("gal_weight")
        values = {name: value for name, value in self.identity().items() if name not in left_out}
        if self.dataset not in DATASETS:  # Others have budgets of their own, whatever is attacked.
            if set(self.defence.sources) - {"augmented"}:
                values["largest_epsilon"] = self.largest_epsilon
            if "epsilon" in self.objective_settings:
                values["objective_epsilon"] = self.objective_settings["epsilon"]
        return values

    def base(self, seed: int, **changes: Any) -> "RunConfig":
        """The same set-up trained in mode base from another seed: a surrogate or static ensemble.

        It has none of the weights that the members of files begin from: the attacker has none of ours.

        Args:
            seed: of its weights and data.
            **changes: other values than the set-up's, as `mode` and `model` of another surrogate.
        """
        # The other seeds have no meaning there; they only have to differ.
        others = iter(s for s in (0, 1, 2) if s != seed)
        apart: dict[str, Any] = {
            "model": names.anew(self.model),
            "mode": "base",
            "seed": seed,
            "surrogate_seed": next(others),
            "static_seed": next(others),
            "export": None,
            "export_format": None,
            **{"label": None, "track": None, "gal_weight": ObjectiveFields.gal_weight},
            **dict.fromkeys(objective_fields.LATER),
        }
        return dataclasses.replace(self, **(apart | changes))

    def identity(self) -> dict[str, Any]:
        """The values that make this run what it is, as JSON has them."""
        names = [field.name for field in dataclasses.fields(self) if field.metadata.get("identity", True)]
        names = [name for name in names if name not in _LATER or getattr(self, name) is not None]
        if not self.defence.adversarial:
            names = [name for name in names if name not in static_fields.NAMES]
        values = static_fields.to_identity({name: getattr(self, name) for name in names})
        return json.loads(json.dumps(values))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunConfig":
        """A configuration from a JSON object of field values.

        Raises:
            InputError: for fields that this version does not know, or values out of range.
        """
        require(isinstance(values, Mapping), "a JSON object of fields", type(values).__name__)
        values = static_fields.from_identity(dict(values))
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"Expected fields of this version's configuration. Received: {', '.join(unknown)}"
            )
        return cls(**values)


@functools.cache
def field_type(name: str) -> Any:
    """The type of a RunConfig field's value, None aside: int for `int | None`."""
    return without_none(typing.get_type_hints(RunConfig)[name])
