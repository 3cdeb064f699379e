"""Names of surrogates: what each trains, from which seed and where; what is refused."""

import dataclasses
import re

import own_models
import pytest
import tiny

from divtf.data.paper import SETUPS
from divtf.errors import InputError
from divtf.pipeline import shared_paths
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.pipeline.protocols import PROTOCOLS
from divtf.pipeline.surrogates import require_alike, static_models, surrogate, surrogates

CONV3 = RunConfig(model="conv3", mode="div", seed=3, num_members=3, run_dir="root/run")
# name -> mode, model, members, and the seed less that of a run's surrogate.
MEANT = {
    "plain": ("base", "conv3", 3, 0),
    "plain3": ("base", "conv3", 3, 0),
    "plain1": ("base", "conv3", 1, 101),
    "plain5": ("base", "conv3", 5, 105),
    "plain8": ("base", "conv3", 8, 108),
    "other": ("base", "conv4", 3, 6 + list(SETUPS).index("conv4")),
    "base": ("base", "conv3", 3, 1),
    "div": ("div", "conv3", 3, 2),
    "ens": ("ens", "conv3", 3, 3),
    "ens_div": ("ens_div", "conv3", 3, 4),
    "noise": ("noise", "conv3", 3, 5),
    "conv3": ("base", "conv3", 3, 6),
    "conv4": ("base", "conv4", 3, 7),
    "resnet20": ("base", "resnet20", 3, 8),
    "mix": ("base", "mix", 3, 10),
    "detect": ("detect", "conv3", 3, 30),
}


def test_every_mode_and_model_of_the_paper_is_in_the_table():
    assert {*MODES, *SETUPS} - set(MEANT) <= {"resnet26"}


@pytest.mark.parametrize("name", MEANT)
def test_name_means(name):
    mode, model, members, place = MEANT[name]
    found = surrogate(name, CONV3)
    (config,) = found.trained
    assert (found.name, found.files) == (name, ())
    assert (config.mode, config.model, config.num_members) == (mode, model, members)
    assert config.seed == CONV3.surrogate_seed + place
    # The attacker has the data, and what else the set-up is.
    assert (config.dataset, config.epochs, config.batch_size) == (
        CONV3.dataset,
        CONV3.epochs,
        CONV3.batch_size,
    )
    directory = shared_paths.directory_of(config)
    assert directory.parent.name == shared_paths.SHARED and directory.parent.parent.name == "root"
    mode = "" if mode == "base" else f"-{mode}"
    assert directory.name.startswith(f"mnist-{model}{mode}-seed{config.seed}-")


def test_plain_is_the_surrogate_of_the_run():
    (config,) = surrogate("plain", CONV3).trained
    assert config == CONV3.base(CONV3.surrogate_seed)


def test_each_ensemble_has_its_own_seed_and_directory():
    """Static ensembles of surrogates too: one of the target's seed would have its weights."""
    distinct = [name for name in MEANT if name not in ("plain3", "other")]
    configs = [config for name in distinct for config in surrogate(name, CONV3).trained]
    seeds = [config.seed for config in configs]
    seeds += [config.static_seed for config in configs if config.defence.adversarial]
    assert len(seeds) == len(distinct) + 2
    assert len({CONV3.seed, CONV3.static_seed, *seeds}) == len(seeds) + 2
    assert len({shared_paths.directory_of(config) for config in configs}) == len(distinct)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["ens", "ens_div"])
def test_static_ensemble_of_a_surrogate_is_no_target(name, seed):
    (config,) = surrogate(name, RunConfig(model="conv3", seed=seed)).trained
    assert config.static_seed not in (0, 1, 2, 1000, 2000, config.seed)


@pytest.mark.parametrize("model", [*SETUPS])
def test_other_is_never_the_targets_architecture(model):
    (config,) = surrogate("other", RunConfig(model=model)).trained
    assert config.model != model and config.dataset == SETUPS[model].dataset
    assert config.num_members == RunConfig(model=model).num_members


@pytest.mark.parametrize("members", [2, 5])
def test_plain_of_the_targets_members_is_the_surrogate_of_the_run(members):
    config = RunConfig(num_members=members)
    for name in ("plain", f"plain{members}"):
        assert surrogate(name, config).trained == (config.base(config.surrogate_seed),)


