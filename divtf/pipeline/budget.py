"""What a run may spend, beside the paper's budget."""

from divtf.data.datasets import ImageData
from divtf.data.paper import SETUPS
from divtf.pipeline.config import RunConfig

# What else training goes by, as fields of the configuration; budgets name those that are not the defaults.
_TRAINED_BY = ("batch_size", "learning_rate", "weight_decay", "schedule", "gal_weight", "negative_slope")


def budget(config: RunConfig, data: ImageData) -> dict[str, object]:
    """What a run may spend and how it trains; `reduced` where that is less than the paper's (section 4.1).

    It is None for a model of the user's own: the paper has no budget for it.
    """
    paper = RunConfig() if config.is_own else RunConfig(model=config.model)
    static = {"static seed": config.static_seed, "static attack": config.static_attack}
    # Not all of them count in every mode.
    trained_by = config.training()
    others = [name for name in _TRAINED_BY if trained_by.get(name) not in (None, getattr(paper, name))]
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
        **{name.replace("_", " "): trained_by[name] for name in others},
        "reduced": None if config.is_own else _is_reduced(config, paper),
    }


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
