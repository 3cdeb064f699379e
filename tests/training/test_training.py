"""Training in a run directory: interrupted anywhere, it ends as if it had not been."""

import json
import shutil
import signal
import time
from pathlib import Path

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from damage import flip, truncate
from logged import logged
from run_files import checkpoints, metrics, step_files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import divtf
from divtf import CrossEntropy, GradientAlignment
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError
from divtf.networks.models import MODELS
from divtf.pipeline import trained
from divtf.pipeline.config import RunConfig
from divtf.storage import checked_json, digests, run_directory
from divtf.training import callbacks, fit
from divtf.training.checkpoints import Checkpoints
from divtf.training.settings import Settings

# Of mode div: two sources of 72 images in batches of 8; two epochs.
PER_EPOCH, TOTAL = 18, 36
EVERY_BATCH = 1e-9


pytestmark = pytest.mark.usefixtures("tiny_world")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted: its directory, ensemble, lines and the log's state at each line."""
    directory, scalars = tmp_path_factory.mktemp("whole"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Progress, "_SECONDS", float("inf"))  # However slow the machine is.
        with logged(lambda line: scalars.append(set(log_of(directory)))) as lines:
            ensemble, seconds = tiny.train(directory)
    return {"directory": directory, "ensemble": ensemble, "lines": lines, "scalars": scalars, "s": seconds}


class Stopped(Exception):
    pass


def stop_after(patch, count):
    """Let training die after `count` batches, or with the `count`-th epoch's end if count is negative."""
    batch_end = callbacks.Recorder.on_train_batch_end
    epoch_end = callbacks.Recorder.on_epoch_end
    seen = {"batches": 0, "epochs": 0}

    def after_batch(self, batch, logs=None):
        batch_end(self, batch, logs)
        seen["batches"] += 1
        if seen["batches"] == count:
            raise Stopped

    def after_epoch(self, epoch, logs=None):
        epoch_end(self, epoch, logs)
        seen["epochs"] += 1
        if seen["epochs"] == -count:
            raise Stopped

    patch.setattr(callbacks.Recorder, "on_train_batch_end", after_batch)
    patch.setattr(callbacks.Recorder, "on_epoch_end", after_epoch)


def interrupted(directory, count, **values):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, count)
        with pytest.raises(Stopped):
            tiny.train(directory, **values)


def event_log(directory):
    log = EventAccumulator(str(directory / run_directory.TENSORBOARD), size_guidance={"tensors": 0})
    return log.Reload()


def log_of(directory):
    """Names in a TensorBoard log, with the steps of their values; none before there is one."""
    if not (directory / run_directory.TENSORBOARD).exists():
        return {}
    log = event_log(directory)
    return {name: [event.step for event in log.Tensors(name)] for name in log.Tags()["tensors"]}