def test_several_are_all_of_their_members(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).write_text(name)
    found = surrogate("a.keras+plain5+div+b.keras", CONV3)
    assert found.files == ("a.keras", "b.keras")
    assert found.trained == surrogate("plain5", CONV3).trained + surrogate("div", CONV3).trained
    assert surrogate("a.keras", CONV3).trained == ()


def test_a_plus_within_the_name_of_a_file_joins_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a+b.keras", "c.keras"):
        (tmp_path / name).write_text(name)
    assert surrogate("a+b.keras", CONV3).files == ("a+b.keras",)
    found = surrogate("plain5+a+b.keras+c.keras", CONV3)
    assert found.files == ("a+b.keras", "c.keras")
    assert found.trained == surrogate("plain5", CONV3).trained


def test_models_of_ones_own(tmp_path, monkeypatch):
    own_models.importable(monkeypatch, tmp_path)
    name = f"{own_models.NAME}:small"
    (config,) = surrogate(name, CONV3).trained
    assert (config.model, config.mode, config.dataset) == (name, "base", "mnist")
    own = RunConfig(model=name, dataset="mnist5k", epochs=1)
    (same,) = surrogate(name, own).trained
    assert same != own.base(own.surrogate_seed), "not plain once more"
    (other,) = surrogate("other", own).trained
    assert (other.model, other.dataset, other.epochs) == ("conv4", "mnist5k", 1)


def test_models_that_are_registered_have_seeds(monkeypatch):
    tiny.name(monkeypatch)
    config = tiny.config()
    assert surrogate("tiny", config).trained[0].seed != surrogate("plain", config).trained[0].seed


@pytest.mark.parametrize(
    "name",
    [
        *("plane", "plain0", "plain1001", "plain-1", "plainx", "", "+", "plain+", "+plain", "plain++div"),
        *("T_Div", "Div", "conv5", "plain5.5", "a.h5", "plain+conv5"),
    ],
)
def test_unknown_name_is_refused_in_one_line(name):
    with pytest.raises(InputError, match=r"Expected .+\. Received: .+") as refused:
        surrogate(name, CONV3)
    assert "\n" not in str(refused.value)


def test_unknown_name_is_told_what_there_is():
    with pytest.raises(InputError, match=re.escape(f"modes: {', '.join(MODES)}; models: ")):
        surrogate("plane", CONV3)


@pytest.mark.parametrize("name", ["same+plain", "plain+same"])
def test_same_is_of_each_target_and_so_part_of_no_other(name):
    with pytest.raises(InputError, match=r"same by itself.*Received: " + re.escape(name)):
        surrogates([name], [CONV3])


@pytest.mark.parametrize("names", [("plain", "plain3"), ("other", "conv4"), ("plain3", "plain", "plain")])
def test_a_static_model_given_again_under_another_name_is_trained_from_other_seeds(names):
    found = static_models(RunConfig(model="conv3", mode="ens", num_members=3, static_models=names))
    seeds = [config.seed for config in found]
    assert seeds == [seeds[0] + 10_000 * again for again in range(len(names))]
    assert len({str(dataclasses.replace(config, seed=7)) for config in found}) == 1


@pytest.mark.parametrize("name", ["none.keras", "plain+none.keras", "new:none.keras"])
def test_missing_file_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"that are there\. Received: .*none\.keras"):
        surrogate(name, CONV3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("div", {"seed": 1002}),
        ("plain4", {"seed": 1104}),
        ("plain4", {"static_seed": 1104}),
        ("noise", {"static_seed": 1005}),
        ("div", {"surrogate_seed": 7, "seed": 9}),
        ("ens", {"seed": 1053}),
    ],
)
def test_seed_of_an_ensemble_of_ours_is_refused(name, values):
    with pytest.raises(InputError, match=r"Expected a surrogate_seed S for which S \+ \d+ is free"):
        surrogate(name, RunConfig(**values))


