"""Random numbers of the process, which Keras gives layers without a seed of their own."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def draws_kept() -> Iterator[None]:
    """Leave the process's random numbers as they are, whatever is drawn meanwhile."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
