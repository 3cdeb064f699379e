"""The configuration: the paper's defaults, what is refused, and what a run's identity depends on."""

import dataclasses
import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from divtf.data.datasets import DATASETS
from divtf.data.paper import ATTACKS as PAPER_ATTACKS
from divtf.data.paper import SETUPS
from divtf.errors import InputError
from divtf.pipeline import objective_fields, static_fields
from divtf.pipeline.config import RunConfig
from divtf.pipeline.modes import MODES
from divtf.storage.digests import digest

FIELDS = [field.name for field in dataclasses.fields(RunConfig)]
# Another value for every field: what a run may be changed in.
OTHER = {
    "label": "Ours",
    "model": "conv4",
    "mode": "ens_div",
    "num_members": 4,
    "activation": "relu",
    "negative_slope": 0.2,
    "objective": "adp",
    "gal_weight": 0.25,
    "gal_sharpness": 10.0,
    "adp_alpha": 1.0,
    "adp_beta": 1.0,
    "trs_similarity": 2.0,
    "trs_smoothness": 2.0,
    "trs_epsilon": 0.05,
    "trs_steps": 2,
    "trs_step": 0.5,
    "parl_weight": 1.0,
    "parl_layers": 2,
    "dverge_epsilon": 0.05,
    "dverge_steps": 2,
    "dverge_step": 0.5,
    "adversarial_epsilon": 0.05,
    "adversarial_steps": 2,
    "adversarial_step": 0.5,
    "adversarial_gal": 0.5,
    "dataset": "mnist5k",
    "image_size": (16, 24),
    "flips": True,
    "data_dir": "/data",
    "max_train_examples": 100,
    "max_test_examples": 100,
    "epochs": 3,
    "batch_size": 64,
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "seed": 5,
    "strategy": "mirrored",
    "precision": "mixed_bfloat16",
    "memory": "low",
    "deterministic": True,
    "attacks": ("fgsm",),
    "epsilons": (0.2,),
    "stored_as": "jpeg",
    "max_attack_examples": 10,
    "surrogate_seed": 1001,
    "static_seed": 2001,
    "static_attacks": ("fgsm", "mifgsm"),
    "static_models": ("plain", "div"),
    "static_budgets": "uniform",
    "run_dir": "elsewhere",
    "resume": True,
    "checkpoint_minutes": 1.0,
    "export": "",
    "export_format": ("onnx", "litert_int8"),
    "track": ("wandb",),
}
# What another value needs of the rest.
WITH = {"export_format": {"export": ""}} | {
    name: {"objective": name.split("_")[0]} for name in objective_fields.SETTINGS
}
NOT_IDENTITY = {
    *("data_dir", "run_dir", "resume", "checkpoint_minutes", "export", "export_format", "track"),
    "memory",
}
ONLY_ATTACKED = {
    *("attacks", "epsilons", "stored_as", "max_attack_examples", "max_test_examples", "surrogate_seed"),
    "label",
}


@pytest.mark.parametrize(
    ("model", "dataset", "epochs", "epsilons"),
    [
        # Section 4.1 of the paper, and Table 2's epsilons.
        ("conv3", "mnist", 10, (0.1, 0.3)),
        ("conv4", "cifar10", 20, (0.03, 0.09)),
        ("resnet20", "cifar10", 40, (0.03, 0.09)),
        # No epochs are given for these two; they follow resnet20.
        ("resnet26", "cifar10", 40, (0.03, 0.09)),
        ("mix", "cifar10", 40, (0.03, 0.09)),
    ],
)
def test_defaults_are_the_papers_for_each_model(model, dataset, epochs, epsilons):
    config = RunConfig(model=model)
    assert (config.dataset, config.epochs, config.epsilons) == (dataset, epochs, epsilons)
    assert config.largest_epsilon == epsilons[-1]
    assert (config.mode, config.num_members, config.gal_weight) == ("div", 5, 0.5)
    assert (config.learning_rate, config.weight_decay, config.schedule) == (0.001, 0.0, "constant")
    assert (config.activation, config.negative_slope, config.batch_size) == ("leaky_relu", 0.1, 128)
    assert config.attacks == ("fgsm", "rfgsm", "ifgsm", "mifgsm", "pgd_cw")
    limits = (config.max_train_examples, config.max_test_examples, config.max_attack_examples)
    assert limits == (None, None, None)