def test_surrogates_of_the_protocols_are_known():
    for protocol in PROTOCOLS.values():
        assert len(set(protocol.surrogates)) == len(protocol.surrogates)
        for name in protocol.surrogates:
            surrogate(name, CONV3)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["other", "conv4"], "other and conv4, which are the same ensemble"),
        (["plain", "div", "plain3"], "plain and plain3, which are the same ensemble"),
        (["plain+div", "div+plain3"], r"plain\+div and div\+plain3, which are the same ensemble"),
        (["a.keras", "./a.keras"], r"a\.keras and \./a\.keras, which are the same ensemble"),
        (["div+a.keras", "copy.keras+div"], r"div\+a\.keras and copy\.keras\+div, which are the same"),
    ],
)
def test_two_names_of_one_ensemble_are_refused(names, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.keras", "copy.keras"):
        (tmp_path / name).write_text("one content")
    with pytest.raises(InputError, match=f"Expected distinct surrogates. Received: {words}"):
        surrogates(names, [CONV3])


@pytest.mark.parametrize("name", ["plain+plain", "plain3+div+plain", "a.keras+./a.keras"])
def test_an_ensemble_twice_in_one_surrogate_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.keras").touch()
    with pytest.raises(InputError, match="Expected distinct ensembles in a surrogate") as refused:
        surrogate(name, CONV3)
    assert str(refused.value).endswith(f"Received: {name}")


def test_what_shares_a_part_is_another_surrogate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).write_text(name)
    names = ["plain", "base", "plain+div", "div", "plain4", "plain+a.keras", "a.keras", "b.keras"]
    assert [each.name for each in surrogates(names, [CONV3])] == names


# Trained as each target is.


def test_same_is_one_for_each_way_of_training_that_no_other_surrogate_has():
    modes = [{"mode": "base"}, {"mode": "div"}, {"mode": "ens"}, {"mode": "div", "objective": "trs"}]
    configs = [dataclasses.replace(CONV3, **values) for values in modes]
    found = surrogates(["plain", "div", "same"], configs)
    assert [each.name for each in found] == ["plain", "div", "same as T_Ens", "same as T_Div (TRS)"]
    (ens,), (trs,) = found[2].trained, found[3].trained
    assert (ens.mode, ens.seed, ens.static_seed) == (
        "ens",
        CONV3.surrogate_seed + 40,
        CONV3.surrogate_seed + 90,
    )
    assert (trs.mode, trs.objective, trs.seed) == ("div", "trs", CONV3.surrogate_seed + 40)
    assert trs.training() | {"seed": 0} == configs[3].training() | {"seed": 0}


def test_same_alone_is_trained_as_its_targets():
    configs = [dataclasses.replace(CONV3, mode=mode) for mode in ("base", "div")]
    found = surrogates(["same"], configs)
    assert [(each.name, each.trained[0].mode) for each in found] == [
        ("same as T_Base", "base"),
        ("same as T_Div", "div"),
    ]
    assert {each.trained[0].seed for each in found}.isdisjoint({CONV3.seed, CONV3.static_seed})


@pytest.mark.parametrize(
    ("seed", "values", "words"),
    [
        (3, {"epsilons": (0.2,)}, "with the same epsilons, as root/run has"),
        (4, {"epsilons": (0.2,)}, "with the same epsilons, as root/run has"),
        (3, {"surrogate_seed": 77}, "with the same surrogate_seed, as root/run has 1000"),
        (3, {"max_train_examples": 70}, "with the same max_train_examples, as root/run has None"),
        (3, {"max_test_examples": 70}, "with the same max_test_examples, as root/run has None"),
        (3, {"image_size": (9, 9)}, "with the same image_size, as root/run has None"),
        (3, {"flips": True}, "with the same flips, as root/run has None"),
    ],
)
def test_targets_of_one_table_are_attacked_alike(seed, values, words):
    other = dataclasses.replace(CONV3, seed=seed, mode="base", run_dir="root/other", **values)
    with pytest.raises(InputError, match=f"Expected runs of one model.*{words}.*Received: .* in root/other"):
        require_alike([CONV3, other])


@pytest.mark.parametrize(
    "values",
    [
        {"model": "conv4", "epsilons": (0.2,)},
        {"dataset": "mnist5k", "epsilons": (0.2,)},
        {"seed": 4, "surrogate_seed": 77},
        {"epsilons": CONV3.epsilons[::-1]},
    ],
)
def test_what_no_table_shows_together_may_differ(values):
    require_alike([CONV3, dataclasses.replace(CONV3, **values)])


def test_labels_are_no_other_training():
    named = dataclasses.replace(CONV3, mode="div", label="Ours")
    assert [each.name for each in surrogates(["div", "same"], [named])] == ["div"]


def test_another_surrogate_has_gals_own_weight_and_same_the_targets():
    config = RunConfig(mode="div", gal_weight=2.0, memory="low")
    for name, weight in (("div", 0.5), ("plain", 0.5), ("same", 2.0)):
        (found,) = [each.trained[0] for each in surrogates([name], [config])]
        assert (found.gal_weight, found.memory) == (weight, "low"), name
