"""A file that version 0.2.0 saved, when all modules stood beside each other, loads and goes on."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest

import divtf

SAVED = Path(__file__).parents[1] / "data" / "0.2.0"


@pytest.fixture(scope="module", name="recorded")
def fixture_recorded():
    """Images, the log probabilities that they were given, and the optimizer's steps."""
    with np.load(SAVED / "ensemble.npz") as arrays:
        return dict(arrays)


@pytest.fixture(name="ensemble")
def fixture_ensemble():
    assert divtf.Ensemble  # Registers its class; the file names a module that is no more.
    return keras.saving.load_model(SAVED / "ensemble.keras", safe_mode=True)


def test_ensemble_saved_before_predicts_what_it_did(ensemble, recorded):
    assert type(ensemble) is divtf.Ensemble and type(ensemble.optimizer) is divtf.Adam
    log_probability = ensemble.predict(recorded["x"], verbose=0)
    np.testing.assert_allclose(log_probability, recorded["log_probability"], rtol=0, atol=1e-6)


def test_ensemble_saved_before_goes_on_training(ensemble, recorded):
    steps = int(recorded["iterations"])
    assert int(ensemble.optimizer.iterations) == steps > 0
    labels = np.arange(len(recorded["x"])) % ensemble.num_classes
    history = ensemble.fit(recorded["x"], labels, batch_size=8, verbose=0).history
    assert all(math.isfinite(value) for values in history.values() for value in values)
    assert int(ensemble.optimizer.iterations) == steps + math.ceil(len(labels) / 8)