def test_values_given_are_not_replaced_by_the_papers():
    config = RunConfig(model="conv4", dataset="mnist5k", epochs=3, epsilons=(0.2,))
    assert (config.dataset, config.epochs, config.epsilons) == ("mnist5k", 3, (0.2,))
    assert config.largest_epsilon == 0.3, "training follows the data set, not what is attacked"
    assert config == config
    assert config.run_dir == "runs/mnist5k-conv4-div-seed0"


def test_registries_agree():
    from divtf.attacks.methods import ATTACKS
    from divtf.attacks.names import NAMES
    from divtf.data.mixture import SOURCES
    from divtf.networks.models import ACTIVATIONS, MODELS

    assert set(SETUPS) == {*MODELS, "mix"}
    assert tuple(ATTACKS) == NAMES and NAMES[: len(PAPER_ATTACKS)] == PAPER_ATTACKS
    assert {source for mode in MODES.values() for source in mode.sources} == set(SOURCES)
    assert {setup.dataset for setup in SETUPS.values()} <= set(DATASETS)
    for name in ACTIVATIONS:
        RunConfig(activation=name)


def test_modes_train_on_what_the_paper_says_and_two_on_what_it_asks():
    assert {name: (mode.target, mode.gal, mode.sources) for name, mode in MODES.items()} == {
        "base": ("T_Base", False, ("augmented",)),
        "div": ("T_Div", True, ("augmented", "noise")),
        "ens": ("T_Ens", False, ("augmented", "adversarial")),
        "ens_div": ("T_Ens+Div", True, ("augmented", "noise", "adversarial")),
        "noise": ("T_Noise", False, ("augmented", "noise")),
        "detect": ("T_Detect", True, ("augmented", "noise", "outside")),
    }


def test_help_lists_every_field_with_its_text():
    command = [sys.executable, "-m", "divtf.main", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    # A list of names that is longer than a line is broken within.
    text = "".join(done.stdout.split())
    for field in dataclasses.fields(RunConfig):
        name = (
            f"--[no]{field.name}"
            if field.name in ("resume", "deterministic", "export", "flips")
            else field.name
        )
        assert field.metadata["help"].strip(), field.name
        names = field.metadata["check"].names
        values = f"<{'|'.join(names)}>: " if names else ""
        assert f"{name}: {values}{field.metadata['help']}".replace(" ", "") in text
        if field.default is None:
            assert f"Default: {field.metadata['stands_for']}.".replace(" ", "") in text, field.name


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model": "mix", "mode": "ens", "export": "", "data_dir": "/data"},
        {"attacks": (), "epsilons": (0.03, 0.5), "max_train_examples": 7, "deterministic": True},
    ],
    ids=["defaults", "text", "lists"],
)
def test_configuration_travels_as_json(values):
    config = RunConfig(**values)
    assert RunConfig.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_identity_is_json_and_gives_the_run_back():
    config = RunConfig(model="resnet20", seed=3)
    assert json.loads(json.dumps(config.identity())) == config.identity()
    assert RunConfig.from_json(config.identity()) == config


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(InputError, match=r"Expected fields of this version.* Received: colour, size"):
        RunConfig.from_json({"size": 1, "colour": 2, "model": "conv3"})


@pytest.mark.parametrize("values", [[], None, "conv3", 3])
def test_configuration_that_is_no_object_is_refused(values):
    with pytest.raises(InputError, match=r"^Expected a JSON object of fields\. Received: \w+$"):
        RunConfig.from_json(values)