def assert_same_weights(left, right):
    pairs = zip(left.get_weights(), right.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def assert_same_end(directory, ensemble, whole):
    """Weights, optimizer, metrics and checkpoints bit for bit; only the clock may differ."""
    assert_same_weights(ensemble, whole["ensemble"])
    assert metrics(directory) == metrics(whole["directory"])
    assert checkpoints(directory)[-2:] == checkpoints(whole["directory"])[-2:] == step_files(TOTAL)
    states = []
    for place in (directory, whole["directory"]):
        path = place / run_directory.CHECKPOINTS / f"step-{TOTAL:08d}"
        state = json.loads(path.with_suffix(".json").read_text())
        variables = keras.saving.load_model(path.with_suffix(".keras")).optimizer.variables
        states.append([state["history"], state["step"], [np.asarray(v).tobytes() for v in variables]])
    assert states[0] == states[1]


def test_metrics_are_one_line_an_epoch_with_training_and_test_values(whole):
    first, second = metrics(whole["directory"])
    assert (first["epoch"], second["epoch"]) == (1, 2)
    names = {"loss", "cross_entropy", "gal", "coherence", "accuracy", "tiny_0_accuracy", "tiny_1_accuracy"}
    assert set(first) == set(second) == {"epoch"} | names | {f"val_{name}" for name in names}
    for line in (first, second):
        assert line["loss"] == pytest.approx(line["cross_entropy"] + 0.5 * line["gal"], rel=1e-5)
        assert all(np.isfinite(value) for value in line.values())
    assert second["loss"] < first["loss"], "it learns"


def test_last_metrics_are_those_of_the_trained_ensemble(whole):
    x, y = tiny.data().test_set()
    found = whole["ensemble"].evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    last = metrics(whole["directory"])[-1]
    assert {name: last[f"val_{name}"] for name in found} == pytest.approx(found, rel=1e-6)


def test_two_newest_checkpoints_are_kept(whole):
    assert checkpoints(whole["directory"]) == step_files(PER_EPOCH, TOTAL)


def test_curves_are_in_the_log_while_it_trains(whole):
    after_first_epoch = next(
        names for line, names in zip(whole["lines"], whole["scalars"], strict=True) if "1/2 trained" in line
    )
    assert {"loss/epoch/loss", "accuracy/epoch/val_accuracy", "loss/step/loss"} <= after_first_epoch
    steps = log_of(whole["directory"])
    assert steps["alignment/epoch/coherence"] == [1, 2]
    assert steps["loss/step/loss"] == [10, 20, 30]


def test_curves_stand_in_groups(whole):
    of_epoch = {
        *("loss/epoch/loss", "loss/epoch/cross_entropy", "alignment/epoch/gal", "alignment/epoch/coherence"),
        *("accuracy/epoch/accuracy", "members/epoch/tiny_0_accuracy", "members/epoch/tiny_1_accuracy"),
    }
    of_test = {name.replace("epoch/", "epoch/val_") for name in of_epoch}
    of_step = {name.replace("epoch/", "step/") for name in of_epoch}
    histogram = {"alignment/epoch/val_coherence_of_images"}
    assert set(log_of(whole["directory"])) == of_epoch | of_test | of_step | histogram


def test_the_log_has_the_coherence_of_each_test_image_after_each_epoch(whole):
    """The histogram of the last epoch is that of the trained weights' gradients, taken in NumPy."""
    events = event_log(whole["directory"]).Tensors("alignment/epoch/val_coherence_of_images")
    assert [event.step for event in events] == [1, 2]
    left, right, counts = tf.make_ndarray(events[-1].tensor_proto).T
    x, y = tiny.data().test_set()
    one, other = (
        gradient(y) for gradient, _ in tiny.forward(tiny.weights(whole["ensemble"]), x.reshape(len(x), -1))
    )
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / lengths
    np.testing.assert_allclose([left[0], right[-1]], [cosines.min(), cosines.max()], atol=1e-5)
    expected, _ = np.histogram(cosines, np.append(left[:1] - 1e-5, right + 1e-5))
    assert counts.tolist() == expected.tolist() and counts.sum() == len(x)
    assert len(set(np.round(cosines, 3))) > 5


def test_one_member_has_no_coherence_to_log(tmp_path):
    tiny.train(tmp_path, mode="base", num_members=1, epochs=1)
    assert "accuracy/epoch/val_accuracy" in log_of(tmp_path)
    assert not [name for name in log_of(tmp_path) if name.startswith("alignment")]


def test_progress_says_what_is_trained_and_each_epochs_values(whole):
    assert whole["lines"][0] == "trains T_Div: 2 x tiny, 2 epochs of 144 images"
    assert [line.split(":")[0] for line in whole["lines"][1:]] == [
        f"epoch {epoch}/2 {what}" for epoch in (1, 2) for what in ("trained", "on test images")
    ]
    assert f"loss {metrics(whole['directory'])[-1]['val_loss']:.4f}" in whole["lines"][-1]


def test_finished_training_is_not_done_again(whole):
    with logged() as lines:
        ensemble, seconds = tiny.train(whole["directory"])
    assert lines == [f"was trained before: step {TOTAL} of {TOTAL}"]
    assert_same_weights(ensemble, whole["ensemble"])
    assert seconds == whole["s"] > 0


@pytest.mark.parametrize(
    ("count", "minutes", "resumed_at"),
    [
        (25, EVERY_BATCH, 25),  # In the second epoch, just after a checkpoint.
        (25, 10.0, PER_EPOCH),  # In the second epoch, seven batches after the last checkpoint.
        (7, 10.0, 0),  # Before there was any checkpoint.
        (-1, 10.0, PER_EPOCH),  # Between two epochs.
    ],
    ids=["at a checkpoint in an epoch", "within an epoch", "before a checkpoint", "between epochs"],
)
def test_interrupted_training_ends_as_if_it_had_not_been(tmp_path, whole, count, minutes, resumed_at):
    interrupted(tmp_path, count, checkpoint_minutes=minutes)
    with logged() as lines:
        ensemble, _ = tiny.train(tmp_path)
    assert (f"goes on from step {resumed_at} of {TOTAL}" in lines) == (resumed_at > 0)
    assert_same_end(tmp_path, ensemble, whole)


@pytest.mark.parametrize(("before", "after"), [("low", None), (None, "low")])
def test_training_goes_on_with_another_memory(tmp_path, whole, before, after):
    interrupted(tmp_path, 25, checkpoint_minutes=EVERY_BATCH, memory=before)
    with logged() as lines:
        ensemble, _ = tiny.train(tmp_path, memory=after)
    assert f"goes on from step 25 of {TOTAL}" in lines
    assert ensemble.memory == after
    for found, expected in zip(ensemble.get_weights(), whole["ensemble"].get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)  # Adam's steps of 1e-3, sums in other orders.


def test_moving_statistics_rates_and_narrow_arithmetic_are_gone_on_with(tmp_path, monkeypatch):
    """A convolution and batch normalisation in bfloat16, by a cosine schedule."""

    def convolutional(make, x, num_classes):
        x = make.activate(divtf.BatchNormalization()(make.conv(x, 3, use_bias=False)))
        return make.dense(keras.layers.Flatten()(x), num_classes)

    monkeypatch.setitem(MODELS, "tiny", convolutional)
    monkeypatch.setattr("divtf.pipeline.preflight.require_fast_precision", lambda precision: None)
    values = {"precision": "mixed_bfloat16", "schedule": "cosine"}
    trained, _ = tiny.train(tmp_path / "whole", **values)
    interrupted(tmp_path / "run", 25, checkpoint_minutes=EVERY_BATCH, **values)
    with logged() as lines:
        ensemble, _ = tiny.train(tmp_path / "run", **values)
    assert f"goes on from step 25 of {TOTAL}" in lines
    assert any("moving" in weight.path for weight in ensemble.weights)
    assert_same_end(tmp_path / "run", ensemble, {"directory": tmp_path / "whole", "ensemble": trained})


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 9, 17, 18, 19, 35, 36])
def test_interrupted_at_any_step_it_ends_as_if_it_had_not_been(tmp_path, whole, count):
    interrupted(tmp_path, count, checkpoint_minutes=EVERY_BATCH)
    ensemble, _ = tiny.train(tmp_path)
    assert_same_end(tmp_path, ensemble, whole)


