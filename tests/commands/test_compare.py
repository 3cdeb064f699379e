"""The command for comparisons: recipes from names and files, what is refused, and one comparison whole."""

import csv
import json
import re
from pathlib import Path

import keras
import pytest
import tiny
from absl import flags

from divtf.commands import command_line, compare, config_flags, table2
from divtf.errors import InputError
from divtf.pipeline import finished
from divtf.pipeline.protocols import PROTOCOLS, Protocol, Trial
from divtf.pipeline.recipes import RECIPES
from divtf.reporting.comparison import comparison_csv, comparison_markdown
from divtf.storage.records import WORST_CASE

SMALL = Protocol("strong", ("plain",), (Trial("fgsm"),), (Trial("pgd", {"steps": 2}),), 0, 0, False, 12)

WRITTEN = ("comparison.png", "comparison.md", "comparison.csv", "comparison.json")

pytestmark = pytest.mark.usefixtures("tiny_world")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The protocol `strong`, with next to nothing."""
    monkeypatch.setitem(PROTOCOLS, "strong", SMALL)


def parsed(*arguments):
    values = flags.FlagValues()
    config_flags.define_flags(values)
    compare.define_flags(values)
    command_line.parse(["command", "--models=tiny", "--num_members=2", *arguments], values)
    return compare.comparison_from_flags(values)


def test_recipes_are_distinct_targets_of_distinct_directories():
    configs = [tiny.config(**values) for values in RECIPES.values()]
    for told in ([config.target for config in configs], [config.name for config in configs]):
        assert len(set(told)) == len(RECIPES)
    assert len({json.dumps(config.training(), sort_keys=True) for config in configs}) == len(RECIPES)


def test_runs_are_models_seeds_recipes():
    configs, cluster, protocol, reference = parsed(
        "--recipes=base,sharp", "--seeds=3,4", "--reference=T_Base"
    )
    assert [(config.target, config.seed) for config in configs] == [
        ("T_Base", 3),
        ("T_Sharp", 3),
        ("T_Base", 4),
        ("T_Sharp", 4),
    ]
    assert (cluster, protocol, reference) == (None, SMALL, "T_Base")
    assert configs[1].gal_sharpness == 10 and configs[1].resume
    assert configs[1].run_dir == "runs/compare/stripes-tiny-T_Sharp-seed3"


def test_recipe_of_a_file_has_its_flags_and_its_name(tmp_path):
    (tmp_path / "mine.flags").write_text(
        "# a comment\n--mode=ens_div\n--gal_weight=2\n--static_models=plain,div\n"
    )
    (tmp_path / "named.flags").write_text("--objective=adp\n--label=ADP here\n")
    given = f"--recipes={tmp_path}/mine.flags,{tmp_path}/named.flags"
    (mine, named), *_ = parsed(given, "--reference=mine", "--epochs=3")
    assert (mine.target, mine.mode, mine.gal_weight, mine.epochs) == ("mine", "ens_div", 2.0, 3)
    assert mine.static_models == ("plain", "div")
    # What a file does not say is the command's.
    assert (named.target, named.objective, named.gal_weight, named.epochs) == ("ADP here", "adp", 0.5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes=base,bass"], "did you mean base?"),
        (["--recipes=base,base"], "distinct values"),
        (["--recipes="], "at least one"),
        (
            ["--recipes=base,none.flags", "--reference=T_Base"],
            "with files that are there. Received: none.flags",
        ),
        (["--recipes=ens_div,trs", "--trs_steps=3"], "TRS's, and of recipes in a file of one. Received: "),
        (["--mode=div"], "--recipes for this command. Received: --mode"),
        (["--recipes=base", "--reference=div"], "--reference as one of {T_Base}. Received: reference=div"),
        (["--recipes=ens_div", "--protocol=weak"], "--protocol as one of"),
        (["--recipes=ens_div", "--surrogates=plane"], "surrogates among"),
        (["--recipes=ens_div", "--images=2000000000", "--max_test_examples=5"], "at most 5 images"),
        (["--recipes=ens_div", "--cpus_per_run=2"], "--cluster beside --cpus_per_run"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError) as raised:
        parsed(*arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"flags of a defence in .*mine\.flags\. Received: none"),
        (
            "--static_models=div\n",
            "beside --static_models. Received: mode=div",
        ),
        ("--mode=noise\n--static_budgets=uniform\n", "beside --static_budgets. Received: mode=noise"),
    ],
)
def test_file_whose_flags_make_no_defence_of_their_own_is_refused(lines, message, tmp_path):
    (tmp_path / "mine.flags").write_text(lines)
    with pytest.raises(InputError, match=message):
        parsed(f"--recipes={tmp_path}/mine.flags", "--reference=mine")


@pytest.mark.parametrize("line", ["--moed=div", "--epochs=x", "--recipes=base"])
def test_file_with_other_flags_is_refused_in_one_line(line, tmp_path):
    (tmp_path / "mine.flags").write_text(line + "\n")
    with pytest.raises(
        InputError, match=r"Expected flags of a run in .*mine\.flags\. Received: .+"
    ) as raised:
        parsed(f"--recipes={tmp_path}/mine.flags", "--reference=mine")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        *("--seed=7", "--model=conv4", "--num_members=3", "--dataset=mnist", "--data_dir=/data"),
        *("--run_dir=elsewhere", "--resume", "--strategy=mirrored", "--max_attack_examples=5"),
        *("--surrogate_seed=5", "--epsilons=0.2", "--export", "--deterministic"),
    ],
)
def test_file_with_flags_of_the_whole_comparison_is_refused_in_one_line(line, tmp_path):
    (tmp_path / "mine.flags").write_text(f"--mode=div\n{line}\n--epochs=3\n")
    told = f"those of the whole comparison on the command line. Received: {line.partition('=')[0]}"
    with pytest.raises(InputError) as raised:
        parsed(f"--recipes={tmp_path}/mine.flags", "--reference=mine", "--seeds=0,1,3")
    assert str(raised.value) == f"Expected flags of a defence in {tmp_path}/mine.flags, {told}"


def test_file_with_something_else_than_flags_is_refused(tmp_path):
    """Which absl passes over."""
    (tmp_path / "mine.flags").write_text("mode=ens\n--gal_weight=2\n")
    with pytest.raises(InputError, match=r"^Expected flags only in .*mine\.flags\. Received: mode=ens$"):
        parsed(f"--recipes={tmp_path}/mine.flags", "--reference=mine")


def test_recipes_set_what_makes_a_defence():
    assert {key for values in RECIPES.values() for key in values} <= compare.OF_A_RECIPE
    published = sorted((Path(__file__).parents[2] / "flags" / "recipes").glob("*.flags"))
    assert len(published) > 1
    for path in published:
        values = compare.recipe(str(path))
        (config, *_), *_ = parsed(f"--recipes={path}", f"--reference={values['label']}")
        assert config.target == values["label"] and config.objective.startswith(values["objective"])


@pytest.mark.parametrize(
    ("files", "recipes", "shown"),
    [
        ({"a/mine": "--mode=div", "mine": "--mode=base"}, "{0}/a/mine.flags,{0}/mine.flags", "mine"),
        ({"mine": "--mode=div"}, "{0}/mine.flags,{0}/./mine.flags", "mine"),
        ({"T_Div": "--objective=adp"}, "div,{0}/T_Div.flags", "T_Div"),
        # Of two names, but of one run directory.
        ({"one": "--label=a b", "two": "--label=a_b"}, "{0}/one.flags,{0}/two.flags", "a b"),
        ({"base": "--mode=div"}, "base,{0}/base.flags", "T_Base"),
    ],
)
def test_recipes_of_one_name_or_directory_are_refused_in_one_line(files, recipes, shown, tmp_path):
    (tmp_path / "a").mkdir()
    for name, line in files.items():
        (tmp_path / f"{name}.flags").write_text(line)
    with pytest.raises(InputError) as raised:
        parsed(f"--recipes={recipes.format(tmp_path)}", f"--reference={shown}", "--seeds=0,1")
    told = "Expected targets with names and run directories of their own"
    assert str(raised.value).startswith(told) and f"Received: {shown} in runs/compare/" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("recipes", ["base,div", "sharp"])
def test_one_label_for_targets_with_names_of_their_own_is_refused(recipes):
    with pytest.raises(InputError, match=r"^Expected --label for a single target .* Received: --label=foo$"):
        parsed(f"--recipes={recipes}", "--label=foo", "--reference=foo")
    (config, *_), *_ = parsed("--recipes=base", "--label=foo", "--reference=foo")
    assert config.target == "foo"


def undated(content):
    """A file's content without the date at which its attacks were looked up again."""
    return re.sub(rb'"date": "[^"]+"', b"", content)


