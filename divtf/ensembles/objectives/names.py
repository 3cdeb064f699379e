"""Names of objectives, for flags and tables. This module imports no TensorFlow.

An objective of the user's own is MODULE:NAME: a class or function that gives it, called without arguments. A
configuration adds a digest of its module, as MODULE:NAME#0123456789ab: another content is another run.
"""

import re

from divtf.networks import names
from divtf.runtime import own_code
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


_OWN = re.compile(r"(?P<reference>[^#]*)(#(?P<digest>[0-9a-f]{12}))?")


def parted(name: str) -> tuple[str, str]:
    """MODULE:NAME and the digest of an objective of the user's own; "" for what is not there."""
    match = _OWN.fullmatch(name)
    if match is None or not is_reference(match["reference"]):
        return "", ""
    return match["reference"], match["digest"] or ""


def is_own(name: str) -> bool:
    """Whether a name has the form of an objective of the user's own."""
    return bool(parted(name)[0])


def pinned(name: str) -> str:
    """An objective of the user's own with the digest of its module; any other one as it is."""
    reference, digest = parted(name)
    if not reference or digest:
        return name
    found = own_code.source_digest(reference.partition(":")[0])
    return f"{reference}#{found}" if found else reference


def short(name: str) -> str:
    """A short name, for directories and tables; "own-" before one of divtf's."""
    reference, _ = parted(name)
    taken = {each.lower() for each in (*NAMES, *LABELS.values())}
    found = names.short(reference, ()) if reference else name
    return f"own-{found}" if reference and found.lower() in taken else found


def label(name: str) -> str:
    """A name for tables."""
    return LABELS.get(name) or short(name)
