"""Runs whose objective is the user's own: trained, gone on with, read elsewhere, and what is refused."""

import dataclasses
import json
import shutil
import sys

import keras
import numpy as np
import own_models
import pytest
import tiny
from endings import lose
from forked import Forked

import divtf
from divtf import InputError, load_run, make_objective
from divtf.pipeline import experiment, finished, trained
from divtf.pipeline.parts import EnsemblePart
from divtf.runtime import own_code
from divtf.storage.digests import digest

pytestmark = pytest.mark.usefixtures("tiny_world", "place")
NAME = "someones_objectives"
TEXT = '''
import dataclasses

import keras
import tensorflow as tf

from divtf.ensembles.objectives.terms import Terms
from divtf.networks.logits import cross_entropy


@keras.saving.register_keras_serializable("someone")
class Disagreement:
    """Cross-entropy less the variance of the members' probabilities."""

    def __init__(self, weight=1.0):
        self.weight = weight

    def __call__(self, members, x, y, *, training):
        logits = tf.stack([member(x, training=training) for member in members])
        losses, _ = cross_entropy(logits, y)
        apart = tf.math.reduce_variance(tf.nn.softmax(logits), axis=0)
        mean, diversity = tf.reduce_mean(losses, axis=0), -self.weight * tf.reduce_sum(apart, axis=-1)
        return Terms(logits, mean + diversity, mean, diversity=diversity)

    def get_config(self):
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Unknown(Disagreement):
    pass


@keras.saving.register_keras_serializable("someone", "Disagreement")
class Copied(Disagreement):
    pass


keras.saving.register_keras_serializable("someone")(Disagreement)


@keras.saving.register_keras_serializable("someone")
class OfThree(Disagreement):
    least_members = 3


@keras.saving.register_keras_serializable("someone")
class Raising(Disagreement):
    def __call__(self, members, x, y, *, training):
        raise ValueError("my own fault\\nand more")


@keras.saving.register_keras_serializable("someone")
class OtherCall(Disagreement):
    def __call__(self, members, x, y):
        return super().__call__(members, x, y, training=True)


@keras.saving.register_keras_serializable("someone")
class Number(Disagreement):
    def __call__(self, members, x, y, *, training):
        return super().__call__(members, x, y, training=training).loss


@keras.saving.register_keras_serializable("someone")
class Forgetful(Disagreement):
    def get_config(self):
        return {}


def forgetful():
    return Forgetful(50.0)


@keras.saving.register_keras_serializable("someone")
class OfEager(Disagreement):
    def __call__(self, members, x, y, *, training):
        terms = super().__call__(members, x, y, training=training)
        return terms if float(terms.loss[0]) else terms


@keras.saving.register_keras_serializable("someone")
class OfTraining(Disagreement):
    def __call__(self, members, x, y, *, training):
        return super().__call__(members, x, y, training=training) if training else None


@keras.saving.register_keras_serializable("someone")
class Leaving(Disagreement):
    def __call__(self, members, x, y, *, training):
        raise SystemExit(3)


@keras.saving.register_keras_serializable("someone")
class Hardest(Disagreement):
    """Of a batch of eight images and more, of several classes."""

    def __call__(self, members, x, y, *, training):
        terms = super().__call__(members, x, y, training=training)
        same = tf.reduce_mean(tf.cast(y[:, None] == y[None], tf.float32))
        hardest = tf.reduce_mean(tf.math.top_k(terms.loss, 8).values) / (1 - same)
        return dataclasses.replace(terms, loss=terms.loss + hardest)


class TRS(Disagreement):
    pass


def trs():
    return Disagreement(2.0)


def nothing():
    return None


def a_class():
    return Disagreement


def failing():
    raise RuntimeError("not today\\nand more")


def as_an_objective(members, x, y, *, training):
    return None


number = 3
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The working directory, in which the user's module lies."""
    place = tmp_path_factory.mktemp("mine")
    (place / f"{NAME}.py").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.delitem(sys.modules, NAME, raising=False)
        patch.chdir(place)
        yield place


def config(name="Disagreement", **values):
    given = {"objective": f"{NAME}:{name}", "mode": "base", "dataset": "stripes", "attacks": ("fgsm",)}
    return tiny.config(**given | {"epochs": 1, "batch_size": 24, "epsilons": (0.1,)} | values)


@pytest.fixture(scope="module")
def directory(place):
    return experiment.run(config(epochs=2, run_dir=str(place / "runs" / "own")))


def test_a_run_trains_by_it_and_is_recorded_by_its_short_name(directory):
    record = finished.read_record(directory)
    assert record.target == "T_Base (Disagreement)"
    assert config().run_dir == "runs/stripes-tiny-base-Disagreement-seed0"
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 and all(json.loads(line)["diversity"] < 0 for line in lines)
    assert load_run(directory).ensemble.objective.weight == 1


def test_a_name_of_divtfs_is_divtfs():
    assert (config("trs").target, config("trs").name) == (
        "T_Base (own-trs)",
        "stripes-tiny-base-own-trs-seed0",
    )
    assert config("TRS").target == "T_Base (own-TRS)" != config(objective="trs").target
    assert config(mode="ens_div").target == "T_Ens+Div (Disagreement)"


def test_a_process_that_does_not_know_the_module_yet_loads_the_run(directory, place):
    code, out, err = Forked(own_models.read_elsewhere, place, directory).ended()
    assert (code, err) == (0, "")
    expected = load_run(directory).ensemble(np.full((1, *tiny.SHAPE), 0.5, "float32"))
    np.testing.assert_allclose(np.loadtxt(out.splitlines())[0], np.ravel(expected), rtol=1e-5)


def test_an_interrupted_run_is_gone_on_with(directory, tmp_path):
    copy = interrupted(directory, tmp_path)
    experiment.run(config(epochs=2, run_dir=str(copy), resume=True))
    found, expected = (finished.read_record(path).provenance["weights"] for path in (copy, directory))
    assert found == expected


def interrupted(directory, place):
    copy = shutil.copytree(directory.parent, place / "runs") / directory.name
    lose(copy, "results.json", "checkpoints/step-00000006.*")
    return copy


@pytest.fixture
def change(place, monkeypatch):
    """Writes the module with a weight twice as large, for this process, and for one that begins anew."""
    path, registered = place / f"{NAME}.py", keras.saving.get_custom_objects()
    before = dict(registered)

    def write(*, anew):
        path.write_text(TEXT.replace("Disagreement(2.0)", "Disagreement(4.0)"))
        if anew:
            monkeypatch.delitem(sys.modules, NAME)
            monkeypatch.setattr(own_code, "_IMPORTED", {})

    yield write
    path.write_text(TEXT)
    registered.update(before)


def test_other_code_is_another_run(change):
    before = config("trs")
    change(anew=True)
    after = config("trs")
    assert digest(after.training()) != digest(before.training()) and after.name == before.name
    assert dataclasses.replace(before, epochs=1) == before, "a configuration keeps what it was made of"


@pytest.mark.parametrize("lost", [True, False], ids=["interrupted", "finished"])
def test_a_run_of_other_code_is_not_gone_on_with(lost, change, tmp_path):
    """Else training would go on with, or a table have beside it, something else under the same name."""
    directory = experiment.run(config("trs", run_dir=str(tmp_path / "run")))
    if lost:
        lose(directory, "results.json")
    change(anew=True)
    with pytest.raises(InputError, match=r"^Expected a run directory of this configuration.*objective="):
        experiment.run(config("trs", run_dir=str(directory), resume=True))
    assert lost or load_run(directory).ensemble.objective.weight == 2


def test_a_process_with_the_code_of_before_does_not_train_by_it(change, tmp_path):
    before = config("trs", run_dir=str(tmp_path / "before"))
    trained.build_ensemble(before.part(EnsemblePart), tiny.data().spec)
    change(anew=False)
    after = config("trs", run_dir=str(tmp_path / "after"))
    with pytest.raises(InputError, match=rf"^Expected module {NAME} as it was when the run was configured, "):
        experiment.run(after)
    experiment.run(before)  # Of the code that the process has.
    assert load_run(tmp_path / "before").ensemble.objective.weight == 2 and not (tmp_path / "after").exists()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_setting_that_get_config_leaves_out_is_gone_on_with(precision, tmp_path):
    """Keras calls for no more than that the checkpoint can be read."""
    values = {"epochs": 2, "precision": precision}
    whole = experiment.run(config("forgetful", run_dir=str(tmp_path / "whole"), **values))
    copy = shutil.copytree(whole, tmp_path / "copy")
    lose(copy, "results.json", "checkpoints/step-00000006.*")
    experiment.run(config("forgetful", run_dir=str(copy), resume=True, **values))
    assert (copy / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


REFUSED = [
    ("Disagrement", {}, r"to be there\. Received: no Disagrement in .*did you mean Disagreement\?"),
    ("number", {}, r"as a function\. Received: a int"),
    ("as_an_objective", {}, r"called without arguments\. Received: TypeError: .*members"),
    ("failing", {}, r"called without arguments\. Received: RuntimeError: not today$"),
    ("nothing", {}, r"an objective of someones_objectives:nothing, an object .*Received: None"),
    ("a_class", {}, r"an objective of someones_objectives:a_class, an object .*Received: <class"),
    ("Unknown", {}, r"Keras can save and load.*registered.*Received: someones_objectives:Unknown: "),
    ("Raising", {}, r"called with members, images, labels and training.* ValueError: my own fault$"),
    ("OtherCall", {}, r"called with members, images, labels and training.* TypeError: .*training"),
    ("Number", {}, r"an objective that gives Terms\. Received: Number, which gives .*Tensor"),
    ("OfTraining", {}, r"an objective that gives Terms\. Received: OfTraining, which gives NoneType"),
    ("OfEager", {}, r"called with members, images, labels and training in a graph.* TypeError: "),
    ("Leaving", {}, r"called with members, images, labels and training in a graph.* SystemExit: 3$"),
    ("Copied", {}, r"under a name of its own in Keras's registry\. Received: that of someones_objectives"),
    ("OfThree", {}, r"at least 3 members for OfThree\. Received: 2"),
]


@pytest.mark.parametrize(("name", "values", "message"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_is_none_is_refused_before_a_directory_is_made(name, values, message, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(InputError, match=message):
        experiment.run(config(name, run_dir=str(run_dir), **values))
    assert not run_dir.exists()


def test_an_objective_of_whole_batches_trains(tmp_path):
    directory = experiment.run(config("Hardest", run_dir=str(tmp_path / "run")))
    assert finished.read_record(directory).target == "T_Base (Hardest)"


def test_an_objective_of_a_script_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "own", lambda: make_objective("gal"), raising=False)
    with pytest.raises(InputError, match=r"of a module with a file of its own\. Received: __main__:own, "):
        experiment.run(config(objective="__main__:own", run_dir=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"memory": "low"}, r"--memory=low with an objective of .* Received: objective someones_obj"),
        ({"gal_weight": 2.0}, r"--gal_weight with --objective=gal alone"),
        ({"trs_steps": 2}, r"--trs_steps with --objective=trs alone"),
        ({"objective": "no module"}, r"--objective as one of .*MODULE:NAME"),
        ({"objective": "nowhere:Thing"}, r"module nowhere of --objective to be imported"),
    ],
)
def test_values_that_do_not_go_with_it_are_one_line(values, message, tmp_path):
    with pytest.raises(InputError, match=message):
        experiment.run(config(**values | {"run_dir": str(tmp_path / "run")}))


def test_make_objective_gives_it_with_its_settings():
    assert make_objective(f"{NAME}:Disagreement", weight=5.0).weight == 5
    with pytest.raises(InputError, match=r"when it is called with weigh\. Received: TypeError"):
        make_objective(f"{NAME}:Disagreement", weigh=5.0)
    assert divtf.Ensemble(load_members(), make_objective(f"{NAME}:trs")).objective.weight == 2


def load_members():
    return divtf.build_members("tiny", 2, tiny.SHAPE, tiny.CLASSES, seed=0)
