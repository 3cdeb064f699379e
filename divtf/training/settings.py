"""How an ensemble is fitted. No TensorFlow."""

import dataclasses

SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an ensemble is fitted to a mixture of images.

    Attributes:
        epochs: passes over the mixture.
        learning_rate: step size of Adam.
        weight_decay: decoupled; 0 is plain Adam.
        schedule: of the learning rate over the run, one of `SCHEDULES`.
        checkpoint_minutes: between checkpoints within an epoch.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    schedule: str
    checkpoint_minutes: float
