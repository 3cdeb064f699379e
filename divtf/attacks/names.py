"""The names of all attacks, for flags, which know them without TensorFlow."""

from divtf.data import paper

NAMES = (*paper.ATTACKS,)
"""Those of Table 2 first; `methods.ATTACKS` has an entry for each."""
