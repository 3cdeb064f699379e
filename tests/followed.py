"""That a run on many devices or workers follows one on a single device."""

import numpy as np
import process
import pytest
from run_files import metrics

# 144 images of mode div in batches of 13: eleven whole ones, and one that is a single image.
UNEVEN = {"batch_size": 13, "epochs": 1}
STEPS = 12
EVERY_BATCH = 1e-9


def one_device(directory, **values):
    """Weights of a run of this process, and the images of its steps."""
    with pytest.MonkeyPatch.context() as patch:
        seen = directory.with_suffix(".npz")
        return process.train(directory, patch=patch, seen=seen, **values), load(seen)


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def assert_close(found, expected):
    """To 1e-5 of the largest entry of each tensor: float32 sums in another order differ in single entries."""
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


def assert_same_metrics(directory, other, rel=1e-5):
    for left, right in zip(metrics(directory), metrics(other), strict=True):
        assert left == pytest.approx(right, rel=rel, abs=1e-6)
