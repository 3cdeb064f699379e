"""Surrogates of an evaluation by name: what each is, and how it is trained. No TensorFlow."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from divtf.data.paper import SETUPS
from divtf.errors import InputError, require
from divtf.networks import names
from divtf.pipeline import objective_fields
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.storage.digests import digest, file_digest
from divtf.storage.evaluations import SAME_AS

FORMS = (
    "plain, plainN with N members, other for another architecture, a mode (div), a model (mix), same for one "
    "trained as each target is, a trained .keras file, or several as a+b"
)
# Of another architecture; the first one that the target has not. Neither takes long to train.
_OTHERS = ("conv4", "conv3")
# Where the places of seeds begin: those of modes that came later than the models, of surrogates trained as
# targets are, of surrogates' static ensembles, and of plainN.
_LATER, _SAME, _STATIC, _PLAIN = 30, 40, 50, 100
# So far apart are the seeds of static ensembles of one name.
_AGAIN = 10_000
_LATER_MODES = ("detect",)


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
        name: `plain` is the surrogate of a run, trained as T_Base; `plainN` has N members; a mode's name
            stands for the same model in that mode, a model's name for that one in mode base, `other` for one
            of them, all from other seeds; a `.keras` file holds an ensemble or a model; `a+b` is all members
            of both.
        config: of a target.

    Raises:
        InputError: if it is none of these, or names an ensemble twice.
    """
    parts = _parts(name)
    alone = "same" not in parts or len(parts) == 1
    require(alone, "same by itself, which is one surrogate a target, and not in a+b", name)
    files = tuple(part for part in parts if part.endswith(".keras"))
    missing = [path for path in files if not Path(path).is_file()]
    require(not missing, "surrogates' .keras files that are there", ", ".join(missing))
    trained = tuple(_configuration(part, config) for part in parts if part not in files)
    made = Surrogate(name, trained, files)
    ensembles = _ensembles(made)
    require(len(set(ensembles)) == len(ensembles), "distinct ensembles in a surrogate a+b", name)
    return made


def _parts(name: str) -> list[str]:
    """Names that are joined by a plus; one within the name of a file that is there joins nothing."""
    pieces, found = name.split("+"), []
    while pieces:
        lengths = range(len(pieces), 1, -1)
        taken = next((end for end in lengths if Path("+".join(pieces[:end])).is_file()), 1)
        found.append("+".join(pieces[:taken]))
        pieces = pieces[taken:]
    return found


def surrogates(names: Sequence[str], configs: Sequence[RunConfig]) -> list[Surrogate]:
    """What names mean for targets that are evaluated together, in order.

    `same` is one surrogate for each target, trained as it is from other seeds; none where another surrogate
    is trained so already.

    Args:
        names: as `surrogate` takes them.
        configs: of the targets, which differ in how they are trained only; `plain` and all others but `same`
            are trained in the budget of the first.

    Raises:
        InputError: if a name means nothing, or two are of one ensemble: neither would fool an image alone.
    """
    found: list[Surrogate] = []
    for name in names:
        if name != "same":
            found.append(surrogate(name, configs[0]))
            continue
        for config in configs:
            made = Surrogate(f"{SAME_AS} {config.target}", (_configuration(name, config),), ())
            if _told(made) not in map(_told, found):
                found.append(made)
    names_of: dict[tuple[str, ...], str] = {}
    for each in found:
        first = names_of.setdefault(tuple(sorted(_ensembles(each))), each.name)
        received = f"{first} and {each.name}, which are the same ensemble"
        require(first == each.name, "distinct surrogates", received)
    return found


def require_alike(configs: Iterable[RunConfig]) -> None:
    """Refuse targets that are told in one table, but would be attacked unlike each other.

    Args:
        configs: of the targets; those of one model and data set have the same epsilons, and those that have
            the same seed too share surrogates, and the images that these are trained on.

    Raises:
        InputError: says which.
    """
    of_table: dict[tuple[str, str], RunConfig] = {}
    of_family: dict[tuple[str, str, int], RunConfig] = {}
    shared = ("surrogate_seed", "flips", "image_size", "max_train_examples", "max_test_examples")
    for config in configs:
        first = of_table.setdefault((config.model_name, config.dataset_name), config)
        require(
            sorted(config.epsilons) == sorted(first.epsilons),
            f"runs of one model and data set with the same epsilons, as {first.run_dir} has {first.epsilons}",
            f"epsilons={config.epsilons} in {config.run_dir}",
        )
        first = of_family.setdefault((config.model, config.dataset_name, config.seed), config)
        for name in shared:
            value, received = getattr(first, name), getattr(config, name)
            require(
                received == value,
                f"runs of one model, data set and seed with the same {name}, as {first.run_dir} has {value}",
                f"{name}={received} in {config.run_dir}",
            )


