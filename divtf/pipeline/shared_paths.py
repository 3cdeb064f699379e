"""Where the ensembles that several targets share are kept: surrogate and static model. No TensorFlow."""

from pathlib import Path

from divtf.pipeline.config import RunConfig
from divtf.storage.digests import digest

SHARED = "shared-models"
ADVERSARIAL = "adversarial"
# Images that are attacked at a time; adversarial sets depend on it.
BATCH = 250


def seeds(config: RunConfig) -> dict[str, int]:
    """What a run shares with others, as far as it has it: "surrogate" and "static model", and their seeds."""
    surrogate = {"surrogate": config.surrogate_seed} if config.attacks else {}
    static = {"static model": config.static_seed} if config.defence.adversarial else {}
    return surrogate | static


def directory_of(base: RunConfig) -> Path:
    """Where a shared ensemble is kept: beside the run directory.

    Args:
        base: its configuration, as `RunConfig.base` gives it.
    """
    # Made absolute, the directory "." has a parent too.
    shared = Path(base.run_dir).absolute().parent / SHARED
    mode = "" if base.mode == "base" else f"-{base.mode}"
    name = f"{base.dataset_name}-{base.model_name}{mode}-seed{base.seed}"
    return shared / f"{name}-{digest(base.training())}"
