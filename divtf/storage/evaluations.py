"""Records of evaluations: every attack's outcome on every image. No TensorFlow."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from divtf.storage.records import Record, TargetRecord, TransferResult, packed, trained_how, unpacked
from divtf.storage.typed import as_tuples, checked

TRANSFER, WHITE_BOX, QUERY = "transfer", "white box", "query"
KINDS = (TRANSFER, WHITE_BOX, QUERY)
SAME_AS = "same as"
"""What the names of surrogates begin with that are trained as a target is, before that target's."""
# What exports give, the bar to beat, and what flagged most of what fools a diverse ensemble in trials.
SHOWN_SCORES = ("disagreement", "one_minus_confidence", "pair_divergence")
"""Scores of detection that reports show, each of which one who knows of it evades."""


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """What one attack did to one target.

    Attributes:
        attack: its name.
        kind: one of `KINDS`: made on a surrogate, with the target's gradients, or by asking for its scores.
        surrogate: on which it was made; "" where that is the target itself.
        epsilon: l_inf budget, in units of the image range.
        settings: all parameters of the attack.
        version: number that tells it from the same attack with other random draws.
        gradients: gradients of all attacked members that it took for an image.
        queries: scores that it may have asked for, of an image; 0 of an attack by gradients.
        tried: `packed`, whether each image was attacked; those that had fooled every target were not.
        hits: `packed`, whether each image is classified as labelled then; not set where it was not attacked.
        queries_taken: of the images that were attacked, how many scores each took until it fooled the
            target; more than `queries` if it never did.
        adversarial_set: digest of the images' file.
    """

    attack: str
    kind: str
    epsilon: float
    settings: Mapping[str, Any]
    gradients: int
    queries: int
    tried: str
    hits: str
    surrogate: str = ""
    version: int = 0
    queries_taken: tuple[int, ...] = ()
    adversarial_set: str = ""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TrialResult":
        """From a JSON object of all attributes.

        Raises:
            ValueError: if a value is of another type.
        """
        return checked(
            cls(**{field.name: as_tuples(record[field.name]) for field in dataclasses.fields(cls)})
        )


