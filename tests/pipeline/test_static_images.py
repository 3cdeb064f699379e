"""What the static model gives to ensemble adversarial training."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from divtf.errors import InputError
from divtf.pipeline import experiment, finished, shared_ensembles, shared_paths, static_images
from divtf.pipeline.config import RunConfig
from divtf.runtime import devices
from divtf.runtime.workers import Team

pytestmark = pytest.mark.usefixtures("tiny_world")


class OtherChief(Team):
    """A team whose chief has other values than this process."""

    def require_same(self, value, expected, received):
        raise InputError(f"Expected {expected}. Received: {received}")


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    """The configuration of mode ens, and its static model's gradient by label and probabilities, in NumPy."""
    config = tiny.config(mode="ens", run_dir=str(tmp_path_factory.mktemp("static") / "ens"))
    ensemble, _ = shared_ensembles.ensemble(config.base(config.static_seed), tiny.data())
    x = tiny.data().x_train.reshape(72, -1) / 255.0
    gradients, probabilities = zip(*tiny.forward(tiny.weights(ensemble), x), strict=True)
    return (
        config,
        lambda y: np.mean([gradient(y) for gradient in gradients], axis=0),
        np.mean(probabilities, axis=0),
    )


def signs(config):
    (changes,) = static_images.static_changes(config, tiny.data())
    assert changes.dtype == np.int8
    return changes.reshape(72, -1) / 127


def test_fgsm_climbs_the_loss_of_the_true_class(static):
    config, gradient, _ = static
    np.testing.assert_array_equal(signs(config), np.sign(gradient(tiny.data().y_train)))


def test_step_ll_descends_the_loss_of_the_least_likely_class(static):
    """The class is that of the ensemble's mean probability, and the true labels play no part."""
    config, gradient, probabilities = static
    least_likely = probabilities.argmin(axis=1)
    expected = -np.sign(gradient(least_likely))
    found = signs(RunConfig(**vars(config) | {"static_attacks": ("step_ll",)}))
    np.testing.assert_array_equal(found, expected)
    assert (found != np.sign(gradient(tiny.data().y_train))).any()


def test_a_worker_that_finds_other_classes_least_likely_says_so(static, monkeypatch):
    """It would train on other images than the chief, and the weights would be no single run's."""
    config, *_ = static
    monkeypatch.setattr(devices, "team", lambda name: OtherChief(tf.distribute.get_strategy()))
    with pytest.raises(InputError, match="chief's least likely classes"):
        signs(RunConfig(**vars(config) | {"static_attacks": ("step_ll",)}))
    signs(config)  # The true labels need no agreement.


def test_step_ll_is_a_target_of_its_own_with_the_same_shared_models(static):
    config, *_ = static
    run = RunConfig(**vars(config) | {"static_attacks": ("step_ll",), "attacks": ("fgsm",)})
    assert (run.target, run.name) == ("T_Ens (Step-LL)", "stripes-tiny-ens-step_ll-seed0")
    for seed in (run.surrogate_seed, run.static_seed):
        assert shared_paths.directory_of(run.base(seed)) == shared_paths.directory_of(config.base(seed))
    record = finished.read_record(experiment.run(run))
    assert record.target == "T_Ens (Step-LL)"
    assert {result.target for result in record.results} == {"T_Ens (Step-LL)"}


@pytest.mark.parametrize("mode", ["base", "div", "noise"])
def test_step_ll_is_nothing_to_modes_without_a_static_model(mode):
    plain, other = (RunConfig(mode=mode, static_attacks=(name,)) for name in ("fgsm", "step_ll"))
    assert (plain.name, plain.target, plain.identity()) == (other.name, other.target, other.identity())
