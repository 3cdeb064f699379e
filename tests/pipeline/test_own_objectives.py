"""Runs whose objective is the user's own: trained, gone on with, read elsewhere, and what is refused."""

import json
import shutil
import sys

import numpy as np
import own_models
import pytest
import tiny
from endings import lose
from forked import Forked

import divtf
from divtf import InputError, load_run, make_objective
from divtf.pipeline import experiment, finished

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


@keras.saving.register_keras_serializable("someone")
class OfThree(Disagreement):
    least_members = 3


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


def _other_code(module):
    def call(self, members, x, y, *, training):
        return module.before(self, members, x, y, training=training)

    module.before = module.Disagreement.__call__
    return call


@pytest.mark.parametrize("changed", ["code", "settings"])
def test_one_that_has_changed_since_is_one_line(changed, directory, tmp_path, monkeypatch):
    """Else the second half of training would minimise something else under the same name."""
    module = __import__(NAME)
    if changed == "code":
        monkeypatch.setattr(module.Disagreement, "__call__", _other_code(module))
    else:
        monkeypatch.setattr(module.Disagreement.__init__, "__defaults__", (3.0,))
    copy = interrupted(directory, tmp_path)
    with pytest.raises(InputError, match=r"^Expected objective Disagreement as it was when .* Received: one"):
        experiment.run(config(epochs=2, run_dir=str(copy), resume=True))


REFUSED = [
    ("Disagrement", {}, r"to be there\. Received: no Disagrement in .*did you mean Disagreement\?"),
    ("number", {}, r"as a function\. Received: a int"),
    ("as_an_objective", {}, r"called without arguments\. Received: TypeError: .*members"),
    ("failing", {}, r"called without arguments\. Received: RuntimeError: not today$"),
    ("nothing", {}, r"an objective of someones_objectives:nothing, an object .*Received: None"),
    ("a_class", {}, r"an objective of someones_objectives:a_class, an object .*Received: <class"),
    ("Unknown", {}, r"Keras can save and load.*registered.*Received: "),
    ("OfThree", {}, r"at least 3 members for OfThree\. Received: 2"),
]


@pytest.mark.parametrize(("name", "values", "message"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_is_none_is_refused_before_a_directory_is_made(name, values, message, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(InputError, match=message):
        experiment.run(config(name, run_dir=str(run_dir), **values))
    assert not run_dir.exists()


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
