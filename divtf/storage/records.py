"""Records: the numbers that a run measured, as plain values that travel as JSON.

This module imports no TensorFlow, so that reports can be made anywhere.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from divtf.storage.typed import as_tuples, checked

SCHEMA = 1
# Of clean accuracy, by which a surrogate may lie below a target.
_WEAK = 0.2
CLEAN = "clean"
WORST_CASE = "worst_case"
# How adversarial images may be stored before a target sees them; `evaluation.stored` does it.
STORED_AS = ("float32", "uint8", "jpeg")


NORMAL_95 = 1.959963984540054
"""Standard normal quantile of a two-sided interval of 95 %."""


def wilson_interval(correct: int, total: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Args:
        correct: number of successes, 0 <= correct <= total.
        total: number of trials, at least 1.
        z: standard normal quantile; the default gives 95 % coverage.

    Returns:
        Lower and upper bound, both in [0, 1].

    Raises:
        ValueError: if the counts are not those of a proportion.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    _require_proportion(correct, total)
    from scipy import stats  # Here, since it takes most of a second and only reports need it.

    coverage = math.erf(z / math.sqrt(2))
    interval = stats.binomtest(correct, total).proportion_ci(coverage, method="wilson")
    return float(interval.low), float(interval.high)


def trained_how(surrogate: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a surrogate, without its seed and how it came out."""
    apart = ("seed", "clean accuracy", "no gradient at")
    return {name: value for name, value in surrogate.items() if name not in apart}


def is_weak(surrogate: float, target: float) -> bool:
    """Whether a surrogate of that clean accuracy is a weak attacker of a target of that one, both in [0, 1].

    The gap is a judgement: surrogates of the paper's protocol are within a few points of their targets.
    """
    return target - surrogate > _WEAK


def _require_proportion(correct: int, total: int) -> None:
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"Expected 0 <= correct <= total and total >= 1. Received: {correct=}, {total=}")