def test_numbers_paths_and_lists_take_their_fields_type():
    loose = RunConfig(
        gal_weight=1, epochs=np.int64(2), epsilons=[1], attacks=["fgsm"], run_dir=Path("runs/x")
    )
    strict = RunConfig(gal_weight=1.0, epochs=2, epsilons=(1.0,), attacks=("fgsm",), run_dir="runs/x")
    assert loose == strict
    assert digest(loose.identity()) == digest(strict.identity())


def refusals():
    """(what is given, what is said to be expected)."""
    for name in ("epochs", "num_members", "batch_size", "max_train_examples", "max_test_examples"):
        yield from (({name: value}, f"--{name} as a whole number in") for value in (0, -1, 2**31, 1.5, True))
    yield {"max_attack_examples": 0}, "--max_attack_examples as a whole number in"
    for name in ("seed", "surrogate_seed", "static_seed"):
        yield from (({name: value}, f"--{name} as a whole number in") for value in (-1, 2**31, "3"))
    for name in ("learning_rate", "checkpoint_minutes"):
        yield from (({name: value}, f"--{name} as a number > 0") for value in (0, -1, math.nan, math.inf))
    for name in ("gal_weight", "weight_decay"):
        yield from (({name: value}, f"--{name} as a number >= 0") for value in (-1e-9, math.nan, math.inf))
    yield from (
        ({"negative_slope": v}, "--negative_slope as a number in [0, 1)") for v in (-0.1, 1, math.nan)
    )
    for name in ("model", "mode", "activation", "dataset", "schedule", "strategy", "precision"):
        yield from (({name: value}, f"--{name} as one of {{") for value in ("nonsense", "", 3))
    yield from (({"attacks": v}, "--attacks as distinct names of") for v in (("x",), ("fgsm",) * 2, "fgsm"))
    for epsilons in ((), (0.0,), (-0.1,), (1.1,), (0.1, 0.1), (math.nan,), 0.1, ("0.1",)):
        yield {"epsilons": epsilons}, "--epsilons as distinct numbers in (0, 1]"
    yield from (({name: None}, f"--{name} as") for name in ("model", "mode", "attacks", "seed"))
    yield {"resume": "yes"}, "--resume as true or false"
    yield {"run_dir": 3}, "--run_dir as a path on this machine"
    yield {"mode": "div", "num_members": 1}, "--num_members of at least 2 for mode div"
    yield {"mode": "ens_div", "num_members": 1}, "--num_members of at least 2 for mode ens_div"
    yield {"seed": 1000}, "distinct seeds"
    yield {"seed": 2000}, "distinct seeds"
    yield {"surrogate_seed": 7, "static_seed": 7}, "distinct seeds"


@pytest.mark.parametrize(("values", "expected"), list(refusals()), ids=str)
def test_bad_values_are_refused_with_what_was_expected_and_received(values, expected):
    with pytest.raises(InputError) as raised:
        RunConfig(**values)
    message = str(raised.value)
    assert message.startswith("Expected ")
    assert expected in message
    assert f"Received: {list(values)[-1]}=" in message or "Received: seed=" in message


@pytest.mark.parametrize("mode", ["base", "ens", "noise"])
def test_one_member_is_enough_without_gal(mode):
    assert RunConfig(mode=mode, num_members=1).num_members == 1


def test_every_field_is_varied_below():
    assert set(OTHER) == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_identity_changes_with_what_makes_the_run(name):
    before = RunConfig(mode="ens_div" if name.startswith("static") else "div", **WITH.get(name, {}))
    after = dataclasses.replace(before, **{name: OTHER[name]})
    assert (digest(before.identity()) != digest(after.identity())) == (name not in NOT_IDENTITY)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in FIELDS if name != "mode"])
def test_training_values_are_those_on_which_the_weights_depend(mode, name):
    matters = name not in NOT_IDENTITY | ONLY_ATTACKED
    matters &= name != "gal_weight" or MODES[mode].gal
    matters &= not name.startswith("static") or "adversarial" in MODES[mode].sources
    before = RunConfig(mode=mode, **WITH.get(name, {}))
    after = dataclasses.replace(before, **{name: OTHER[name]})
    assert (digest(before.training()) != digest(after.training())) == matters


