"""The ensemble "mix", members of five architectures, through every stage of a run (section 4.1).

Quick tests put small networks in the place of the architectures; slow ones run the real ones.
"""

import functools

import forked
import numpy as np
import pytest
import tensorflow as tf
import tiny

from divtf.evaluation.model_digests import weights_digest
from divtf.networks import models
from divtf.networks.models import MIX, MODELS
from divtf.pipeline import experiment, finished, shared_paths, trained
from divtf.pipeline.modes import MODES

BUDGET = {
    **{"model": "mix", "dataset": "stripes", "num_members": 5, "epochs": 1, "batch_size": 24},
    **{"attacks": ("fgsm",), "epsilons": (0.1,)},
}
# The mode with all there is: GAL, noise, a static model, and a surrogate to face.
QUICK = ("ens_div",)


def small(name):
    """A network of the same kind in small: convolutions, or a residual block with batch normalisation."""
    from keras import layers

    depth = {"conv3": [2], "conv4": [2, 3]}

    def convolutional(make, x, num_classes):
        for filters in depth[name]:
            x = make.activate(make.conv(x, filters))
        return make.dense(layers.Flatten()(layers.MaxPooling2D(2)(x)), num_classes)

    def residual(make, x, num_classes):
        for _ in range({"resnet20": 1, "resnet26": 2}[name]):
            x = models._residual_block(make, x, 2, stride=2)
        return make.dense(layers.GlobalAveragePooling2D()(x), num_classes)

    return convolutional if name in depth else residual


pytestmark = pytest.mark.usefixtures("tiny_world")


def make_small(patch):
    for name in MIX:
        patch.setitem(MODELS, name, small(name))


@pytest.fixture
def small_mix(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def finished_mix(tmp_path_factory):
    """The root of a finished and exported run of the mode with all there is."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        return finished_runs(tmp_path_factory.mktemp("mix"), QUICK)


@pytest.fixture
def runs(finished_mix, small_mix):
    return finished_mix


def finished_runs(root, modes):
    """Finished and exported runs of mix below a root."""
    for mode in modes:
        config = tiny.config(**BUDGET, mode=mode, export="", run_dir=str(root / mode))
        experiment.run(config)
    return root


@functools.cache
def restored(directory):
    """The target of a finished run; real architectures take seconds to load."""
    return trained.restore(finished.read_config(directory), tiny.data().spec, directory)


def check_runs(root, modes):
    """Every mode has trained all members and faced the images of one surrogate, which is a mix too."""
    x, y = tiny.data().test_set()
    records = {mode: finished.read_record(root / mode) for mode in modes}
    assert [record.target for record in records.values()] == [MODES[mode].target for mode in modes]
    assert len({record.provenance["weights"] for record in records.values()}) == len(modes)
    for mode, record in records.items():
        assert record.model == "mix" and np.shape(record.pair_cosines) == (5, 5)
        target = restored(root / mode)
        assert [member.name for member in target.members] == [f"{n}_{i}" for i, n in enumerate(MIX)]
        assert len({tuple(map(tuple, shapes(member))) for member in target.members}) == 4, (
            "conv3 is there twice"
        )
        hits = target.predict(x, verbose=0).argmax(-1) == y
        assert record.result("clean", 0.0).correct == hits.sum()
        start = trained.build_ensemble(tiny.config(**BUDGET, mode=mode), tiny.data().spec)
        for member, fresh in zip(target.members, start.members, strict=True):
            moved = zip(member.trainable_weights, fresh.trainable_weights, strict=True)
            assert any(np.any(a.numpy() != b.numpy()) for a, b in moved), f"{member.name} has learnt"
    surrogate, static = sorted((root / shared_paths.SHARED).iterdir())
    assert surrogate.name.startswith("stripes-mix-seed1000-")
    assert static.name.startswith("stripes-mix-seed2000-")
    assert {r.surrogate for record in records.values() for r in record.results} == {"", surrogate.name}
    assert len({record.result("fgsm", 0.1).adversarial_set for record in records.values()}) == 1


def shapes(member):
    return [tuple(weight.shape) for weight in member.weights]


def check_export(directory):
    """The SavedModel serves the mean probability of its five members."""
    x, _ = tiny.data().test_set()
    target = restored(directory)
    served = tf.saved_model.load(str(directory / "saved_model"))
    members = tf.nn.softmax(target.member_logits(tf.constant(x))).numpy()
    found = served.serve(tf.constant(x))["probabilities"].numpy()
    np.testing.assert_allclose(found, members.mean(axis=0), atol=1e-5)


def test_mix_is_target_surrogate_and_static_model(runs):
    check_runs(runs, QUICK)


def test_mix_is_exported(runs):
    check_export(runs / "ens_div")


def test_mix_is_restored_as_it_was(runs):
    directory = runs / "ens_div"
    target = restored(directory)
    record = finished.read_record(runs / "ens_div")
    assert weights_digest(target) == record.provenance["weights"]


@pytest.mark.slow
def test_real_architectures_train_in_every_mode_and_are_exported(tmp_path):
    """ResNet-26, ResNet-20, Conv-4 and two Conv-3 on images of 8 x 8, one epoch."""
    assert_train_and_export(tmp_path, tuple(MODES))


def assert_train_and_export(root, modes):
    finished_runs(root, modes)
    check_runs(root, modes)
    for mode in modes:
        check_export(root / mode)


def train_mirrored(directory):
    """Train on two replicas, in a process of its own, and look at what they hold."""
    forked.split_cpu(2)
    patch = pytest.MonkeyPatch()
    tiny.register(patch)
    make_small(patch)
    config = tiny.config(**BUDGET, mode="div", strategy="mirrored")
    ensemble, _ = trained.train(config, tiny.data(), directory)
    strategy = ensemble.distribute_strategy
    assert strategy.num_replicas_in_sync == 2
    paths = [variable.path for variable in ensemble.trainable_variables]
    assert len(set(paths)) == len(paths), "names"
    assert [member.name for member in ensemble.members] == [f"{n}_{i}" for i, n in enumerate(MIX)]
    for variable in ensemble.trainable_variables:
        copies = strategy.experimental_local_results(variable.value)
        assert len(copies) == 2
        assert np.isfinite(copies[0].numpy()).all()
        np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy())
    fresh = trained.build_ensemble(config, tiny.data().spec).trainable_variables
    pairs = zip(ensemble.trainable_variables, fresh, strict=True)
    print("trained on two replicas", any(np.any(a.numpy() != b.numpy()) for a, b in pairs))


@pytest.mark.slow
def test_mirrored_strategy_keeps_names_apart_and_copies_equal(tmp_path):
    code, out, err = forked.Forked(train_mirrored, tmp_path).ended()
    assert code == 0, err[-2000:]
    assert out.splitlines()[-1] == "trained on two replicas True"
