"""Runs on images of one's own: streamed from a folder they are what they are in memory."""

import json
import shutil

import numpy as np
import own_images
import pytest
import tiny
from damage import truncate
from logged import logged

from divtf.data.datasets import load_dataset
from divtf.errors import InputError
from divtf.pipeline import experiment, finished
from divtf.pipeline.loading import load_run, load_surrogate
from divtf.storage import run_directory

pytestmark = pytest.mark.usefixtures("tiny_world")


@pytest.fixture(scope="module", name="world")
def fixture_world(tmp_path_factory):
    """The same images as a folder and as an archive in memory, in one order."""
    root = tmp_path_factory.mktemp("images")
    own_images.folder(root / "pets")
    data = load_dataset(str(root / "pets"))
    arrays = {name: np.asarray(getattr(data, name)) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez_compressed(root / "pets.npz", **arrays, class_names=np.array(own_images.NAMES))
    return root


def config(root, dataset, **values):
    defaults = {"mode": "ens_div", "epochs": 1, "attacks": ("fgsm", "ifgsm"), "epsilons": (0.02, 0.1)}
    place = {"dataset": str(dataset), "run_dir": str(root / "runs" / "run")}
    return tiny.config(**defaults | place | values)


@pytest.fixture(scope="module", name="streamed")
def fixture_streamed(world, tmp_path_factory):
    return experiment.run(config(tmp_path_factory.mktemp("streamed"), world / "pets"))


def test_a_streamed_run_is_the_run_in_memory(world, streamed, tmp_path):
    """The weights are equal to the bit, and so is every count, by class too."""
    in_memory = experiment.run(config(tmp_path, world / "pets.npz"))
    one, other = (finished.read_record(directory) for directory in (streamed, in_memory))
    assert one.provenance["weights"] == other.provenance["weights"]
    assert one.coherence == other.coherence
    for mine, its in zip(one.results, other.results, strict=True):
        assert (mine.attack, mine.epsilon, mine.correct, mine.adversarial_set) == (
            *(its.attack, its.epsilon, its.correct),
            its.adversarial_set,
        )
        assert mine.correct_by_class == its.correct_by_class and sum(mine.total_by_class) == mine.total


def test_class_names_and_a_short_name_reach_records_and_report(streamed):
    record = finished.read_record(streamed)
    assert record.class_names == own_images.NAMES and record.subject == "tiny on pets"
    text = (streamed / "report.md").read_text()
    for name in own_images.NAMES:
        assert f"| {name} |" in text
    assert "worst case at 0.1" in text


def test_it_is_gone_on_with_exactly(world, streamed, tmp_path, monkeypatch):
    """Interrupted within an epoch: the checkpoint and (seed, step) tell the rest."""
    from divtf.training.callbacks import Counter

    count = Counter.on_train_batch_end

    def stop(self, batch, logs=None):
        count(self, batch, logs)
        if self.model.objective.__class__.__name__ == "GradientAlignment" and self._state.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Counter, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config(tmp_path, world / "pets", checkpoint_minutes=1e-9))
    with logged() as lines:
        again = experiment.run(config(tmp_path, world / "pets", resume=True))
    assert any(line.startswith("goes on from step 2") for line in lines), lines
    known = finished.read_record(streamed).provenance["weights"]
    assert finished.read_record(again).provenance["weights"] == known


def test_python_gets_the_run_and_its_surrogate_back(streamed):
    run = load_run(streamed)
    x, y = run.data.test_set()
    hits = run.ensemble.predict(np.asarray(x), verbose=0).argmax(-1) == y
    assert hits.sum() == finished.read_record(streamed).result("clean", 0.0).correct
    assert len(load_surrogate(streamed).surrogate.members) == 2


def test_a_run_is_had_back_when_it_and_its_images_have_moved(world, streamed, tmp_path):
    shutil.copytree(streamed.parent, tmp_path / "elsewhere")
    shutil.copytree(world / "pets", tmp_path / "animals")
    place = {"dataset": tmp_path / "animals"}
    run = load_run(tmp_path / "elsewhere" / "run", **place)
    np.testing.assert_array_equal(np.asarray(run.data.x_test), np.asarray(load_run(streamed).data.x_test))
    assert len(load_surrogate(tmp_path / "elsewhere" / "run", **place).surrogate.members) == 2


def test_other_images_under_the_name_are_not_trained_on(tmp_path):
    own_images.folder(tmp_path / "pets")
    directory = experiment.run(config(tmp_path, tmp_path / "pets", mode="base", attacks=()))
    own_images.write(tmp_path / "pets" / "train" / "cat" / "new.png", own_images.picture(9))
    (directory / run_directory.RESULTS).unlink()
    with pytest.raises(InputError, match=r"as they were when training in .* began. Received: other ones"):
        experiment.run(config(tmp_path, tmp_path / "pets", mode="base", attacks=(), resume=True))


def test_image_that_breaks_off_ends_the_training_with_its_name_and_keeps_the_checkpoint(tmp_path):
    made = own_images.folder(tmp_path / "pets", size=(64, 64))
    broken = next(path for path in made if "train" in path.parts)
    truncate(broken)
    with pytest.raises(InputError) as caught:
        experiment.run(config(tmp_path, tmp_path / "pets", mode="base", attacks=()))
    message = str(caught.value)
    assert f"Expected an image that can be read. Received: {broken}: " in message and "\n" not in message
    assert "no checkpoint was made before" in message


def test_noise_follows_the_largest_epsilon_and_makes_another_run(world, tmp_path):
    some = config(tmp_path, world / "pets", mode="div")
    other = config(tmp_path, world / "pets", mode="div", epsilons=(0.02, 0.2))
    plain = config(tmp_path, world / "pets", mode="base")
    assert (some.largest_epsilon, other.largest_epsilon) == (0.1, 0.2)
    assert some.training() != other.training()
    assert "largest_epsilon" not in plain.training()
    assert some.name == "pets-tiny-div-seed0"
    assert json.loads(json.dumps(some.identity()))["dataset"] == str(world / "pets")
