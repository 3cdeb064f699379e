"""What the static model gives to ensemble adversarial training."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tiny

from divtf.attacks.threat import ThreatModel
from divtf.errors import InputError
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.pipeline import (
    experiment,
    finished,
    leaking,
    shared_ensembles,
    shared_paths,
    static_images,
    surrogates,
    trained,
)
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import EnsemblePart
from divtf.runtime import devices
from divtf.runtime.workers import Team
from divtf.storage import checked_json

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


# Several models and attacks.


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A configuration of two plain static models and one of GAL, by three attacks, and its changes."""
    config = tiny.config(
        mode="ens",
        run_dir=str(tmp_path_factory.mktemp("several") / "ens"),
        static_models=("plain", "plain", "div"),
        static_attacks=("fgsm", "mifgsm", "mifgsm_ll"),
        epochs=1,
    )
    return config, static_images.static_changes(config, tiny.data())


def momentum_steps(gradient, x, epsilon, steps=10):
    """MI-FGSM in units of epsilon, its steps epsilon / steps: Equation 5 by hand."""
    velocity, images = np.zeros_like(x), x
    for _ in range(steps):
        slope = gradient(images)
        velocity = velocity + slope / np.abs(slope).mean(axis=1, keepdims=True)
        images = np.clip(images + epsilon / steps * np.sign(velocity), x - epsilon, x + epsilon).clip(0, 1)
    return (images - x) / epsilon


def test_changes_are_those_of_each_model_by_each_attack_in_order(several):
    config, changes = several
    assert len(changes) == 9
    x, y, epsilon = tiny.data().x_train.reshape(72, -1) / 255.0, tiny.data().y_train, config.largest_epsilon
    bases = surrogates.static_models(config)
    assert [(base.mode, base.seed) for base in bases] == [("base", 2000), ("base", 12000), ("div", 2002)]
    for place, base in enumerate(bases):
        weights = tiny.weights(shared_ensembles.ensemble(base, tiny.data())[0])

        def gradient(images, labels, sign=1, weights=weights):
            slopes, _ = zip(*tiny.forward(weights, images), strict=True)
            return sign * np.mean([slope(labels) for slope in slopes], axis=0)

        found = [change.reshape(72, -1) / 127 for change in changes[3 * place : 3 * place + 3]]
        probabilities = np.mean([p for _, p in tiny.forward(weights, x)], axis=0)
        least = probabilities.argmin(axis=1)
        expected = [
            np.sign(gradient(x, y)),
            momentum_steps(lambda images: gradient(images, y), x, epsilon),
            momentum_steps(lambda images: gradient(images, least, -1), x, epsilon),  # noqa: B023
        ]
        np.testing.assert_array_equal(found[0], expected[0])
        for change, twin in zip(found[1:], expected[1:], strict=True):
            # Half a step of 1/127; a sign that rounding turns is rare, and changes one pixel.
            off = np.abs(change - twin) > 0.51 / 127
            assert off.mean() < 0.002, off.mean()


def test_changes_towards_the_least_likely_class_tell_no_label(several):
    config, changes = several
    data = tiny.data()
    shuffled = dataclasses.replace(data, y_train=np.roll(data.y_train, 1))
    other = dataclasses.replace(config, static_attacks=("mifgsm_ll",), static_models=("plain",))
    (again,) = static_images.static_changes(other, shuffled)
    np.testing.assert_array_equal(again, changes[2])


def test_changes_are_kept_as_one_byte_a_pixel_and_not_made_again(several, monkeypatch):
    config, changes = several
    directory = shared_paths.directory_of(surrogates.static_models(config)[0]) / shared_paths.ADVERSARIAL
    files = sorted(directory.glob("*.npy"))
    assert [file.name.split("-")[0] for file in files] == ["fgsm", "mifgsm", "mifgsm_ll"]
    assert {file.stat().st_size for file in files} == {128 + 72 * 64}
    monkeypatch.setattr(AdversarialSets, "_make", lambda *_: iter(()))
    for found, before in zip(static_images.static_changes(config, tiny.data()), changes, strict=True):
        np.testing.assert_array_equal(found, before)


def test_modes_without_static_models_need_none():
    assert static_images.static_changes(tiny.config(mode="div"), tiny.data()) == []


