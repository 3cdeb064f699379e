"""The names of all attacks, for flags, which know them without TensorFlow."""

from divtf.data import paper

MODERN = ("pgd", "dim", "tim", "sim", "mi_di_ti_si", "admix", "vmi", "pgn", "ssa", "cwa", "cse")
NAMES = (*paper.ATTACKS, *MODERN)
"""Those of Table 2 first; `methods.ATTACKS` has an entry for each."""