@pytest.mark.slow
def test_interrupted_again_and_again_it_ends_as_if_it_had_not_been(tmp_path, whole):
    for count in (5, 5, -1, 3):
        interrupted(tmp_path, count, checkpoint_minutes=EVERY_BATCH)
    ensemble, _ = tiny.train(tmp_path)
    assert_same_end(tmp_path, ensemble, whole)


def start_and_kill(directory, step):
    """Train in another process, and kill it once it has got past a step; not a moment that it chooses."""
    process = forked.Forked(tiny.train_in_a_process, directory, 2)
    folder = directory / run_directory.CHECKPOINTS
    while process.lives and not list(folder.glob(f"step-{step:08d}.json")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_killed_process_is_gone_on_with_exactly(tmp_path, whole):
    start_and_kill(tmp_path, 23)
    with logged() as lines:
        ensemble, _ = tiny.train(tmp_path)
    assert lines[-1].startswith("epoch 2/2 on test images")
    assert lines[0].startswith("goes on from step 2"), lines
    assert_same_end(tmp_path, ensemble, whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 6, 17, 18, 19, 33])
def test_killed_anywhere_it_is_gone_on_with_exactly(tmp_path, whole, step):
    start_and_kill(tmp_path, step)
    ensemble, _ = tiny.train(tmp_path)
    assert_same_end(tmp_path, ensemble, whole)


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of the whole run, to damage."""
    return shutil.copytree(whole["directory"], tmp_path / "copy")


def test_truncated_checkpoint_is_reported_and_the_one_before_used(copied, whole):
    truncate(copied / run_directory.CHECKPOINTS / f"step-{TOTAL:08d}.keras")
    (copied / run_directory.METRICS).write_text('{"epoch": 1, "loss"')
    with logged() as lines:
        ensemble, _ = tiny.train(copied)
    assert lines[0].endswith(f"metrics.jsonl is damaged; writing it again from checkpoint step-{TOTAL:08d}")
    assert lines[1].startswith(f"checkpoint step-{TOTAL:08d} is damaged (its hash is not the recorded one)")
    assert lines[2] == f"goes on from step {PER_EPOCH} of {TOTAL}"
    assert_same_end(copied, ensemble, whole)


def test_finished_run_is_analysed_by_its_last_weights_or_not_at_all(copied, whole):
    config, spec = tiny.config(), tiny.data().spec
    restored = trained.restore(config, spec, copied)
    assert_same_weights(restored, whole["ensemble"])
    flip(copied / run_directory.CHECKPOINTS / f"step-{TOTAL:08d}.keras")
    with pytest.raises(InputError, match=r"epoch 2, .*checkpoints\. Received: one of epoch 1;"):
        trained.restore(config, spec, copied)


def test_older_checkpoint_does_not_shorten_whole_metrics(copied):
    before = (copied / run_directory.METRICS).read_bytes()
    flip(copied / run_directory.CHECKPOINTS / f"step-{TOTAL:08d}.json")
    with logged() as lines:
        trained.mend_metrics(tiny.config(), copied)
    assert (copied / run_directory.METRICS).read_bytes() == before
    assert not lines


@pytest.mark.parametrize("suffix", ["keras", "json"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_no_damaged_checkpoint_is_used(copied, damage, suffix):
    folder = copied / run_directory.CHECKPOINTS
    damage(folder / f"step-{TOTAL:08d}.{suffix}")
    store = Checkpoints(folder)
    assert store.restore().step == PER_EPOCH
    assert store.newest == folder / f"step-{PER_EPOCH:08d}.keras"
    damage(folder / f"step-{PER_EPOCH:08d}.{suffix}")
    assert Checkpoints(folder).restore() is None


def test_damaged_checkpoint_takes_no_room_from_good_ones(copied):
    """Going on from 18, checkpoints at 20 and 24 must not give way to the damaged one at 36."""
    folder = copied / run_directory.CHECKPOINTS
    truncate(folder / f"step-{TOTAL:08d}.keras")
    (folder / "step-00000012.keras").write_text("its process was killed before the JSON file came")
    store = Checkpoints(folder)
    state = store.restore()
    for step in (20, 24):
        state.step = step
        store.save(state.ensemble, state)
    assert checkpoints(copied) == step_files(20, 24)


def test_files_that_are_no_checkpoints_stay_and_are_not_read(copied):
    folder = copied / run_directory.CHECKPOINTS
    (folder / "step-old").mkdir()
    for name in ("step-notes.txt", "step-best.json", "step-99999999-copy.json"):
        (folder / name).write_text("mine")
    store = Checkpoints(folder)
    state = store.restore()
    assert state.step == TOTAL
    state.step += 1
    store.save(state.ensemble, state)
    left = {"step-old", "step-notes.txt", "step-best.json", "step-99999999-copy.json"}
    assert left < {path.name for path in folder.iterdir()}
    assert not (folder / f"step-{PER_EPOCH:08d}.keras").exists()


def test_hostile_checkpoint_runs_no_code_of_its_own(tmp_path):
    """Its hash is right, so that only Keras's safe mode stands in the way."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    path = tmp_path / "step-00000001.keras"
    model.save(path)
    checked_json.write_json(path.with_suffix(".json"), {"step": 1, "sha256": digests.file_digest(path)})
    with pytest.raises(InputError, match=r"that Keras can load\. Received: .*step-00000001"):
        Checkpoints(tmp_path).restore()


