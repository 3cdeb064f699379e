"""What a run may spend, beside the paper's budget, and how an ensemble of it was trained."""

from collections.abc import Iterable
from typing import Any

from divtf.data.datasets import ImageData
from divtf.data.paper import SETUPS
from divtf.pipeline import objective_fields
from divtf.pipeline.config import RunConfig

# What else training goes by, as fields of the configuration; named are those that are not the defaults.
_LESS_USUAL = ("weight_decay", "schedule", "activation", "negative_slope", "precision")
_TRAINED_BY = (
    *("batch_size", "learning_rate", "weight_decay", "schedule", "gal_weight", "negative_slope"),
    *objective_fields.LATER,
)


def budget(config: RunConfig, data: ImageData) -> dict[str, object]:
    """What a run may spend and how it trains; `reduced` where that is less than the paper's (section 4.1).

    It is None for a model of the user's own: the paper has no budget for it.
    """
    paper = RunConfig() if config.is_own else RunConfig(model=config.model)
    static = {
        "static seed": config.static_seed,
        "static attack": ", ".join(config.static_attacks),
        **({"static models": ", ".join(config.static_models)} if config.static_models != ("plain",) else {}),
        **({"static budgets": config.static_budgets} if config.static_budgets != "paper" else {}),
    }
    images = len(data.x_train) * len(config.defence.sources)
    return {
        "members": config.num_members,
        "epochs": config.epochs,
        "steps": config.epochs * -(-images // config.batch_size),
        "training images": len(data.x_train),
        "test images": len(data.x_test),
        "attacked images": min(len(data.x_test), config.max_attack_examples or len(data.x_test)),
        "precision": config.precision,
        "surrogate seed": config.surrogate_seed,
        **(static if config.defence.adversarial else {}),
        **_unlike(config, paper, _TRAINED_BY),
        "reduced": None if config.is_own else _is_reduced(config, paper),
    }


def settings(config: RunConfig, data: ImageData) -> dict[str, Any]:
    """How an ensemble that is attacked was trained: with its objective and members, all that tells it."""
    numbers = {name: getattr(config, name) for name in ("seed", "epochs", "batch_size", "learning_rate")}
    return {
        "mode": config.mode,
        "model": config.model_name,
        "dataset": config.dataset_name,
        **{name.replace("_", " "): value for name, value in numbers.items()},
        "training images": len(data.x_train),
        **_unlike(config, RunConfig(), _LESS_USUAL),
    }


def _unlike(config: RunConfig, other: RunConfig, names: Iterable[str]) -> dict[str, Any]:
    """The values of these fields that count in the configuration's mode and are not the other's."""
    trained_by = config.training()
    unlike = [name for name in names if trained_by.get(name) not in (None, getattr(other, name))]
    return {name.replace("_", " "): trained_by[name] for name in unlike}


def _is_reduced(config: RunConfig, paper: RunConfig) -> bool:
    """Whether a configuration is less than the paper's of the same model."""
    limits = (config.max_train_examples, config.max_test_examples, config.max_attack_examples)
    return (
        any(limit is not None for limit in limits)
        or config.dataset != SETUPS[config.model].dataset
        or config.num_members < paper.num_members
        or config.epochs < paper.epochs
        or not set(paper.attacks) <= set(config.attacks)
        or not set(paper.epsilons) <= set(config.epsilons)
    )
