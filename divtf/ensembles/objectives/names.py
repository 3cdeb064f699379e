"""Names of objectives, for flags and tables. This module imports no TensorFlow."""

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
# They compare members with each other.
OF_SEVERAL = ("gal", "adp", "trs", "parl", "dverge")
# They ask more of the members than their number: of classes, or of layers.
PARTICULAR = ("adp", "parl", "dverge")
# They take what each member gives by itself.
MEMBERWISE = ("cross_entropy", "gal", "adp")
