"""From a run directory back to Python, and back into an evaluation."""

import shutil

import keras
import numpy as np
import pytest
import tiny
from logged import logged

import divtf
from divtf import InputError, evaluate_transfer, load_run, load_surrogate, make_attack
from divtf.pipeline import experiment, finished
from divtf.storage import run_directory

pytestmark = pytest.mark.usefixtures("tiny_world")
BUDGET = {"epochs": 2, "attacks": ("fgsm",), "epsilons": (0.1,), "mode": "div"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    config = tiny.config(**BUDGET, run_dir=str(tmp_path_factory.mktemp("runs") / "mine"))
    return experiment.run(config)


def test_a_run_gives_its_ensemble_configuration_and_images(directory):
    run, record = load_run(directory), finished.read_record(directory)
    assert (run.name, run.config.mode, run.config.run_dir) == ("T_Div", "div", str(directory))
    x, y = run.data.test_set()
    assert (run.ensemble.predict(x, verbose=0).argmax(-1) == y).sum() == record.result("clean", 0.0).correct
    assert (
        run.ensemble.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
        == record.result("clean", 0.0).accuracy
    )


def test_an_evaluation_takes_what_they_give_and_makes_no_image_anew(directory):
    run, record = load_run(directory), finished.read_record(directory)
    attack = make_attack("fgsm", divtf.ThreatModel(0.1))
    surrogate = load_surrogate(directory)
    with logged() as lines:
        results = evaluate_transfer(surrogate, run, run.data.test_set(), attack)
    assert not [line for line in lines if "making" in line]
    assert [result.correct for result in results] == [result.correct for result in record.results]
    made_before = record.result("fgsm", 0.1).adversarial_set
    assert results[1].adversarial_set == made_before
    assert results[1].target == "T_Div"
    anew = evaluate_transfer(surrogate.surrogate, {"T_Div": run}, run.data.test_set(), attack)
    assert [result.correct for result in anew] == [result.correct for result in results]


def test_a_run_keeps_its_ensemble_for_keras(directory):
    kept = keras.models.load_model(directory / run_directory.ENSEMBLE)
    run = load_run(directory)
    for a, b in zip(kept.get_weights(), run.ensemble.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kept.set_weights([weight.astype("float16").astype("float32") for weight in kept.get_weights()])
    results = evaluate_transfer(
        load_surrogate(directory), {"kept": kept, "rounded": run}, run.data.test_set(), []
    )
    assert [result.target for result in results] == ["kept", "rounded"]


def test_a_run_is_loaded_from_wherever_it_lies_now(directory, tmp_path):
    moved = shutil.copytree(directory.parent, tmp_path / "moved") / directory.name
    assert load_run(str(moved)).config.run_dir == str(moved)
    assert load_surrogate(moved).surrogate.num_classes == load_run(directory).ensemble.num_classes


def test_what_is_no_finished_run_is_one_line(directory, tmp_path):
    alone = shutil.copytree(directory, tmp_path / "alone")
    untrained = shutil.copytree(directory, tmp_path / "untrained")
    shutil.rmtree(untrained / run_directory.CHECKPOINTS)
    cases = [
        (load_run, tmp_path / "nothing"),
        (load_surrogate, tmp_path / "nothing"),
        (load_run, tmp_path),
        (load_run, untrained),
        (load_surrogate, alone),
    ]
    for load, path in cases:
        with pytest.raises(InputError, match=r"^Expected .*Received: ") as raised:
            load(path)
        assert "\n" not in str(raised.value)