def test_changes_that_are_not_kept_are_the_same(several):
    config, changes = several
    ensemble, _ = shared_ensembles.ensemble(surrogates.static_models(config)[0], tiny.data())
    x = tiny.data().x_train / np.float32(255)
    attack = static_images.static_attack("mifgsm", ThreatModel(config.largest_epsilon))
    found = AdversarialSets(ensemble).changes(attack, x, tiny.data().y_train)
    np.testing.assert_array_equal(found, changes[1])
    images = np.asarray(attack(ensemble, x, tiny.data().y_train))
    assert np.abs(x + found / np.float32(127) * config.largest_epsilon - images).max() < 0.51 / 127 * 0.3


# Label leaking.


def test_target_is_tried_on_test_images_of_its_static_models(several):
    """By hand: the images of each static model, as a run's attacks make them, and what the target says."""
    config, _ = several
    config = dataclasses.replace(config, static_models=("plain",), static_attacks=("fgsm", "step_ll"))
    data = tiny.data()
    target = trained.build_ensemble(config.part(EnsemblePart), data.spec)
    found = leaking.on_static_models(config, data, target)
    static, _ = shared_ensembles.ensemble(surrogates.static_models(config)[0], data)
    x, y = data.x_test / np.float32(255), data.y_test
    forward = list(tiny.forward(tiny.weights(static), x.reshape(24, -1).astype("float64")))
    slopes, probabilities = zip(*forward, strict=True)
    least = np.mean(probabilities, axis=0).argmin(axis=1)
    clean = target.predict(x, verbose=0).argmax(axis=1) == y
    expected = []
    for attack, labels, sign in (("fgsm", y, 1), ("step_ll", least, -1)):
        gradient = np.mean([slope(labels) for slope in slopes], axis=0).reshape(x.shape)
        for epsilon in config.epsilons:
            x_adv = np.clip(x + sign * epsilon * np.sign(gradient), 0, 1).astype("float32")
            right = target.predict(x_adv, verbose=0).argmax(axis=1) == y
            counts = (right.sum(), clean.sum(), (right & ~clean).sum(), (clean & ~right).sum())
            names = ("right", "right clean", "only attacked", "only clean")
            told = {"model": "plain", "attack": attack, "epsilon": epsilon, "total": 24}
            expected.append(told | dict(zip(names, map(int, counts), strict=True)))
    assert list(found) == expected
    # Whatever labels an attack is given, the manifests tell how often the static model is right.
    directory = shared_paths.directory_of(surrogates.static_models(config)[0]) / shared_paths.ADVERSARIAL
    accuracy = (np.mean(probabilities, axis=0).argmax(axis=1) == y).mean()
    manifests = [checked_json.read_checked(path) for path in directory.glob("*-0.[13]-*.json")]
    assert {manifest["attack"] for manifest in manifests} >= {"fgsm", "step_ll"}
    told = {
        manifest["surrogate_settings"]["clean accuracy"] for manifest in manifests if manifest["count"] == 24
    }
    assert sorted(told) == [pytest.approx(accuracy)]


def test_leaking_is_looked_for_without_the_other_workers(several, monkeypatch):
    config, _ = several
    config = dataclasses.replace(config, static_models=("plain",), static_attacks=("fgsm",))
    target = trained.build_ensemble(config.part(EnsemblePart), tiny.data().spec)
    monkeypatch.setattr(shared_ensembles, "ensemble", None)
    monkeypatch.setattr(trained, "train", None)
    assert len(leaking.on_static_models(config, tiny.data(), target)) == len(config.epsilons)


def test_leaking_is_looked_for_on_as_many_images_whatever_the_run_attacks(several, monkeypatch):
    config, _ = several
    config = dataclasses.replace(config, static_models=("plain",), static_attacks=("fgsm",))
    target = trained.build_ensemble(config.part(EnsemblePart), tiny.data().spec)

    def tried(attacked):
        run = dataclasses.replace(config, max_attack_examples=attacked)
        return leaking.on_static_models(run, tiny.data(), target)

    assert tried(5) == tried(None) and {entry["total"] for entry in tried(5)} == {24}
    monkeypatch.setattr(leaking, "_IMAGES", 10)
    assert {entry["total"] for entry in tried(None)} == {10}


def test_modes_without_static_models_leak_nothing():
    assert leaking.on_static_models(tiny.config(mode="div"), tiny.data(), None) == ()


def test_record_of_a_run_tells_what_its_target_does_on_its_static_models(static):
    config, *_ = static
    run = dataclasses.replace(config, attacks=("fgsm",), run_dir=f"{config.run_dir}-leaking")
    record = finished.read_record(experiment.run(run))
    assert [entry["epsilon"] for entry in record.on_static_models] == list(run.epsilons)
    assert all(entry["total"] == 24 for entry in record.on_static_models)
