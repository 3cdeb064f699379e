"""The attacks by name: the paper's, and those of today.

CleverHans's own loops draw their random start from TensorFlow's global generator, which no restart can
repeat, and lose the gradients of saturated members. These have its steps and its projection, and differ from
its loops in that alone.
"""

from divtf.attacks.losses import Margin
from divtf.attacks.pieces import (
    DiverseInputs,
    MixedImages,
    Neighbourhood,
    ScaledCopies,
    SpectralCopies,
    TranslationKernel,
)
from divtf.attacks.recipe import Recipe
from divtf.attacks.searches import AutoPgd, Search, Square
from divtf.attacks.updates import MemberByMember, Momentum, Sign, VarianceTuning

ATTACKS: dict[str, Recipe | Search] = {
    # Sections 2.3 and 4.1.
    "fgsm": Recipe(update=Sign(), steps=1),
    "rfgsm": Recipe(update=Sign(), steps=1, random_start=True),
    "ifgsm": Recipe(update=Sign()),
    "mifgsm": Recipe(),
    "pgd_cw": Recipe(update=Sign(), loss=Margin(), steps=30, step=0.1, random_start=True),
    # Of the white box, and for comparison.
    "pgd": Recipe(update=Sign(), steps=40, step=0.25, shrink=True, random_start=True),
    # Their papers stand at the pieces, whose values are for images of 28 to 32 pixels.
    "dim": Recipe((DiverseInputs(),)),
    "tim": Recipe((TranslationKernel(),)),
    # With Nesterov's momentum, as its paper has it.
    "sim": Recipe((ScaledCopies(),), update=Momentum(nesterov=True)),
    "mi_di_ti_si": Recipe((TranslationKernel(), ScaledCopies(), DiverseInputs())),
    "admix": Recipe((MixedImages(), ScaledCopies())),
    "vmi": Recipe(update=VarianceTuning()),
    "pgn": Recipe((Neighbourhood(),)),
    "ssa": Recipe((SpectralCopies(),)),
    "cwa": Recipe(update=MemberByMember(reverse=1 / 15, inner=10.0), path=2.0),
    "cse": Recipe(update=MemberByMember(inner=2.0), path=2.0),
    # Of the extra `attacks`: on what a target gives, which of an Ensemble is the mean probability.
    "square": Square(),
    "auto_pgd": AutoPgd(),
}
"""Name -> what the attack is composed of."""
