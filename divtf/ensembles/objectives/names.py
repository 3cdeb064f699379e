"""Names of objectives, for flags and tables. This module imports no TensorFlow.

An objective of the user's own is MODULE:NAME: a class or function that gives it, called without arguments.
"""

from divtf.networks import names
from divtf.runtime.own_code import is_reference

# How a target says in tables what it minimises beside its mode.
LABELS = {
    "cross_entropy": "CE",
    "gal": "GAL",
    "adp": "ADP",
    "trs": "TRS",
    "parl": "PARL",
    "dverge": "DVERGE",
    "adversarial": "AT",
}
NAMES = tuple(LABELS)
FORMS = "MODULE:NAME"
# They compare members with each other.
OF_SEVERAL = ("gal", "adp", "trs", "parl", "dverge")
# They ask more of the members than their number: of classes, or of layers.
PARTICULAR = ("adp", "parl", "dverge")
# They take what each member gives by itself.
MEMBERWISE = ("cross_entropy", "gal", "adp")


def is_own(name: str) -> bool:
    """Whether a name has the form of an objective of the user's own."""
    return is_reference(name)


def short(name: str) -> str:
    """A short name, for directories; "own-" before one of divtf's."""
    return name if name in NAMES else names.short(name, NAMES)


def label(name: str) -> str:
    """A name for tables."""
    return LABELS.get(name) or short(name)
