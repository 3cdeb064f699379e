"""Runs of the user's own models: from which weights each ensemble begins, and the way back to Python."""

import dataclasses
import json
import shutil

import numpy as np
import own_models
import pytest
import tiny
from command_lines import parts
from endings import lose
from forked import Forked

from divtf import InputError, RunConfig, load_run, load_surrogate
from divtf.networks.models import build_members
from divtf.pipeline import experiment, finished, shared_paths, trained
from divtf.pipeline.parts import EnsemblePart
from divtf.reporting import captions, report
from divtf.reporting.tables import tables
from divtf.storage.digests import digest

pytestmark = pytest.mark.usefixtures("tiny_world", "place")
MODULE = own_models.NAME
BUDGET = {"dataset": "stripes", "batch_size": 24, "attacks": ("fgsm",), "epsilons": (0.1,), "mode": "div"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The working directory, in which the user's module and files lie."""
    place = tmp_path_factory.mktemp("mine")
    with pytest.MonkeyPatch.context() as patch:
        own_models.importable(patch, place)
        patch.chdir(place)
        for index, member in enumerate(build_members(f"{MODULE}:plain", 2, tiny.SHAPE, tiny.CLASSES, seed=7)):
            member.save("ab"[index] + ".keras")
        yield place


def config(model=f"{MODULE}:small", **values):
    files = {"num_members": None} if "keras" in model else {}
    return tiny.config(**{"model": model, "epochs": 1, **BUDGET, **files} | values)


@pytest.fixture(scope="module")
def directory(place):
    return experiment.run(config(epochs=2, run_dir=str(place / "runs" / "small")))


def weights(ensemble):
    return [weight for member in ensemble.members for weight in member.get_weights()]


def differ(one, other):
    """Whether kernels do; biases and statistics may begin as the same numbers."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a.ndim > 1]
    return bool(pairs) and not any(np.array_equal(a, b) for a, b in pairs)


def test_a_run_of_a_function_is_recorded_by_its_short_name(directory):
    record = finished.read_record(directory)
    assert (record.model, record.dataset, record.target) == ("small", "stripes", "T_Div")
    assert record.budget["reduced"] is None
    text = (directory / report.REPORT).read_text()
    assert "a budget of its own: the paper has none for this model" in text
    (table,) = tables([record])
    assert captions.summary(table).startswith("small on stripes, a budget of its own, ")
    assert [path.name[:19] for path in (directory.parent / shared_paths.SHARED).iterdir()] == [
        "stripes-small-seed1"
    ]
    assert finished.read_sparsity(directory).activation == "own"


def test_a_process_that_does_not_know_the_module_yet_loads_the_run(directory, place):
    code, out, err = Forked(own_models.read_elsewhere, place, directory).ended()
    assert (code, err) == (0, "")
    image = np.full((1, *tiny.SHAPE), 0.5, "float32")
    expected = [load_run(directory).ensemble(image), load_surrogate(directory).surrogate(image)]
    np.testing.assert_allclose(np.loadtxt(out.splitlines()), np.concatenate(expected), rtol=1e-5)


def test_an_interrupted_run_of_a_function_is_gone_on_with(directory, place, tmp_path):
    copy = shutil.copytree(directory.parent, tmp_path / "runs") / directory.name
    lose(copy, "results.json", "checkpoints/step-00000012.*")
    experiment.run(config(epochs=2, run_dir=str(copy), resume=True))
    found, expected = (finished.read_record(path).provenance["weights"] for path in (copy, directory))
    assert found == expected


@pytest.mark.parametrize("resume", [True, False])
def test_a_function_that_has_changed_since_is_one_line(resume, directory, tmp_path, monkeypatch):
    """Else a new target would be attacked from a surrogate of what the function made before."""
    copy = shutil.copytree(directory.parent, tmp_path / "runs") / directory.name
    lose(copy, "results.json")
    module = __import__(MODULE)
    small = module.small
    monkeypatch.setattr(module, "small", lambda **given: small(**given, units=7))
    run_dir = str(copy if resume else tmp_path / "runs" / "new")
    with pytest.raises(
        InputError, match=r"^Expected --model=small as it was when .* Received: one that computes"
    ):
        experiment.run(config(epochs=2, run_dir=run_dir, resume=resume))
    assert not (tmp_path / "runs" / "new").exists()


@pytest.fixture(scope="module")
def gone_on(place):
    """A run that begins from files, of steps so small that no weight moves."""
    values = {"learning_rate": 1e-30, "run_dir": str(place / "files" / "run")}
    return experiment.run(config("a.keras,b.keras", **values))


def without_statistics(ensemble):
    """Trained weights: the running statistics of normalisations move."""
    return [weight.numpy() for member in ensemble.members for weight in member.trainable_weights]


def test_the_target_begins_from_the_files_and_the_surrogate_does_not(gone_on):
    spec, run = tiny.data().spec, load_run(gone_on)
    start = trained.build_ensemble(run.config.part(EnsemblePart), spec)
    saved = build_members("a.keras,b.keras", 2, tiny.SHAPE, tiny.CLASSES, seed=0)
    expected = [weight for member in saved for weight in member.get_weights()]
    for found, weight in zip(weights(start), expected, strict=True):
        np.testing.assert_array_equal(found, weight)
    surrogate = load_surrogate(gone_on).surrogate
    for found, weight in zip(without_statistics(run.ensemble), without_statistics(start), strict=True):
        np.testing.assert_allclose(found, weight, rtol=0, atol=1e-25)
    assert differ(without_statistics(surrogate), without_statistics(run.ensemble))
    fresh = trained.build_ensemble(run.config.base(1000).part(EnsemblePart), spec)
    for found, weight in zip(without_statistics(surrogate), without_statistics(fresh), strict=True):
        np.testing.assert_allclose(found, weight, rtol=0, atol=1e-25)


def test_a_run_of_files_is_loaded_without_them(gone_on, tmp_path):
    for stem in "ab":
        shutil.move(f"{stem}.keras", tmp_path)
    try:
        assert load_run(gone_on).config.model_name == "a+b"
        assert load_surrogate(gone_on).surrogate.num_classes == tiny.CLASSES
    finally:
        for stem in "ab":
            shutil.move(tmp_path / f"{stem}.keras", ".")


def test_files_that_have_changed_are_another_run(gone_on, tmp_path, monkeypatch):
    for index, member in enumerate(build_members(f"{MODULE}:plain", 2, tiny.SHAPE, tiny.CLASSES, seed=8)):
        member.save(tmp_path / ("ab"[index] + ".keras"))
    before = finished.read_config(gone_on)
    monkeypatch.chdir(tmp_path)
    after = config("a.keras,b.keras", learning_rate=1e-30, run_dir=str(gone_on), resume=True)
    assert digest(after.identity()) != digest(before.identity())
    with pytest.raises(InputError, match=r"Expected a run directory of this configuration.*model="):
        experiment.run(after)


def test_identity_tells_a_target_that_goes_on_from_a_surrogate_that_does_not():
    target = config("a.keras,b.keras", mode="base", seed=1000, surrogate_seed=3)
    base = config("a.keras,b.keras").base(1000)
    assert target.model_name == base.model_name == "a+b"
    assert base.model == f"new:{target.model}" and base.base(5).model == base.model
    assert digest(target.training()) != digest(base.training())
    fresh = config("new:a.keras,b.keras", mode="base", seed=1000, surrogate_seed=3)
    assert digest(fresh.training()) == digest(base.training()), "what the surrogate is, under its own name"
    assert config(mode="ens").base(2000).model == f"{MODULE}:small", "a function begins anew by its seed"


def test_configuration_of_files_travels_as_json():
    of_files = config("a.keras,b.keras")
    assert RunConfig.from_json(json.loads(json.dumps(dataclasses.asdict(of_files)))) == of_files
    assert dataclasses.replace(of_files, seed=3).model == of_files.model
    assert (of_files.num_members, of_files.run_dir) == (2, "runs/stripes-a+b-div-seed0")


def test_papers_names_are_the_papers():
    own = config("networks:conv3", dataset="mnist5k")
    assert (own.model_name, own.is_own) == ("own-conv3", True)
    assert not RunConfig(model="conv3").is_own


def test_a_table_takes_them_beside_the_papers_models():
    given = f"--models=tiny,{MODULE}:small,a.keras,b.keras"
    options = ["--modes=base,div", "--num_members=2", "--epochs=1", "--dataset=stripes", "--run_dir=table"]
    found = parts(given, *options)
    assert [config.model_name for config in found] == ["tiny", "tiny", "small", "small", "a+b", "a+b"]
    assert found[-1].run_dir == "table/stripes-a+b-div-seed0"