def test_whole_checkpoint_that_cannot_be_loaded_stops_the_run_and_stays(copied, monkeypatch):
    """To train anew, and prune it, would lose what another version of Keras could read."""

    def fail(path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.saving, "load_model", fail)
    with pytest.raises(InputError, match="No space left on device"):
        Checkpoints(copied / run_directory.CHECKPOINTS).restore()
    assert checkpoints(copied) == step_files(PER_EPOCH, TOTAL)


def test_finished_ensemble_can_be_had_without_training(whole, tmp_path):
    config = tiny.config()
    restored = trained.restore(config, tiny.data().spec, whole["directory"])
    assert_same_weights(restored, whole["ensemble"])
    with pytest.raises(InputError, match=r"Expected a whole checkpoint of epoch 2.*Received: none"):
        trained.restore(config, tiny.data().spec, tmp_path)


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    step = Ensemble.train_step

    def poisoned(self, data):
        x, y = data
        return step(self, (tf.where(self.optimizer.iterations >= 4, np.nan, x), y))

    monkeypatch.setattr(Ensemble, "train_step", poisoned)
    with pytest.raises(InputError) as raised:
        tiny.train(tmp_path, checkpoint_minutes=EVERY_BATCH)
    message = str(raised.value)
    assert "Expected a finite cross_entropy in training. Received: NaN or infinity at step 5" in message
    last = tmp_path / run_directory.CHECKPOINTS / "step-00000004.keras"
    assert message.endswith(f"the last good checkpoint is {last}")
    assert "\n" not in message
    weights = keras.saving.load_model(last).get_weights()
    assert all(np.isfinite(weight).all() for weight in weights)


