"""Flags: their types, the switch, flagfiles, and what a command makes of errors."""

import dataclasses
import re
from pathlib import Path

import pytest
from absl import flags
from command_lines import config, parsed, parts

from divtf.commands import command_line, compare, config_flags, main
from divtf.errors import InputError
from divtf.pipeline.config import RunConfig, field_type
from divtf.pipeline.modes import MODES

ROOT = Path(__file__).resolve().parents[2]
FLAGFILES = sorted((ROOT / "flags").glob("*.flags"))


def test_no_flags_give_the_default_configuration():
    assert config() == RunConfig()


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--model=mix", "model", "mix"),
        ("--epochs=3", "epochs", 3),
        ("--gal_weight=0.25", "gal_weight", 0.25),
        ("--gal_weight=1", "gal_weight", 1.0),
        ("--learning_rate=1e-4", "learning_rate", 1e-4),
        ("--resume", "resume", True),
        ("--noresume", "resume", False),
        ("--deterministic=true", "deterministic", True),
        ("--attacks=fgsm,pgd_cw", "attacks", ("fgsm", "pgd_cw")),
        ("--attacks= fgsm , rfgsm", "attacks", ("fgsm", "rfgsm")),
        ("--attacks=", "attacks", ()),
        ("--epsilons=.1, 0.3", "epsilons", (0.1, 0.3)),
        ("--epsilons=1", "epsilons", (1.0,)),
        ("--export", "export", ""),
        ("--export=", "export", ""),
        ("--export=some/where", "export", "some/where"),
        ("--noexport", "export", None),
        ("--run_dir=runs/with space", "run_dir", "runs/with space"),
    ],
)
def test_flags_have_their_fields_types(argument, name, value):
    assert config(argument) == RunConfig(**{name: value})
    assert type(getattr(config(argument), name)) is type(value)


def test_flags_of_static_models_beside_a_mode_without_any_are_refused():
    """Of one run; in a table's modes those take them that have static models."""
    with pytest.raises(InputError, match=r"--mode as one of \{ens, ens_div\} beside --static_models\."):
        main.config_from_flags(parsed("--mode=noise", "--static_models=div"))
    given = main.config_from_flags(parsed("--mode=ens", "--static_models=div"))
    assert given.static_models == ("div",)


@pytest.mark.parametrize("field", dataclasses.fields(RunConfig), ids=lambda field: field.name)
def test_every_field_is_a_flag_with_its_default_and_help(field):
    flag = parsed()[field.name]
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    assert flag.value == default
    assert field.metadata["help"] in flag.help
    assert all(name in flag.help for name in field.metadata["check"].names)
    kinds = (str, int, float, bool)
    assert field_type(field.name) in (*kinds, *(tuple[kind, ...] for kind in kinds))


def test_flagfile_may_have_comments_and_blank_lines(tmp_path):
    path = tmp_path / "some.flags"
    path.write_text("# a comment\n\n--model=conv4\n// another\n--epsilons=0.03,0.09\n--export\n")
    assert config(f"--flagfile={path}") == RunConfig(model="conv4", epsilons=(0.03, 0.09), export="")
    assert config(f"--flagfile={path}", "--model=mix").model == "mix", "what comes later holds"


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_committed_flagfiles_are_valid_for_the_command_in_their_header(path):
    header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    command = re.search(r"python -m divtf\.(\w+) --flagfile=(\S+)", header)
    assert command, "a flagfile says how it is run"
    assert command[2] == f"flags/{path.name}"
    if command[1] == "compare":
        values = flags.FlagValues()
        config_flags.define_flags(values)
        compare.define_flags(values)
        command_line.parse(["command", f"--flagfile={path}"], values)
        configs, *_ = compare.comparison_from_flags(values)
        assert len({part.run_dir for part in configs}) == len(configs)
    elif command[1] == "table2":
        configs = parts(f"--flagfile={path}")
        assert len({part.run_dir for part in configs}) == len(configs)
    else:
        assert command[1] == "main"
        config(f"--flagfile={path}")


@pytest.mark.parametrize(
    "argument", ["--moddel=conv3", "--epochs=three", "--resume=perhaps", "--learning_rate=fast", "--epochs"]
)
def test_what_cannot_be_parsed_is_one_line_and_exit_code_2(argument, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(argument)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r"error: Expected flags as --help lists them\. Received: .+\n", line)