def packed(outcomes: Iterable[bool]) -> str:
    """Outcomes as hexadecimal digits, four in each, the first in its highest bit; zeros fill the last."""
    bits = "".join("1" if outcome else "0" for outcome in outcomes)
    digits = -(-len(bits) // 4)
    return f"{int(bits.ljust(4 * digits, '0'), 2):0{digits}x}" if bits else ""


def unpacked(hits: str, count: int) -> tuple[bool, ...]:
    """The inverse of `packed`, for so many outcomes.

    Raises:
        ValueError: if the digits are not those of so many outcomes.
    """
    digits = -(-count // 4)
    if len(hits) != digits or not set(hits) <= set("0123456789abcdef"):
        raise ValueError(f"Expected {digits} hexadecimal digits of {count} outcomes. Received: {hits!r:.80}")
    bits = f"{int(hits, 16):0{4 * digits}b}" if hits else ""
    if "1" in bits[count:]:
        raise ValueError(f"Expected outcomes of {count} images. Received: more, {hits!r:.80}")
    return tuple(bit == "1" for bit in bits[:count])


@dataclasses.dataclass(frozen=True)
class TransferResult:
    """Accuracy of one target on one set of images (paper, Table 2: one cell).

    Attributes:
        target: name of the attacked ensemble, as "T_Div".
        surrogate: name of the ensemble on which the images were made; "" for clean images.
        attack: a name of `divtf.attacks.methods.ATTACKS`, `CLEAN`, or `WORST_CASE` (an image counts as
            correct only if it is so when clean and under every attack of this epsilon).
        epsilon: l_inf budget of the perturbation, in units of the image range; 0 for clean images.
        correct: images that the target classifies as labelled.
        total: images tried.
        saturated: share of the images for which every surrogate member's loss is below 1e-7.
        adversarial_set: digest of the images, so that equal inputs can be recognised.
        unmoved: images that the attack left as they were, having no gradient there; None if not counted.
        correct_by_class, total_by_class: the same counts for each class; empty if not counted.
        settings: every parameter of the attack by name, as "steps"; empty where it has none, or none were
            recorded.
        surrogate_settings: what tells the surrogate whole, as "objective", "members" and "seed", and its
            "clean accuracy" on the attacked images, a share; empty if not recorded.
        stored_as: one of `STORED_AS`: what the target saw of the adversarial images.
        hits: what `packed` gives of the outcomes, image by image in order; "" if not kept.
        images: digest of the clean images and labels, so that outcomes on the same ones can be paired; "" if
            not kept.
    """

    target: str
    surrogate: str
    attack: str
    epsilon: float
    correct: int
    total: int
    saturated: float = 0.0
    adversarial_set: str = ""
    unmoved: int | None = None
    correct_by_class: tuple[int, ...] = ()
    total_by_class: tuple[int, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    surrogate_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stored_as: str = "float32"
    hits: str = ""
    images: str = ""

    @property
    def outcomes(self) -> tuple[bool, ...]:
        """Whether the target classifies each image as labelled, in order; empty if it was not kept."""
        return unpacked(self.hits, self.total) if self.hits else ()

    @property
    def accuracy(self) -> float:
        """Share of correct images, in [0, 1]."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `accuracy`."""
        return wilson_interval(self.correct, self.total)

    def conditions(self) -> dict[str, Any]:
        """As `Record.conditions` has it; the surrogate by its training, not by how well it came out."""
        trained = trained_how(self.surrogate_settings)
        return {
            "settings": self.settings or None,
            "number of images": self.total,
            "images": self.images or None,
            "stored as": self.stored_as,
            "surrogate": trained or None,
        }

    def to_json(self) -> dict[str, Any]:
        """All attributes, and the accuracy and its interval for readers of the file."""
        low, high = self.interval
        return dataclasses.asdict(self) | {"accuracy": self.accuracy, "low": low, "high": high}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TransferResult":
        """The inverse of `to_json`; derived values are computed anew.

        Raises:
            ValueError: if a value is of another type, the counts are not those of a proportion, or the
                outcomes not those of the counts.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        # What an older record lacks has its default.
        result = checked(cls(**{name: as_tuples(record[name]) for name in names if name in record}))
        _require_proportion(result.correct, result.total)
        for correct, total in zip(result.correct_by_class, result.total_by_class, strict=True):
            _require_proportion(correct, max(total, 1))  # Of a class there may be no image.
        if result.hits and (right := sum(result.outcomes)) != result.correct:
            raise ValueError(f"Expected outcomes of which {result.correct} are right. Received: {right}")
        return result


@dataclasses.dataclass(frozen=True)
class Record:
    """Something measured on one target, kept as a JSON object.

    Attributes:
        target: "T_Base", "T_Div", "T_Ens", "T_Ens+Div" or an ablation's name, as "T_Div (ReLU)".
        model, dataset: registry names; of a model of the user's own its short name.
        seed: seed of the target's training.
        budget: what was spent: members, epochs, images, precision; "reduced" is true where this is
            less than the paper's, None for a model that the paper does not have.
        provenance: of the target: training command, commit, versions, hours and digests; "training" is one
            of all that the weights depend on but seeds and places.
    """

    target: str
    model: str
    dataset: str
    seed: int
    budget: Mapping[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @property
    def subject(self) -> str:
        """Model and dataset, as "conv3 on mnist"."""
        return f"{self.model} on {self.dataset}"

    @property
    def run(self) -> str:
        """What tells the run among those of a result, as "T_Div, conv3 on mnist, seed 0"."""
        return f"{self.target}, {self.subject}, seed {self.seed}"

    @property
    def table(self) -> str:
        """What the records that stand in one table have in common."""
        return self.subject

    def common(self) -> dict[str, Any]:
        """What every record of the same target has: all attributes of this class."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Record)}

    def table_conditions(self) -> dict[str, Any]:
        """What must be the same of all targets and seeds of a table; as `conditions`."""
        return {}

    def conditions(self) -> dict[str, Any]:
        """What must be the same of all seeds of a target in a table; None where it was not recorded."""
        seeds = ("surrogate seed", "static seed")
        budget = {name: value for name, value in self.budget.items() if name not in seeds}
        return budget | {"training": self.provenance.get("training")}

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields} | {"schema": SCHEMA}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; what an older record lacks has its default.

        Raises:
            ValueError: if the record was written under another schema, or a value is of another type.
        """
        if record.get("schema") != SCHEMA:
            received = record.get("schema")
            raise ValueError(f"Expected a record of schema {SCHEMA}. Received: schema={received!r}")
        names = [field.name for field in dataclasses.fields(cls)]
        return checked(cls(**{name: as_tuples(record[name]) for name in names if name in record}))


@dataclasses.dataclass(frozen=True)
class ScoredRecord(Record):
    """A record that holds accuracies of its target.

    Attributes:
        results: one for each set of images that the target was tried on.
    """

    results: tuple[TransferResult, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it."""
        return super().to_json() | {"results": [result.to_json() for result in self.results]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; what an older record lacks has its default.

        Raises:
            ValueError: if the record was written under another schema, or a value is of another type.
        """
        results = [TransferResult.from_json(result) for result in record["results"]]
        return super().from_json({**record, "results": results})


@dataclasses.dataclass(frozen=True)
class TargetRecord(ScoredRecord):
    """All that was measured on one target: one row of Table 2 and its share of Figure 4.

    Attributes:
        results: clean accuracy, then one result for each attack and epsilon.
        coherence: Eq. 7 on clean test images, one value an image.
        pair_cosines: mean of Eq. 6 over the same images, [N][N], ones on the diagonal.
        gradients: means over the same images: "gal" (Eq. 8), and the shares of zero entries and of zero
            product terms in the input gradients (section 3.4).
        class_names: what the labels mean; empty where nobody says.
        on_static_models: what the target does with images of the static models of its training, as
            `pipeline.leaking` tells it.
    """

    coherence: tuple[float, ...] = ()
    pair_cosines: tuple[tuple[float, ...], ...] = ()
    gradients: Mapping[str, float] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    on_static_models: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self):
        if any(len(row) != len(self.pair_cosines) for row in self.pair_cosines):
            raise ValueError(f"Expected pair_cosines [N][N]. Received: {self.pair_cosines!r:.80}")

    def conditions(self) -> dict[str, Any]:
        """As `Record` has it, and what each set of images was made of."""
        return super().conditions() | {
            f"{result.attack} at {result.epsilon:g}, {name}": value
            for result in self.results
            for name, value in result.conditions().items()
        }

    def result(self, attack: str, epsilon: float) -> TransferResult | None:
        """The result of that attack at that epsilon, or None if it was not measured."""
        for result in self.results:
            if result.attack == attack and math.isclose(result.epsilon, epsilon, abs_tol=1e-9):
                return result
        return None


@dataclasses.dataclass(frozen=True)
class TransferMatrixRecord(ScoredRecord):
    """How a target fares on the images of each ensemble of its table: a column of the transfer matrix.

    Attributes:
        results: for each source, named by `surrogate`, one result for each attack and epsilon, and the
            worst case of the attacks.
        sources: name of each attacked ensemble -> what tells its weights from others.
        analysis: command, commit and versions of the measurement.
    """

    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    analysis: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def table(self) -> str:
        """All columns of a seed: they are of the same sources."""
        return f"{self.subject}, seed {self.seed}"

    def table_conditions(self) -> dict[str, Any]:
        """As `Record` has it: the sources and what they were attacked by."""
        attacks = sorted({(result.attack, result.epsilon, result.total) for result in self.results})
        return {"sources": self.sources, "attacks": attacks}


@dataclasses.dataclass(frozen=True)
class GaasRecord(Record):
    """What GAAS found on one target: its curves of Figure 5 (section 4.4).

    Attributes:
        images: the first test images were analysed, as many as this.
        curves: one for each epsilon and order k, as `GaasResult.to_json` gives it: "epsilon", "order",
            "probability" of at least m = 1..k successful directions, "images" that the target
            classifies correctly, which the probability is over, "left_out" ones, and more.
        analysis: command, commit and versions of the analysis.
    """

    images: int
    curves: tuple[Mapping[str, Any], ...]
    analysis: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def conditions(self) -> dict[str, Any]:
        """As `Record` has it, and what was analysed."""
        curves = [(curve["epsilon"], curve["order"]) for curve in self.curves]
        return super().conditions() | {"images": self.images, "curves": curves}


@dataclasses.dataclass(frozen=True)
class SparsityRecord(Record):
    """Zeros in the input gradients of a target trained with GAL, and GAL in its training (section 3.4).

    Attributes:
        activation: of the members, as "leaky_relu" or "relu"; "own" of the user's own models.
        zero_entries: share of the entries of the members' input gradients that are exactly zero.
        zero_products: share of the terms of the pairs' inner products that are exactly zero.
        gal: mean of Eq. 8 over the training batches, one value an epoch.
    """

    activation: str
    zero_entries: float
    zero_products: float
    gal: tuple[float, ...]

    def conditions(self) -> dict[str, Any]:
        """As `Record` has it, and the members' activation."""
        return super().conditions() | {"activation": self.activation}


AnyRecord = TypeVar("AnyRecord", bound=Record)


def grouped(records: Iterable[AnyRecord], key: Callable[[AnyRecord], str]) -> dict[str, list[AnyRecord]]:
    """Key -> the records with that key, both in order of appearance."""
    groups: dict[str, list[AnyRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def epsilons(records: Iterable[ScoredRecord]) -> Sequence[float]:
    """The perturbation budgets that occur in the records, ascending, without the clean 0."""
    return sorted({result.epsilon for record in records for result in record.results} - {0.0})


def attacks(records: Iterable[ScoredRecord]) -> Sequence[str]:
    """The attacks that occur in the records, in order of appearance, without clean and worst case."""
    names = (result.attack for record in records for result in record.results)
    return [name for name in dict.fromkeys(names) if name not in (CLEAN, WORST_CASE)]