def test_comparison_whole_and_again(tmp_path, capsys, monkeypatch):
    arguments = [
        *("--recipes=base,div,adp", "--seeds=0,1", "--epochs=1", "--attacks=fgsm", "--reference=T_Div"),
        *("--batch_size=24", "--learning_rate=0.01", f"--run_dir={tmp_path}", "--surrogates=plain,same"),
    ]
    compare.main(*parsed(*arguments))
    out = capsys.readouterr().out
    assert "stripes: what is left, %" in out and str(tmp_path / "comparison.md") in out
    assert f"page            {tmp_path / 'report.html'}" in out
    assert "What is left of each, in percent, beside T_Div" in (tmp_path / "report.html").read_text()
    written = {name: (tmp_path / name).read_bytes() for name in WRITTEN}
    lines = list(csv.DictReader(written["comparison.csv"].decode().splitlines()))
    evaluations = {
        (found.target, found.seed): found
        for path in finished.directories(tmp_path)
        if (found := finished.read_evaluation(path, "strong"))
    }
    assert set(evaluations) == {(t, s) for t in ("T_Base", "T_Div", "T_Base (ADP)") for s in (0, 1)}
    for line in lines:
        if line["column"] == WORST_CASE:
            left = [
                100 * sum(evaluations[line["target"], seed].standing(float(line["epsilon"]))) / 12
                for seed in (0, 1)
            ]
            assert float(line["accuracy"]) == pytest.approx(sum(left) / 2)
    assert "on same as T_Div" in {line["column"] for line in lines}
    # What is published is what was printed.
    collected = finished.read_comparison(tmp_path)
    assert [(record.target, record.reference) for record in collected[:2]] == [
        ("T_Base", "T_Div"),
        ("T_Div", "T_Div"),
    ]
    assert comparison_csv(collected).encode() == written["comparison.csv"]
    assert comparison_markdown(collected).encode() == written["comparison.md"]
    # What is done is not done again, and says the same.
    from divtf.training import fit

    monkeypatch.setattr(fit, "fit", None)
    compare.main(*parsed(*arguments))
    assert {name: undated((tmp_path / name).read_bytes()) for name in written} == {
        name: undated(content) for name, content in written.items()
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--surrogates=plain,{}/wide.keras"], "^Expected a target that takes images "),
        (["--images=50"], r"^Expected at most 24 images, as there are\. Received: images=50$"),
    ],
    ids=["surrogate of other images", "too many images"],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_trained(arguments, message, tmp_path):
    images = keras.Input([2, 2, 1])
    keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images))).save(tmp_path / "wide.keras")
    given = ["--recipes=base", "--reference=T_Base", f"--run_dir={tmp_path}/runs"]
    configs, cluster, protocol, reference = parsed(*given, *(each.format(tmp_path) for each in arguments))
    with pytest.raises(InputError, match=message):
        compare.main(configs, cluster, protocol, reference)
    with pytest.raises(InputError, match=message):
        table2.main(configs, cluster, protocol)
    assert not (tmp_path / "runs").exists()


