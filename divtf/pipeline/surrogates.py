"""Surrogates of an evaluation by name: what each is, and how it is trained. No TensorFlow."""

import dataclasses
import re

from divtf.data.paper import SETUPS
from divtf.errors import require
from divtf.networks import names
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES

FORMS = "plain, plainN with N members, a mode (div), a model (mix), a trained .keras file, or several as a+b"
# Seeds are so far apart that none of an evaluation's ensembles has another's, for target seeds below 100.
_APART = 100


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A surrogate of an evaluation.

    Attributes:
        name: as it was given.
        trained: configurations of the ensembles that it is made of, which are trained if need be.
        files: Keras models that it is made of.
    """

    name: str
    trained: tuple[RunConfig, ...]
    files: tuple[str, ...]


def surrogate(name: str, config: RunConfig) -> Surrogate:
    """What a name means for targets of a configuration.

    Args:
        name: `plain` is the surrogate of a run, trained as T_Base; `plainN` has N members; a mode's name stands
            for the same model in that mode, a model's name for that one in mode base, all of them from other
            seeds; a `.keras` file holds an ensemble or a model; `a+b` is all members of both.
        config: of a target.

    Raises:
        InputError: if it is none of these.
    """
    parts = name.split("+")
    files = tuple(part for part in parts if part.endswith(".keras"))
    trained = tuple(_configuration(part, config) for part in parts if part not in files)
    return Surrogate(name, trained, files)


def _configuration(name: str, config: RunConfig) -> RunConfig:
    if plain := re.fullmatch(r"plain(\d*)", name):
        count = int(plain[1] or config.num_members)
        if count == config.num_members:
            return config.base(config.surrogate_seed)
        return config.base(config.surrogate_seed + (10 + count) * _APART, num_members=count)
    places = {key: number for number, key in enumerate([*MODES, *SETUPS], 1)}
    known = f"surrogates among {FORMS}; modes: {', '.join(MODES)}; models: {', '.join(SETUPS)}"
    require(name in places or names.is_own(name), known, f"{name}")
    seed = config.surrogate_seed + places.get(name, 0) * _APART
    changes = {"mode": name} if name in MODES else {"model": name}
    return config.base(seed, **changes)