@dataclasses.dataclass(frozen=True)
class EvaluationRecord(Record):
    """What a protocol found on one target.

    Attributes:
        protocol: its name.
        images: number of test images, the first ones.
        epsilons: l_inf budgets, ascending.
        clean: `packed`, whether each image is classified as labelled before any attack.
        trials: one result for each attack, surrogate, version and epsilon, in the order in which they came.
        surrogates: name -> what tells the surrogate whole, its clean accuracy with it.
        stored_as: what the target saw of adversarial images.
        query_images: queries attacked the first images, as many as this, by which queries alone are judged;
            and of the others, in later records, those that withstood all else, which count in everything.
        images_digest: of the clean images and labels, by which results on the same ones are known.
        paper: the worst cases of the run's own evaluation, by the paper's protocol, one for each epsilon.
        checks: of masked gradients, as `evaluation.masking` tells them.
        detection: as `evaluation.detection` tells it; "fooled_were_right" is true where images that fool are
            right when clean. Earlier records lack it, and count images that were wrong then too.
        analysis: command, commit and versions of the evaluation.
        changed: values that were given in place of the protocol's own, by their names.
    """

    protocol: str
    images: int
    epsilons: tuple[float, ...]
    clean: str
    trials: tuple[TrialResult, ...]
    surrogates: Mapping[str, Mapping[str, Any]]
    stored_as: str
    query_images: int
    images_digest: str
    paper: tuple[TransferResult, ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    detection: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    analysis: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    changed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def tried_by(self) -> str:
        """The protocol in words: its name, and what was changed, as "strong (changed: queries 0)"."""
        values = {
            name: "+".join(value) if isinstance(value, list | tuple) else value
            for name, value in self.changed.items()
        }
        parts = [f"{name.replace('_', ' ')} {value}" for name, value in values.items()]
        return f"{self.protocol} (changed: {'; '.join(parts)})" if parts else self.protocol

    @property
    def table(self) -> str:
        """Model, data set and protocol, as "conv3 on mnist, protocol strong"."""
        return f"{self.subject}, protocol {self.tried_by}"

    def table_conditions(self) -> dict[str, Any]:
        """As `Record` has it: what was tried on which images, stored how, on surrogates trained how."""
        names = ("images", "images_digest", "query_images", "epsilons", "stored_as")
        surrogates = {f"surrogate {name}": trained_how(told) for name, told in self.surrogates.items()}
        return {name: getattr(self, name) for name in names} | surrogates | self._tried()

    def _tried(self) -> dict[str, Any]:
        """What tells an attack -> its settings; checks of some targets try more of the white box's."""
        tried: dict[str, Any] = {}
        for trial in self.trials:
            name = " ".join(
                filter(None, (trial.kind, trial.attack, trial.surrogate, f"at {trial.epsilon:g}"))
            )
            settings = tried.setdefault(name, [])
            if trial.kind != WHITE_BOX:
                settings.append((trial.version, trial.settings))
        return tried

    @property
    def is_masked(self) -> bool:
        """Whether it shows signs of masked gradients: a check failed."""
        return not all(check["passed"] for check in self.checks)

    def check_name(self, check: Mapping[str, Any]) -> str:
        """What one of the checks looked for, and at which epsilon, if not the smallest."""
        # Records of earlier versions have no other.
        epsilon = check.get("epsilon", min(self.epsilons))
        return check["name"] if epsilon == min(self.epsilons) else f"{check['name']}, at {epsilon:g}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it."""
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        return super().to_json() | {"trials": trials, "paper": [result.to_json() for result in self.paper]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: if the record was written under another schema, or a value is of another type.
        """
        trials = [TrialResult.from_json(trial) for trial in record["trials"]]
        paper = [TransferResult.from_json(result) for result in record["paper"]]
        return super().from_json({**record, "trials": trials, "paper": paper})

    def standing(
        self, epsilon: float, counts: Callable[[TrialResult], bool] | None = None
    ) -> tuple[bool, ...]:
        """Whether each image is classified as labelled before and under all attacks that count.

        Args:
            epsilon: of the attacks.
            counts: which of the protocol's attacks count; None for all of them, and those of the run itself.
        """
        trials = [trial for trial in self.trials if trial.epsilon == epsilon]
        fooled = [self.fooled(trial) for trial in trials if counts is None or counts(trial)]
        if counts is None:
            fooled += self._fooled_in_the_run(epsilon)
        return tuple(
            right and not any(by_attack) for right, *by_attack in zip(self.clean_hits, *fooled, strict=True)
        )

    def _fooled_in_the_run(self, epsilon: float) -> list[tuple[bool, ...]]:
        """Whether the paper's attacks fooled each image, where they attacked all of these in this form."""
        worst_cases = [result.outcomes for result in self.paper if result.epsilon == epsilon]
        same_form = all(result.stored_as == self.stored_as for result in self.paper)
        return [
            tuple(not right for right in outcomes[: self.images])
            for outcomes in worst_cases
            if same_form and len(outcomes) >= self.images
        ]

    def standing_under(self, kind: str, epsilon: float) -> tuple[bool, ...]:
        """The same under all attacks of one kind."""
        return self.standing(epsilon, lambda trial: trial.kind == kind)

    @property
    def clean_hits(self) -> tuple[bool, ...]:
        """Whether each image is classified as labelled before any attack."""
        return unpacked(self.clean, self.images)

    def fooled(self, trial: TrialResult) -> tuple[bool, ...]:
        """Whether the attack was tried on each image, and fooled the target there."""
        pairs = zip(unpacked(trial.tried, self.images), unpacked(trial.hits, self.images), strict=True)
        return tuple(tried and not hit for tried, hit in pairs)


@dataclasses.dataclass(frozen=True)
class ComparisonRecord(EvaluationRecord):
    """A target among those of a comparison: its evaluation, and what else a comparison shows of it.

    Attributes:
        reference: the target with which all others are compared.
        coherence: Eq. 7 on clean test images, one value an image.
        on_static_models: as `TargetRecord` has it.
        detection: left out.
    """

    reference: str = dataclasses.field(kw_only=True)
    coherence: tuple[float, ...] = ()
    on_static_models: tuple[Mapping[str, Any], ...] = ()

    @property
    def table(self) -> str:
        """Model and data set: a comparison is one table."""
        return self.subject

    def table_conditions(self) -> dict[str, Any]:
        """As `EvaluationRecord` has it, and the protocol and the reference."""
        return super().table_conditions() | {"protocol": self.tried_by, "reference": self.reference}

    @classmethod
    def of(cls, run: TargetRecord, evaluation: EvaluationRecord, reference: str) -> Self:
        """What a comparison shows of a run and its evaluation."""
        shown = {
            field.name: getattr(evaluation, field.name) for field in dataclasses.fields(EvaluationRecord)
        }
        return cls(
            **shown | run.common() | {"detection": {}},
            reference=reference,
            coherence=run.coherence,
            on_static_models=run.on_static_models,
        )


def packed_at(numbers: Sequence[int], hits: Sequence[bool], count: int) -> tuple[str, str]:
    """`tried` and `hits` of a result, from the numbers of the attacked images and what became of each."""
    tried = set(map(int, numbers))
    right = {int(number) for number, hit in zip(numbers, hits, strict=True) if hit}
    return packed(i in tried for i in range(count)), packed(i in right for i in range(count))