def test_runs_of_another_comparison_beside_them_attack_no_one(tmp_path):
    """Or seeds of one table would meet other attackers, as `same` is trained as each target is."""
    given = [
        *("--epochs=1", "--attacks=fgsm", "--batch_size=24", "--reference=T_Base"),
        *("--surrogates=plain,same", f"--run_dir={tmp_path}", "--images=4", "--queries=0"),
    ]
    compare.main(*parsed(*given, "--recipes=base,noise"))
    compare.main(*parsed(*given, "--recipes=base,div", "--seeds=0,1"))
    for path in finished.directories(tmp_path):
        found = finished.read_evaluation(path, "strong")
        assert ("same as T_Noise" in found.surrogates) == (found.target == "T_Noise")


def test_a_recipe_that_cannot_be_trained_is_refused_before_the_first_is(tmp_path, capsys):
    (tmp_path / "wide.flags").write_text("--mode=base\n--objective=trs\n--trs_epsilon=2\n")
    given = [f"--recipes=base,{tmp_path}/wide.flags", "--reference=T_Base", f"--run_dir={tmp_path}/runs"]
    with pytest.raises(InputError, match=r"^Expected epsilon in \(0, 1\]"):
        compare.main(*parsed(*given))
    assert not (tmp_path / "runs").exists()