def test_paper_values_given_or_not_are_one_run():
    given = RunConfig(dataset="mnist", epochs=10, epsilons=(0.1, 0.3))
    assert digest(RunConfig().identity()) == digest(given.identity())


def test_runs_of_0_1_0_stay_the_same_runs():
    """They lack the fields that were added since, which count once they differ from their defaults."""
    config = RunConfig(mode="ens")
    names = {"static_attack", *static_fields.NAMES}
    assert not names & set(config.identity()) and not names & set(config.training())
    assert RunConfig.from_json(config.identity()) == config
    other = dataclasses.replace(config, static_attacks=("step_ll",), run_dir=None)
    assert other.identity()["static_attack"] == "step_ll" and "static_attacks" not in other.identity()
    assert RunConfig.from_json(other.identity()) == other


def test_home_is_written_out_in_paths_and_nowhere_else(monkeypatch):
    """Shells leave the ~ of --run_dir=~/runs as it is."""
    monkeypatch.setenv("HOME", "/home/one")
    config = RunConfig(run_dir="~/runs/a", data_dir="~/data", export="~/model")
    assert (config.run_dir, config.data_dir, config.export) == (
        "/home/one/runs/a",
        "/home/one/data",
        "/home/one/model",
    )
    assert RunConfig(run_dir="a~/b", data_dir="gs://bucket/data").run_dir == "a~/b"


def test_surrogate_is_one_for_all_targets_of_a_budget():
    def surrogate(**values):
        config = RunConfig(**values)
        return digest(config.base(config.surrogate_seed).training())

    expected = surrogate()
    for mode in MODES:
        assert surrogate(mode=mode) == expected
    for name in (
        *NOT_IDENTITY,
        *objective_fields.LATER,
        "gal_weight",
        "seed",
        "static_seed",
        *static_fields.NAMES,
        *ONLY_ATTACKED - {"surrogate_seed"},
    ):
        assert surrogate(**{name: OTHER[name]} | WITH.get(name, {})) == expected, name
    for name in ("surrogate_seed", "epochs", "num_members", "max_train_examples", "activation", "model"):
        assert surrogate(**{name: OTHER[name]}) != expected, name


def test_surrogate_is_trained_as_t_base_of_its_seed():
    config = RunConfig(mode="ens_div", gal_weight=2.0, seed=1)
    t_base = RunConfig(mode="base", seed=1000, surrogate_seed=3)
    assert digest(config.base(1000).training()) == digest(t_base.training())


@pytest.mark.parametrize("seed", [0, 1, 2, 1000, 2000])
def test_base_of_any_seed_is_valid(seed):
    assert RunConfig().base(seed).seed == seed


def test_surrogate_and_static_model_differ():
    config = RunConfig(mode="ens")
    surrogate, static = config.base(config.surrogate_seed), config.base(config.static_seed)
    assert digest(surrogate.training()) != digest(static.training())


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
    assert len(digest({})) == 12


# Objectives.


def test_names_of_objectives_and_their_settings_are_those_of_the_library():
    from divtf.ensembles.objectives.names import LABELS, MEMBERWISE, OF_SEVERAL, PARTICULAR
    from divtf.ensembles.objectives.objective import Memberwise, Objective
    from divtf.ensembles.objectives.registry import OBJECTIVES

    assert list(LABELS) == list(OBJECTIVES)
    assert tuple(name for name, kind in OBJECTIVES.items() if kind.least_members == 2) == OF_SEVERAL
    assert tuple(name for name, kind in OBJECTIVES.items() if issubclass(kind, Memberwise)) == MEMBERWISE
    plain = Objective.require_members
    assert tuple(name for name, kind in OBJECTIVES.items() if kind.require_members is not plain) == PARTICULAR
    for name in ("gal_weight", *objective_fields.SETTINGS):
        objective, setting = name.split("_", 1)
        fields = {field.name: field for field in dataclasses.fields(OBJECTIVES[objective])}
        metadata = RunConfig.__dataclass_fields__[name].metadata
        told = metadata.get("stands_for", "0.5")
        assert "epsilon" in told if setting == "epsilon" else float(Fraction(told)) == fields[setting].default