def test_numbers_of_a_list_that_are_none_are_refused():
    with pytest.raises(
        InputError, match=r"Expected --epsilons as a comma-separated list of float. Received: 0.1,x"
    ):
        config("--epsilons=0.1,x")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("Expected a. Received: b"), "error: Expected a. Received: b"),
        (InputError("Expected a. Received:\nb"), "error: Expected a. Received: b"),
        (
            PermissionError(13, "Permission denied", "/x"),
            "error: Expected a usable file or directory /x. Received: Permission denied",
        ),
        (OSError("no more"), "error: Expected a usable file or directory. Received: no more"),
    ],
)
def test_users_errors_are_one_line_and_exit_code_2(error, line, capsys):
    def fail(config):
        raise error

    assert command_line.execute(fail, config_flags.config_from_flags, ["command"], parsed()) == 2
    assert capsys.readouterr() == ("", line + "\n")


def test_interrupt_says_how_to_go_on(capsys):
    def interrupt(config):
        raise KeyboardInterrupt

    assert command_line.execute(interrupt, config_flags.config_from_flags, ["command"], parsed()) != 0
    assert "--resume" in capsys.readouterr().err


def test_errors_of_the_program_are_not_hidden():
    def main(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command_line.execute(main, config_flags.config_from_flags, ["command"], parsed())


def test_main_gets_what_the_flags_say():
    received = []
    assert (
        command_line.execute(received.append, config_flags.config_from_flags, ["command"], parsed("--seed=3"))
        == 0
    )
    assert received == [RunConfig(seed=3)]


def test_words_that_are_no_flags_are_refused(capsys):
    assert (
        command_line.execute(print, config_flags.config_from_flags, ["command", "conv3", "div"], parsed())
        == 2
    )
    assert capsys.readouterr().err == "error: Expected flags only. Received: conv3 div\n"


def test_table_has_the_papers_rows_by_default():
    found = parts("--models=conv3,conv4")
    modes = ["base", "div", "ens", "ens_div"]
    assert [(part.model, part.mode) for part in found] == [(m, d) for m in ("conv3", "conv4") for d in modes]
    assert [part.dataset for part in found] == ["mnist"] * 4 + ["cifar10"] * 4
    assert all(part.resume for part in found)
    assert found[1].run_dir == "runs/table2/mnist-conv3-div-seed0"


def test_table_repeats_every_defence_for_every_seed():
    found = parts("--modes=base,div", "--seeds=0, 7", "--run_dir=there")
    assert [(part.seed, part.mode) for part in found] == [(0, "base"), (0, "div"), (7, "base"), (7, "div")]
    assert {str(Path(part.run_dir).parent) for part in found} == {"there"}
    assert [part.seed for part in parts("--modes=base,div", "--seed=5")] == [5, 5]


def test_table_of_a_defence_without_gal_may_have_one_member():
    assert [part.num_members for part in parts("--modes=base", "--num_members=1")] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=div"], "Expected --modes for this command. Received: --mode"),
        (["--model=conv3"], "Expected --models for this command"),
        (["--modes=base,base"], "Expected --modes as distinct values"),
        (["--modes="], "Expected --modes as distinct values"),
        (["--modes=bass"], "Expected --modes as distinct values of {base, div"),
        (["--models=conv5"], "Expected --models as distinct values of {conv3, conv4"),
        (["--seeds=x"], "Expected --seeds as a comma-separated list of int"),
        (["--seeds=²"], "Expected --seeds as a comma-separated list of int"),
        (["--seeds=1,1"], "Expected --seeds as distinct values"),
        (["--seeds=-1"], "Expected --seed as a whole number"),
        (["--seeds=0,1000"], "Expected distinct seeds"),
        (["--seeds=0,1", "--seed=5"], "Expected one of --seeds and --seed. Received: --seed=5 beside"),
        (["--num_members=1"], "Expected --num_members of at least 2 for mode div"),
        (["--export=model"], "Expected --export without a path for several targets"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_table_refuses_what_it_cannot_lay_out(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parts(*arguments)


def test_table_of_one_target_may_be_exported_anywhere():
    assert [part.export for part in parts("--modes=base", "--export=model")] == ["model"]


def test_table_covers_every_mode_of_the_registry():
    assert [part.mode for part in parts(f"--modes={','.join(MODES)}")] == list(MODES)
