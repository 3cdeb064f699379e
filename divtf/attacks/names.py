"""The names of all attacks, for flags, which know them without TensorFlow."""

from divtf.data import paper

OF_TODAY = ("pgd", "dim", "tim", "sim", "mi_di_ti_si", "admix", "vmi", "pgn", "ssa", "cwa", "cse")
ON_SURROGATES = (*paper.ATTACKS, *OF_TODAY)
"""Those that take gradients of a surrogate's members; those of Table 2 first."""
NAMES = (*ON_SURROGATES, "square", "auto_pgd")
"""`methods.ATTACKS` has an entry for each."""