@pytest.mark.parametrize("mode", MODES)
def test_mode_has_an_objective_and_any_other_is_told_in_names(mode):
    plain = RunConfig(mode=mode)
    assert plain.objective_name == ("gal" if MODES[mode].gal else "cross_entropy")
    assert plain.target == MODES[mode].target and plain.name == f"mnist-conv3-{mode}-seed0"
    other = RunConfig(mode=mode, objective="trs")
    assert (other.objective_name, other.target) == ("trs", f"{plain.target} (TRS)")
    assert other.name == f"mnist-conv3-{mode}-trs-seed0"
    # The same training by another way of giving it keeps the target's name.
    assert RunConfig(mode=mode, objective=plain.objective_name).target == plain.target


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ({}, {"weight": 0.5}),
        ({"gal_sharpness": 10}, {"weight": 0.5, "sharpness": 10.0}),
        ({"objective": "cross_entropy"}, {}),
        ({"objective": "adp", "adp_alpha": 1}, {"alpha": 1.0}),
        ({"objective": "trs"}, {"epsilon": 0.1}),
        ({"objective": "adversarial", "adversarial_steps": 3}, {"epsilon": 0.1, "steps": 3}),
        (
            {"objective": "adversarial", "adversarial_gal": 0.5, "mode": "ens"},
            {"epsilon": 0.1, "gal": 0.5},
        ),
        ({"objective": "dverge"}, {"epsilon": 0.3}),
        ({"objective": "dverge", "dverge_epsilon": 0.07}, {"epsilon": 0.07}),
        # Budgets are the data set's, whatever is attacked; of one's own images the attacked ones.
        ({"objective": "trs", "epsilons": (0.2,)}, {"epsilon": 0.1}),
        ({"objective": "trs", "epsilons": (0.2,), "dataset": "tfds:own"}, {"epsilon": 0.2}),
    ],
)
def test_settings_of_the_objective(values, settings):
    assert RunConfig(**values).objective_settings == settings


def test_budget_of_an_objective_counts_in_the_training_of_ones_own_images():
    runs = [RunConfig(objective="trs", dataset="tfds:own", epsilons=(budget, 0.3)) for budget in (0.1, 0.2)]
    first, second = (digest(run.training()) for run in runs)
    assert first != second
    assert runs[0].training()["objective_epsilon"] == 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "tsr"}, "did you mean trs?"),
        ({"objective": "trs", "adp_alpha": 1.0}, "--adp_alpha with --objective=adp alone"),
        ({"mode": "base", "gal_sharpness": 2.0}, "--gal_sharpness with --objective=gal alone"),
        ({"objective": "adp", "num_members": 1}, "at least 2 for objective adp"),
        ({"objective": "adversarial", "adversarial_gal": 1.0, "num_members": 1}, "for objective adversarial"),
        ({"objective": "adversarial", "adversarial_step": 1.1}, "--adversarial_step as a number in (0, 1]"),
        ({"gal_sharpness": 0.0}, "--gal_sharpness as a number > 0"),
        ({"objective": "parl", "parl_layers": 0}, "--parl_layers as a whole number"),
        (
            {"objective": "parl", "memory": "low"},
            "--memory=low with an objective of {cross_entropy, gal, adp}",
        ),
        ({"memory": "high"}, "--memory as one of {low}"),
        ({"objective": "adversarial", "gal_weight": 3.0}, "--gal_weight with --objective=gal alone"),
    ],
)
def test_objective_that_cannot_be_is_refused_in_one_line(values, message):
    with pytest.raises(InputError) as raised:
        RunConfig(**values)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "target", "name"),
    [
        ({"activation": "relu"}, "T_Div (ReLU)", "div-relu"),
        ({"negative_slope": 0}, "T_Div (ReLU)", "div-relu"),
        ({"activation": "silu"}, "T_Div (SiLU)", "div-silu"),
        ({"activation": "silu", "negative_slope": 0}, "T_Div (SiLU)", "div-silu"),
        ({"activation": "silu", "objective": "trs"}, "T_Div (TRS, SiLU)", "div-trs-silu"),
        ({"objective": "adversarial"}, "T_Div (AT)", "div-adversarial"),
        ({"objective": "adversarial", "adversarial_gal": 0.0}, "T_Div (AT)", "div-adversarial"),
        ({"objective": "adversarial", "adversarial_gal": 0.5}, "T_Div (AT, GAL)", "div-adversarial-gal"),
    ],
)
def test_what_differs_from_the_paper_is_told_in_names(values, target, name):
    config = RunConfig(**values)
    assert config.target == target and config.name == f"mnist-conv3-{name}-seed0"