def _ensembles(each: Surrogate) -> list[str]:
    """What tells the ensembles of a surrogate from others: what they are trained by, or a file's content."""
    return [*(digest(base.training()) for base in each.trained), *(file_digest(Path(f)) for f in each.files)]


def _told(each: Surrogate) -> list[dict[str, Any]]:
    """How the ensembles of a surrogate are trained, whatever their seeds are."""
    seeds = ("seed", "static_seed")
    trained = [base.training() for base in each.trained]
    return [{name: value for name, value in values.items() if name not in seeds} for values in trained]


def static_models(config: RunConfig) -> list[RunConfig]:
    """Configurations of the static ensembles whose images modes ens and ens_div train on.

    Their names are those of surrogates; one that is given again, under this name or another, is trained from
    other seeds. None of them has the seeds of the attacker's.
    """
    bases: list[RunConfig] = []
    seen: list[dict[str, Any]] = []
    for name in config.static_models:
        first = _static_model(name, config, 0).training()
        bases.append(_static_model(name, config, seen.count(first)))
        seen.append(first)
    return bases


def _static_model(name: str, config: RunConfig, again: int) -> RunConfig:
    """The static ensemble of a name, from other seeds each time that it is trained again."""
    seed = config.static_seed + _AGAIN * again
    try:
        ours = dataclasses.replace(config, surrogate_seed=seed, static_seed=config.surrogate_seed)
        return _configuration(name, ours)
    except InputError as error:
        # It has the surrogate's part for a moment, and errors call its seed the surrogate's.
        told = f"seed={config.seed}, surrogate_seed={config.surrogate_seed}, static_seed={config.static_seed}"
        raise InputError(f"{error}, in the place of the static model {name} (of {told})") from None


def _configuration(name: str, config: RunConfig) -> RunConfig:
    if plain := re.fullmatch(r"plain(\d*)", name):
        count = int(plain[1] or config.num_members)
        require(1 <= count <= 1000, "plainN with N members in [1, 1000]", name)
        if count == config.num_members:
            return config.base(config.surrogate_seed)
        return config.base(_seed(config, _PLAIN + count), num_members=count)
    if name == "same":
        own = {field: getattr(config, field) for field in ("gal_weight", *objective_fields.LATER)}
        static_seed = _seed(config, _STATIC + _SAME)
        return config.base(_seed(config, _SAME), mode=config.mode, static_seed=static_seed, **own)
    if name == "other":
        name = next(other for other in _OTHERS if other != config.model)
    first = [*(mode for mode in MODES if mode not in _LATER_MODES), *SETUPS]
    places = {key: number for number, key in enumerate(first, 1)}
    places |= {key: _LATER + number for number, key in enumerate(_LATER_MODES)}
    known = f"surrogates among {FORMS}; modes: {', '.join(MODES)}; models: {', '.join(SETUPS)}"
    require(name in places or names.is_own(name), known, name or "an empty name")
    changes: dict[str, Any] = {"mode": name} if name in MODES else {"model": name}
    if name in MODES and MODES[name].adversarial:
        # The attacker's static ensemble is none of ours either.
        changes["static_seed"] = _seed(config, _STATIC + places[name])
    # Models of the user's own share a place: they differ anyway.
    return config.base(_seed(config, places.get(name, len(first) + 1)), **changes)


def _seed(config: RunConfig, place: int) -> int:
    """A seed for the ensemble of that place, which no other ensemble of the evaluation has."""
    taken = {config.seed, config.static_seed}
    seed = config.surrogate_seed + place
    require(
        seed not in taken,
        f"a surrogate_seed S for which S + {place} is free: each ensemble of an evaluation has its own seed",
        f"surrogate_seed={config.surrogate_seed}",
    )
    return seed
