"""The parts of a run's configuration, for the stages that need no more. No TensorFlow.

Each field is one of `RunConfig`, which says what it means; `RunConfig.part` fills them in. The part of the
training is `training.settings.Settings`.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class DataPart:
    """Which images."""

    dataset: str
    data_dir: str | None
    image_size: tuple[int, ...] | None
    flips: bool | None
    max_train_examples: int | None
    max_test_examples: int | None


@dataclasses.dataclass(frozen=True)
class EnsemblePart:
    """Which ensemble, and what it minimises."""

    model: str
    num_members: int
    activation: str
    negative_slope: float
    objective_name: str
    objective_settings: dict[str, Any]
    memory: str | None
    seed: int


@dataclasses.dataclass(frozen=True)
class OutputPart:
    """Kept where."""

    run_dir: str
    resume: bool
    export: str | None
    export_format: tuple[str, ...] | None