# Static models and attacks.


@pytest.mark.parametrize(
    ("values", "target", "name"),
    [
        ({}, "T_Ens", "ens"),
        ({"static_attacks": ("step_ll",)}, "T_Ens (Step-LL)", "ens-step_ll"),
        ({"static_attacks": ("fgsm", "mifgsm_ll")}, "T_Ens (fgsm+mifgsm_ll)", "ens-static"),
        ({"static_models": ("plain", "plain")}, "T_Ens (plain+plain)", "ens-static"),
        ({"static_models": ("div",), "static_budgets": "uniform"}, "T_Ens (div uniform)", "ens-static"),
        (
            {"static_models": ("plain", "div"), "static_attacks": ("fgsm", "pgd_cw")},
            "T_Ens (plain+div fgsm+pgd_cw)",
            "ens-static",
        ),
    ],
)
def test_sources_other_than_the_papers_are_told_in_names(values, target, name):
    config = RunConfig(mode="ens", **values)
    assert config.target == target
    assert config.name.startswith(f"mnist-conv3-{name}")
    plain = dataclasses.replace(config, mode="div", run_dir=None)
    assert (plain.target, plain.name) == ("T_Div", "mnist-conv3-div-seed0")
    assert RunConfig.from_json(config.identity()) == dataclasses.replace(config, run_dir=None)


def test_each_list_of_sources_has_a_directory_of_its_own():
    lists = [{"static_models": ("plain", "div")}, {"static_models": ("div", "plain")}]
    lists += [{"static_attacks": ("fgsm", "ifgsm")}, {"static_budgets": "uniform"}]
    assert len({RunConfig(mode="ens", **values).name for values in lists}) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"static_attacks": ()}, "at least one"),
        ({"static_attacks": ("fgsm", "fgsm")}, "distinct"),
        ({"static_attacks": ("fgsm_ll",)}, "distinct"),
        ({"static_attacks": ("square",)}, "distinct"),
        ({"static_attacks": ("mifgsm_l",)}, "did you mean mifgsm_ll?"),
        ({"static_models": ()}, "at least one"),
        ({"static_models": ("ens",)}, "a mode without static models"),
        ({"static_models": ("plane",)}, "a mode without static models"),
        ({"static_budgets": "normal"}, "one of {paper, uniform}"),
    ],
)
def test_sources_that_cannot_be_are_refused_in_one_line(values, message):
    with pytest.raises(InputError) as raised:
        RunConfig(mode="ens", **values)
    assert message in str(raised.value) and "\n" not in str(raised.value)


# Labels.


def test_label_names_target_and_directory_and_no_other_training():
    config = RunConfig(mode="ens_div", objective="trs", label="Ours (2+)")
    assert (config.target, config.name) == ("Ours (2+)", "mnist-conv3-Ours_2+_-seed0")
    unnamed = dataclasses.replace(config, label=None, run_dir=None)
    assert digest(config.training()) == digest(unnamed.training())
    assert config.base(1000).label is None


@pytest.mark.parametrize("label", ["", "a/b", "../up", " a", "-a", "a\nb", "x" * 41, "T|Div", "<b>"])
def test_label_that_no_directory_or_table_takes_is_refused(label):
    with pytest.raises(InputError, match="--label as 1 to 40 letters") as raised:
        RunConfig(label=label)
    assert "\n" not in str(raised.value)