def test_loss_that_is_not_finite_at_once_says_that_there_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"Expected a finite .* at step \d.*no checkpoint was made before$"):
        tiny.train(tmp_path, mode="base", learning_rate=1e38)


def test_objective_is_that_of_the_mode():
    spec = tiny.data().spec
    for mode, kind in (("base", CrossEntropy), ("noise", CrossEntropy), ("div", GradientAlignment)):
        ensemble = trained.build_ensemble(tiny.config(mode=mode, gal_weight=0.25), spec)
        assert type(ensemble.objective) is kind
        assert len(ensemble.members) == 2
        assert getattr(ensemble.objective, "weight", 0.25) == 0.25


def test_objective_that_is_given_has_its_settings():
    config = tiny.config(mode="base", objective="adp", adp_alpha=1.0)
    objective = trained.build_ensemble(config, tiny.data().spec).objective
    assert (type(objective).__name__, objective.alpha, objective.beta) == ("AdaptiveDiversity", 1.0, 0.5)


def test_slope_and_activation_reach_the_members():
    def slopes(**values):
        members = trained.build_ensemble(tiny.config(**values), tiny.data().spec).members
        return {getattr(layer, "negative_slope", None) for layer in members[0].layers} - {None}

    assert slopes() == {0.1}
    assert slopes(negative_slope=0.3) == {0.3}
    assert slopes(activation="relu") == {0.0}


def test_seed_makes_the_weights():
    def weights(seed):
        return trained.build_ensemble(tiny.config(seed=seed), tiny.data().spec).get_weights()

    for first, again, other in zip(weights(3), weights(3), weights(4), strict=True):
        assert np.array_equal(first, again)
        assert first.ndim == 1 or not np.array_equal(first, other)


def optimizer(**values):
    return fit.optimizer(RunConfig(**values).part(Settings), 100)


def test_optimizer_is_the_papers_adam_unless_asked_otherwise():
    plain = optimizer()
    assert type(plain) is divtf.Adam
    assert float(plain.learning_rate) == pytest.approx(0.001)
    assert plain.weight_decay is None
    assert plain.get_config()["beta_1"] == 0.9
    assert optimizer(weight_decay=0.1).weight_decay == 0.1
    cosine = optimizer(schedule="cosine", learning_rate=0.1)._learning_rate
    # Half a cosine from the first step to the last: 1, 1/2, 0.
    assert [float(cosine(step)) for step in (0, 50, 100)] == pytest.approx([0.1, 0.05, 0.0])


def test_curves_are_measured_on_a_small_part_of_an_epoch():
    counts = [fit._monitored(examples) for examples in (72, 8000, 20_000, 50_000, 120_000)]
    assert counts == [200, 200, 400, 1000, 1000]


def test_bfloat16_is_refused_where_it_would_crawl(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    with pytest.raises(InputError, match=r"Expected oneDNN on .* Received: TF_ENABLE_ONEDNN_OPTS=0"):
        tiny.train(tmp_path, precision="mixed_bfloat16")


def test_bfloat16_trains_in_it_and_returns_float32(tmp_path, monkeypatch):
    monkeypatch.setattr("divtf.pipeline.preflight.require_fast_precision", lambda precision: None)
    values = {"precision": "mixed_bfloat16", "epochs": 1, "mode": "base", "batch_size": 24}
    ensemble, _ = tiny.train(tmp_path, **values)
    policies = {layer.compute_dtype for member in ensemble.members for layer in member.layers}
    assert policies == {"float32"}
    (path,) = (tmp_path / run_directory.CHECKPOINTS).glob("*.keras")
    trained = keras.saving.load_model(path)
    assert {layer.compute_dtype for layer in trained.members[0].layers if layer.weights} == {"bfloat16"}
    assert_same_weights(ensemble, trained)
    x, y = tiny.data().test_set()
    assert np.isfinite(ensemble.evaluate(x, y, verbose=0, return_dict=True)["loss"])


def test_mirrored_strategy_on_one_device_trains_the_same(tmp_path, whole):
    """Resumed too, since checkpoints are made and read inside its scope."""
    interrupted(tmp_path, -1, strategy="mirrored")
    ensemble, _ = tiny.train(tmp_path, strategy="mirrored")
    for found, expected in zip(ensemble.get_weights(), whole["ensemble"].get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_step_is_traced_once(tmp_path, monkeypatch):
    """Tracing is what the deep networks' first step costs."""
    calls, step = [], Ensemble.train_step
    monkeypatch.setattr(Ensemble, "train_step", lambda self, data: calls.append(1) or step(self, data))
    tiny.train(tmp_path, mode="base", epochs=1, batch_size=24)
    assert len(calls) == 1
