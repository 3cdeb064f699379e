"""Run directories: whole files, one process at a time, and never another run's results overwritten."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from logged import logged

from divtf.errors import InputError
from divtf.storage import checked_json, digests, environment, files, run_directory

CONFIG = {"model": "conv3", "epochs": 2}
# Opens the directory, says so, and holds it until it is killed or its input ends.
HOLDER = """
import pathlib, sys
from divtf.storage import run_directory
with run_directory.open_run(pathlib.Path(sys.argv[1]), {"model": "conv3", "epochs": 2}, resume=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def contents(path):
    return {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def make_run(path, config=CONFIG):
    with run_directory.open_run(path, config, resume=False):
        pass
    return path


@pytest.fixture
def holder(tmp_path):
    """A living process that holds tmp_path / "run"."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_new_directory_gets_configuration_and_environment(tmp_path):
    path = make_run(tmp_path / "deep" / "run")
    assert checked_json.read_json(path / run_directory.CONFIG) == CONFIG
    (environment,) = checked_json.read_json(path / run_directory.ENVIRONMENT)
    assert {"command", "commit", "python", "platform", "cpus", "divtf", "tensorflow"} <= set(environment)
    assert environment["tensorflow"][0].isdigit()


def test_empty_directory_is_a_new_one(tmp_path):
    assert checked_json.read_json(make_run(tmp_path) / run_directory.CONFIG) == CONFIG


def test_record_names_the_first_command_and_every_commit(tmp_path, monkeypatch):
    for commit, argument in (
        ("aaa", "--run_dir=my runs"),
        ("bbb", "--resume"),
        ("", "--resume"),
        ("aaa", "--resume"),
    ):
        monkeypatch.setattr(environment, "_commit", lambda commit=commit: commit)
        monkeypatch.setattr(environment.sys, "orig_argv", ["python", "-m", "divtf.main", argument])
        with run_directory.open_run(tmp_path / "run", {}, resume=True):
            made = run_directory.environment_of(tmp_path / "run")
    assert made["commit"] == "aaa, bbb, unknown"
    assert made["command"].endswith("-m divtf.main '--run_dir=my runs'"), "as a shell takes it"


def test_going_on_keeps_the_history_of_environments(tmp_path):
    make_run(tmp_path)
    for _ in range(2):
        with run_directory.open_run(tmp_path, CONFIG, resume=True):
            pass
    assert len(checked_json.read_json(tmp_path / run_directory.ENVIRONMENT)) == 3


def test_same_configuration_without_resume_is_refused_and_untouched(tmp_path):
    before = contents(make_run(tmp_path))
    with (
        pytest.raises(InputError, match=r"Expected --resume .* Received: .* without --resume"),
        run_directory.open_run(tmp_path, CONFIG, resume=False),
    ):
        pass
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path)[run_directory.ENVIRONMENT] == before[run_directory.ENVIRONMENT]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"model": "conv3", "epochs": 3}, "epochs=2 there, 3 here"),
        ({"model": "conv4", "epochs": 3}, "epochs=2 there, 3 here, model='conv3' there, 'conv4' here"),
        ({"model": "conv3"}, "epochs=2 there, None here"),
        ({**CONFIG, "seed": 1}, "seed=None there, 1 here"),
    ],
)
def test_another_configuration_is_refused_by_field_and_untouched(tmp_path, other, named, resume):
    before = contents(make_run(tmp_path))
    with pytest.raises(InputError) as raised, run_directory.open_run(tmp_path, other, resume=resume):
        pass
    assert named in str(raised.value)
    assert {**contents(tmp_path), ".lock": b""} == {**before, ".lock": b""}


@pytest.mark.parametrize("resume", [False, True])
def test_directory_of_something_else_is_refused_and_untouched(tmp_path, resume):
    (tmp_path / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(InputError, match=r"Expected an empty or new run directory"),
        run_directory.open_run(tmp_path, CONFIG, resume=resume),
    ):
        pass
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_file_in_place_of_a_directory_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match=r"Expected a directory"):
        make_run(tmp_path / "run")


@pytest.mark.parametrize("stored", ["{", "", "[1, 2]", "null", "\x00\x01"])
def test_damaged_configuration_is_refused_by_path(tmp_path, stored):
    (tmp_path / run_directory.CONFIG).write_text(stored)
    with (
        pytest.raises(InputError, match=r"Expected .*config\.json"),
        run_directory.open_run(tmp_path, CONFIG, resume=True),
    ):
        pass


def test_unwritable_place_is_an_os_error(tmp_path):
    # Below a file nothing can be made, not even by root.
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        make_run(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_directory_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        make_run(tmp_path)
    tmp_path.chmod(0o700)


def test_directory_held_by_a_living_process_is_refused(tmp_path, holder):
    with (
        pytest.raises(InputError, match=rf"no living process holds\. .*held by process {holder.pid}"),
        run_directory.open_run(tmp_path / "run", CONFIG, resume=True),
    ):
        pass


def test_directory_of_a_killed_process_is_free(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_directory.open_run(tmp_path / "run", CONFIG, resume=True) as path:
        assert (path / ".lock").read_text() == str(os.getpid())


def test_who_waits_gets_the_directory_when_the_holder_ends(tmp_path, holder):
    def end_holder(line):
        threading.Timer(0.2, holder.stdin.close).start()

    with (
        logged(end_holder) as lines,
        run_directory.open_run(tmp_path / "run", CONFIG, resume=True, wait=True),
    ):
        assert holder.wait(10) == 0
    assert len(lines) == 1
    assert f"waits for process {holder.pid}" in lines[0]


def test_directory_is_free_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), run_directory.open_run(tmp_path, CONFIG, resume=False):
        raise ZeroDivisionError
    with run_directory.open_run(tmp_path, CONFIG, resume=True):
        pass


def test_run_made_while_another_process_looked_is_not_overwritten(tmp_path, monkeypatch):
    """The other one makes its run, and ends, just before this one has the lock."""

    def lock(handle, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        (tmp_path / run_directory.CONFIG).write_text(json.dumps({"model": "theirs"}))

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lock)
    with pytest.raises(InputError, match="model='theirs' there"):
        make_run(tmp_path)
    assert checked_json.read_json(tmp_path / run_directory.CONFIG) == {"model": "theirs"}


def test_killed_before_it_said_what_it_is_a_run_can_start_again(tmp_path):
    (tmp_path / ".lock").write_text("4711")
    (tmp_path / ".partial-4711-config.json").write_text("{")
    assert set(contents(make_run(tmp_path))) == {".lock", run_directory.CONFIG, run_directory.ENVIRONMENT}


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    make_run(tmp_path)
    (tmp_path / run_directory.CHECKPOINTS).mkdir()
    (tmp_path / run_directory.CHECKPOINTS / ".partial-4711-step-1.keras").write_text("half")
    (tmp_path / ".partial-4711-saved_model" / "variables").mkdir(parents=True)
    (tmp_path / run_directory.RESULTS).write_text("{}")
    with run_directory.open_run(tmp_path, CONFIG, resume=True):
        assert not list(tmp_path.rglob(".partial-*"))
    assert (tmp_path / run_directory.RESULTS).read_text() == "{}"


def test_held_directory_is_another_processes_turn_later(tmp_path, holder):
    """What it writes is left alone until then, and gone with it."""
    half = tmp_path / "run" / ".partial-4711-set.npy"
    half.write_text("half")
    with (
        pytest.raises(InputError, match=rf"held by process {holder.pid}"),
        run_directory.held(tmp_path / "run"),
    ):
        pass
    assert half.exists()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_directory.held(tmp_path / "run"):
        assert not half.exists()


def test_held_directory_is_made(tmp_path):
    with run_directory.held(tmp_path / "deep" / "sets"):
        assert (tmp_path / "deep" / "sets").is_dir()


def test_checked_values_come_back_as_json_has_them(tmp_path):
    path = tmp_path / "file.json"
    checked_json.write_checked(path, {"a": (1, 2), "b": {3: 0.1, 10: None}, "c": "text"})
    assert checked_json.read_checked(path) == {"a": [1, 2], "b": {"3": 0.1, "10": None}, "c": "text"}
    assert len(checked_json.read_json(path)["checksum"]) == 64


@pytest.mark.parametrize("old_new", [("0.25", "0.35"), ('"loss"', '"lost"'), ("checksum", "checksun")])
def test_changed_values_are_found(tmp_path, old_new):
    """The name of the checksum aside: without one a file is of version 0.1.0, and its values are right."""
    path = tmp_path / "file.json"
    checked_json.write_checked(path, {"loss": 0.25})
    path.write_text(path.read_text().replace(*old_new))
    if old_new[0] == "checksum":
        assert checked_json.read_checked(path)["loss"] == 0.25
    else:
        with pytest.raises(checked_json.DamagedError, match=r"^Expected values of checksum .*file\.json"):
            checked_json.read_checked(path)


def test_file_of_an_older_version_has_no_checksum_and_passes(tmp_path):
    checked_json.write_json(tmp_path / "file.json", {"loss": 0.25})
    assert checked_json.read_checked(tmp_path / "file.json") == {"loss": 0.25}


@pytest.mark.parametrize("stored", ["7", "{}", "[7]", "{"])
def test_environments_that_are_no_list_are_refused_by_path(tmp_path, stored):
    (make_run(tmp_path) / run_directory.ENVIRONMENT).write_text(stored)
    with (
        pytest.raises(InputError, match=r"Expected .*environment\.json"),
        run_directory.open_run(tmp_path, CONFIG, resume=True),
    ):
        pass


def test_json_nested_without_end_is_refused_by_path(tmp_path):
    (tmp_path / "file.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"Expected JSON in .*file\.json"):
        checked_json.read_json(tmp_path / "file.json")


@pytest.mark.parametrize("write", [lambda partial: partial.write_text("x"), lambda partial: partial.touch()])
def test_a_file_that_cannot_take_its_place_has_its_own_name_in_the_error(write, tmp_path):
    path = tmp_path / "report.html"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught, files.atomic_path(path) as partial:
        write(partial)
    assert caught.value.filename == str(path) and files.PARTIAL not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_nor_one_that_cannot_be_written(tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(PermissionError) as caught, files.atomic_path(path) as partial:
        raise PermissionError(errno.EACCES, "Permission denied", partial)
    assert str(caught.value) == f"[Errno {errno.EACCES}] Permission denied: '{path}'"
    with pytest.raises(FileNotFoundError, match="other"), files.atomic_path(path):
        (tmp_path / "other").read_text()


def test_file_keeps_its_old_contents_if_writing_fails(tmp_path):
    path = tmp_path / "file.json"
    checked_json.write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), files.atomic_path(path) as partial:
        partial.write_text("half of the n")
        raise ZeroDivisionError
    assert checked_json.read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path], "nothing partial is left"


@pytest.mark.parametrize("values", [{"loss": float("nan")}, {"what": object()}])
def test_values_that_are_not_json_change_nothing(tmp_path, values):
    path = tmp_path / "file.json"
    checked_json.write_json(path, [1])
    with pytest.raises((ValueError, TypeError)):
        checked_json.write_json(path, values)
    assert checked_json.read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_not_seen_before_it_is_whole(tmp_path):
    path = tmp_path / "made" / "file.txt"
    with files.atomic_path(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == path.parent, "a rename across file systems is not atomic"
        assert partial.suffix == path.suffix
    assert path.read_text() == "new"


def test_who_reads_while_a_file_is_replaced_sees_the_old_one_whole(tmp_path):
    path = tmp_path / "file.json"
    checked_json.write_json(path, {"old": 1})
    with path.open() as reader:
        checked_json.write_json(path, {"new": 2})
        assert json.load(reader) == {"old": 1}
    assert checked_json.read_json(path) == {"new": 2}


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1,]", "\x00\x01", '{"a": 1}{"b"'])
def test_damaged_json_is_refused_by_path(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"Expected JSON in .*results\.json\. Received: "):
        checked_json.read_json(path)


def test_bytes_that_are_no_text_are_refused_by_path(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"Expected JSON in .*results\.json"):
        checked_json.read_json(path)


def test_digest_of_a_file_is_its_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert digests.file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(("override", "tf32"), [(None, True), ("1", True), ("0", False)])
def test_provenance_names_the_gpus_that_the_driver_tells(override, tf32, tmp_path, monkeypatch):
    for place, name in (("0000:00:05.0", "NVIDIA H100 80GB HBM3"), ("0000:00:06.0", "NVIDIA A100")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "information").write_text(
            f"Model: \t\t {name}\nIRQ:   \t\t 11\n", encoding="utf-8"
        )
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    assert environment._gpus(tmp_path) == {"gpus": ["NVIDIA H100 80GB HBM3", "NVIDIA A100"], "tf32": tf32}
    assert environment._gpus(tmp_path / "none") == {}
