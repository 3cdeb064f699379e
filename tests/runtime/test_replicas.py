"""Replicas on the devices of one machine train, measure and resume as one device does."""

import re
import signal

import numpy as np
import process
import pytest
import reference
from followed import EVERY_BATCH, STEPS, UNEVEN, assert_close, assert_same_metrics, one_device
from run_files import metrics


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with pytest.MonkeyPatch.context() as patch:
        process.register(patch)
        yield


MIRRORED = [("convolved", mode, devices) for mode in ("base", "div") for devices in (2, 4)]
IN_DEFAULT_RUN = ("convolved", "div", 4)


@pytest.mark.parametrize(
    ("model", "mode", "devices"),
    [case if case == IN_DEFAULT_RUN else pytest.param(*case, marks=pytest.mark.slow) for case in MIRRORED],
)
def test_mirrored_training_follows_one_device(tmp_path, model, mode, devices):
    """SGD on batches of 13 images, which the devices cannot share evenly; the last has one."""
    values = UNEVEN | {"model": model, "mode": mode, "sgd": 0.05}
    expected, _ = one_device(tmp_path / "one", **values)
    found = process.result(
        "train", directory=tmp_path / "many", devices=devices, strategy="mirrored", **values
    )
    assert_close(found, expected)
    assert_same_metrics(tmp_path / "many", tmp_path / "one")


def test_mirrored_batch_normalisation_takes_each_replicas_own_moments(tmp_path):
    """Batches of 6, 6 and 1 on two devices, which see 3 and 3, 3 and 3, 1 and 0 images.

    Moving statistics are m <- 0.99 m + 0.01 v on each replica, v its own images' mean or variance, then the
    mean of the replicas' m, weighted by their images: m <- 0.99 m + 0.01 sum_r n_r v_r / sum_r n_r.
    """
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(13, 4)), rng.integers(3, size=13)
    mean, variance = np.zeros(4), np.ones(4)
    for batch in (x[:6], x[6:12], x[12:]):
        parts = [part for part in (batch[:3], batch[3:]) if len(part)]
        sizes = [len(part) for part in parts]
        mean = 0.99 * mean + 0.01 * np.average([p.mean(axis=0) for p in parts], axis=0, weights=sizes)
        variance = 0.99 * variance + 0.01 * np.average([p.var(axis=0) for p in parts], axis=0, weights=sizes)
    found = process.result("statistics", devices=2, x=x.tolist(), y=y.tolist(), batch_size=6)
    for device in found["each"]:
        np.testing.assert_allclose(device, [mean, mean, variance, variance], rtol=1e-5, atol=1e-7)
    assert all(np.isfinite(values).all() for values in found["history"].values())


def test_mirrored_adam_steps_by_the_sum_of_the_replicas_gradients():
    gradients = np.random.default_rng(5).normal(size=(4, 2, 3))
    found = process.result("adam", devices=2, gradients=gradients.tolist(), learning_rate=0.1)
    expected = reference.adam(np.zeros(3), gradients.sum(axis=1), 0.1)
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "normalised"])
def test_killed_mirrored_training_goes_on_bit_for_bit(tmp_path, model):
    """On the same devices: weights, and the measures of the epoch in which it was killed."""
    values = {"devices": 2, "strategy": "mirrored", "batch_size": 13, "epochs": 2, "model": model}
    values["checkpoint_minutes"] = EVERY_BATCH
    whole = process.result("train", directory=tmp_path / "whole", **values)
    ((code, _, _),) = process.ended(
        [process.start("train", directory=tmp_path / "killed", kill_at=STEPS + 5, **values)]
    )
    assert code == -signal.SIGKILL
    resumed = process.result("train", directory=tmp_path / "killed", **values)
    assert resumed == whole
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_training_that_diverges_on_two_devices_is_one_line(tmp_path):
    values = {"devices": 2, "strategy": "mirrored", "attacks": [], "learning_rate": 1e38}
    ((code, _, err),) = process.ended([process.start("run", run_dir=tmp_path / "run", **values)])
    assert code == 2
    assert re.search(r"^error: Expected a finite .* in training\. Received: .*checkpoint", err, re.M)
    assert "Traceback" not in err
