"""Protocols: which surrogates and attacks an evaluation tries. No TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from divtf.errors import require
from divtf.storage.records import STORED_AS

GIVEN = ("surrogates", "images", "queries", "query_images", "stored_as")
"""What flags may change of a protocol."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """An attack of a protocol.

    Attributes:
        attack: its name.
        params: other values than its own for its parameters.
        versions: how often it is tried, each time with other random draws.
        classes: of the images, at least; with fewer it is left out.
        rank: of the wrong class that the attack leads to, as `evaluation.trials.Attempt` has it.
    """

    attack: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: int = 1
    classes: int = 2
    rank: int = 0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What an evaluation tries on every target.

    Attributes:
        name: in records and file names.
        surrogates: on which images are made, in order; names as `surrogates.surrogate` takes them.
        transfer: attacks on each surrogate, cheap ones first; images that fool every target need no more.
        white_box: attacks on each target itself.
        queries: scores that the Square attack may ask a target for, of an image; 0 leaves it out.
        query_images: it attacks the first images, as many as this, and of the others those that a target
            withstands under all else.
        checks: whether to look for masked gradients, and to measure detection.
        images: first test images that are attacked, or all if there are fewer.
        stored_as: what targets see of adversarial images, as `storage.records.STORED_AS` has it.

    Raises:
        InputError: for queries that Square cannot do with, another form of storage, or checks of attacks that
            are not tried.
    """

    name: str
    surrogates: tuple[str, ...]
    transfer: tuple[Trial, ...]
    white_box: tuple[Trial, ...] = ()
    queries: int = 0
    query_images: int = 0
    checks: bool = False
    images: int = 1000
    stored_as: str = "float32"

    def __post_init__(self):
        require(self.queries != 1, "queries of 0, or of at least 2, which Square needs", queries=self.queries)
        require(
            self.stored_as in STORED_AS, f"stored_as as one of {{{', '.join(STORED_AS)}}}", self.stored_as
        )
        require(
            not self.checks or (len(self.transfer) > 0 and len(self.white_box) > 0),
            "attacks by transfer and white-box ones to check",
            f"checks=True with {len(self.transfer)} by transfer and {len(self.white_box)} white-box ones",
        )

    @property
    def changed(self) -> dict[str, Any]:
        """Values that are not those of the protocol of this name, as flags give them, by their names."""
        own = PROTOCOLS.get(self.name, self)
        values = {name: getattr(self, name) for name in GIVEN}
        return {name: value for name, value in values.items() if value != getattr(own, name)}

    def images_of(self, count: int) -> int:
        """How many of so many test images are attacked: all of them where there are fewer than usual.

        Raises:
            InputError: if another number was asked for, and there are fewer.
        """
        usual = self.name in PROTOCOLS and self.images == PROTOCOLS[self.name].images
        fits = usual or self.images <= count
        require(fits, f"at most {count} images, as there are", f"images={self.images}")
        return min(self.images, count)

    @property
    def needs_art(self) -> bool:
        """Whether the extra `attacks` has to be installed."""
        tried = (*self.transfer, *self.white_box)
        return self.queries > 0 or any(trial.attack == "auto_pgd" for trial in tried)


# Within 15 minutes for the demo's two targets on two cores, training of surrogates with it.
_STRONG = Protocol(
    name="strong",
    surrogates=("plain", "div", "other"),
    transfer=(
        Trial("mifgsm"),
        Trial("pgd", {"steps": 30, "loss": "mean_logit"}),
        Trial("pgd", {"steps": 20, "loss": "margin"}),
        Trial("dim"),
        Trial("ssa", {"steps": 8, "copies": 3}),
        Trial("cse"),
        Trial("auto_pgd", {"steps": 25}),
    ),
    white_box=(
        Trial("auto_pgd", {"steps": 25}),
        Trial("pgd", {"steps": 40, "loss": "mean_probability"}, versions=2),
        Trial("pgd", {"steps": 40, "loss": "cross_entropy"}),
        Trial("pgd", {"steps": 20, "loss": "margin"}),
        # On what is left, at the steps of AutoAttack: it fools most of what cross-entropy does not.
        Trial("auto_pgd", {"steps": 100, "loss": "dlr"}, classes=3),
        # What leads away may waver between two classes and reach none.
        *(
            Trial("pgd", {"steps": 40, "loss": "mean_probability"}, classes=rank + 1, rank=rank)
            for rank in (1, 2, 3)
        ),
    ),
    queries=500,
    query_images=50,
    checks=True,
    images=200,
)
# What it tries by transfer, and from surrogates that are trained as the targets are: to choose among recipes.
_TRANSFER = dataclasses.replace(
    _STRONG,
    name="transfer",
    surrogates=(*_STRONG.surrogates, "same"),
    white_box=(),
    queries=0,
    query_images=0,
    checks=False,
    images=500,
)
# DVERGE's evaluation (Yang et al. 2020) without skip gradients, which only residual networks have.
_DVERGE = Protocol(
    name="dverge",
    surrogates=("plain3", "plain5", "plain8"),
    transfer=tuple(
        trial
        for loss in ("cross_entropy", "margin")
        for trial in (
            Trial("mifgsm", {"steps": 100, "step": 0.2, "random_start": True, "loss": loss}, versions=3),
            Trial("dim", {"steps": 100, "step": 0.2, "loss": loss}),
        )
    ),
    images=1000,
)
PROTOCOLS = {protocol.name: protocol for protocol in (_STRONG, _TRANSFER, _DVERGE)}
"""Name -> what is tried. The protocol `paper` is that of a run: five attacks on one plain surrogate."""
