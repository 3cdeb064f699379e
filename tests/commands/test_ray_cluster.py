"""Runs on a Ray cluster: its flags, its plan of tasks, and real nodes, one of which dies."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import tiny
from absl import flags
from logged import logged

from divtf.commands import command_line, config_flags, ray_cluster, ray_task, table2
from divtf.commands.ray_cluster import Cluster
from divtf.errors import InputError
from divtf.pipeline.config import RunConfig
from divtf.storage import checked_json, run_directory
from divtf.storage.records import TargetRecord

ROOT = Path(__file__).resolve().parents[2]
HAVE_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAVE_RAY, reason="Ray is not installed: pip install '.[cluster]'")
# Small, and with a checkpoint every second or so.
BUDGET = (
    *("--dataset=mnist5k", "--num_members=2", "--epochs=2", "--max_train_examples=96", "--batch_size=16"),
    *("--max_test_examples=40", "--epsilons=0.1", "--checkpoint_minutes=0.02"),
)


@pytest.fixture
def ray_is_there(monkeypatch):
    """For what only asks whether it is."""
    if not HAVE_RAY:
        stand_in = types.ModuleType("ray")
        stand_in.__spec__ = importlib.util.spec_from_loader("ray", None)
        monkeypatch.setitem(sys.modules, "ray", stand_in)


def table(*arguments):
    """What table2 reads from a command line."""
    values = flags.FlagValues()
    config_flags.define_flags(values)
    table2.define_flags(values)
    command_line.parse(["command", *arguments], values)
    return table2.table_from_flags(values)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], None),
        (["--cluster=auto"], ("auto", 1, 0)),
        (["--cluster=head.example:6379", "--cpus_per_run=4"], ("head.example:6379", 4, 0)),
        (["--cluster=ray://10.0.0.1:10001", "--gpus_per_run=2"], ("ray://10.0.0.1:10001", 1, 2)),
    ],
    ids=lambda value: " ".join(map(str, value or [])),
)
def test_flags_say_where_the_runs_go(arguments, found, ray_is_there):
    parts, where, protocol = table(*arguments)
    assert where == (found and Cluster(*found)) and protocol is None
    assert [part.mode for part in parts] == ["base", "div", "ens", "ens_div"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cluster="], "Expected --cluster as auto, HOST:PORT or ray://HOST:PORT. Received: cluster="),
        (["--cluster=local"], "Expected --cluster as auto,"),
        (["--cluster=head"], "Expected --cluster as auto,"),
        (["--cluster=head:0"], "Expected --cluster as auto,"),
        (["--cluster=head:65536"], "Expected --cluster as auto,"),
        (["--cluster=http://head:8265"], "Expected --cluster as auto,"),
        (["--cluster=auto", "--cpus_per_run=0"], "Expected --cpus_per_run of at least 1. Received: cpus_"),
        (["--cluster=auto", "--gpus_per_run=-1"], "Expected --gpus_per_run of at least 0. Received: gpus_"),
        (["--cpus_per_run=2"], "Expected --cluster beside --cpus_per_run. Received: --cpus_per_run alone"),
        (["--gpus_per_run=1"], "Expected --cluster beside --gpus_per_run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_do_not_fit_are_refused(arguments, message, ray_is_there):
    with pytest.raises(InputError, match=re.escape(message)):
        table(*arguments)


def test_without_the_extra_the_flag_is_one_line_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # As if it were not installed.
    assert command_line.execute(print, lambda _: table("--cluster=auto"), ["command"]) == 2
    line = r"error: Expected Ray for --cluster;[^\n]*pip install '\.\[cluster\]'\. Received: [^\n]+\n"
    printed = capsys.readouterr()
    assert re.fullmatch(line, printed.err)
    assert printed.out == ""


def test_paths_hold_in_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/one")
    monkeypatch.setenv("TFDS_DATA_DIR", "prepared")
    part = RunConfig(run_dir="runs/a", export="")
    found = ray_cluster._with_absolute_paths(part)
    assert found.run_dir == str(tmp_path / "runs/a")
    assert found.data_dir == str(tmp_path / "prepared")
    assert found.export == "", "into the run directory"
    assert found.identity() == part.identity()
    part = dataclasses.replace(part, data_dir="~/data", export="model")
    found = ray_cluster._with_absolute_paths(part)
    assert (found.data_dir, found.export) == ("/home/one/data", str(tmp_path / "model"))
    part = dataclasses.replace(part, data_dir="gs://bucket/data", export=None)
    found = ray_cluster._with_absolute_paths(part)
    assert (found.data_dir, found.export) == ("gs://bucket/data", None)


def test_shared_ensembles_are_tasks_of_their_own_for_which_their_users_wait(tmp_path, monkeypatch):
    """Two models have a surrogate and a static model each, whatever the number of seeds and modes."""
    tiny.register(monkeypatch)
    parts = []
    for model in ("tiny", "conv3"):
        for seed in (0, 1):
            for mode in ("base", "ens"):
                part = tiny.config(model=model, dataset="stripes", mode=mode, seed=seed)
                parts.append(dataclasses.replace(part, run_dir=str(tmp_path / part.name)))
    finished = Path(parts[0].run_dir)
    finished.mkdir()
    (finished / run_directory.RESULTS).write_text("{}")
    started = []

    def start(config, shared, *after):
        started.append((RunConfig.from_json(json.loads(config)), shared, after))
        return len(started) - 1

    tasks = ray_cluster._submit(parts, start)

    assert list(tasks.values()) == parts
    ensembles = [(part.model, shared) for part, shared, _ in started if shared is not None]
    assert sorted(ensembles) == [("conv3", 1000), ("conv3", 2000), ("tiny", 1000), ("tiny", 2000)]
    for task, part in tasks.items():
        assert started[task][:2] == (part, None)
        waits_for = {(started[first][0].model, started[first][1]) for first in started[task][2]}
        needed = {(part.model, 1000)} | ({(part.model, 2000)} if part.mode == "ens" else set())
        assert waits_for == (set() if part is parts[0] else needed)
    assert all(not after for _, shared, after in started if shared is not None)


def test_tables_without_attacks_share_no_surrogate(tmp_path):
    part = RunConfig(mode="base", attacks=(), run_dir=str(tmp_path / "a"))
    started = []
    ray_cluster._submit([part], lambda *arguments: started.append(arguments[1:]))
    assert started == [(None,)]


class FakeError(Exception):
    """Ray's error of a task: with the cause if the task raised, without if it was lost."""

    def __init__(self, text, cause=None):
        super().__init__(text)
        if cause is not None:
            self.cause = cause


class Exhausted(Exception):
    """TensorFlow's error, as Ray gives it back."""

    __module__ = "tensorflow.python.framework.errors_impl"


EXHAUSTED = Exhausted("Graph execution error:\n\nOOM when allocating tensor\n\tat node x")
RECORD = TargetRecord(target="T_Div", model="conv3", dataset="mnist", seed=0, results=())


def gather(outcomes):
    """`_gather` over tasks with these outcomes, the last of which ends first."""

    def get(task):
        if isinstance(outcomes[task], Exception):
            raise outcomes[task]
        return outcomes[task].to_json()

    ray = types.SimpleNamespace(
        wait=lambda tasks: ([tasks[-1]], tasks[:-1]),
        get=get,
        exceptions=types.SimpleNamespace(RayError=FakeError),
    )
    tasks = {number: RunConfig(seed=number) for number in range(len(outcomes))}
    return ray_cluster._gather(ray, tasks)


def test_records_come_in_the_order_of_the_parts():
    records = [dataclasses.replace(RECORD, seed=seed) for seed in range(3)]
    with logged() as lines:
        assert gather(records) == records
    assert lines[0] == "done 1/3: mnist-conv3-div-seed2"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FakeError("trace", InputError("Expected a. Received: b")), "Expected a. Received: b (1 of 3 runs"),
        (FakeError("trace", OSError(28, "No space left")), "Received: [Errno 28] No space left (1 of 3"),
        (FakeError("trace", MemoryError("17 GB")), "written, on every node. Received: 17 GB (1 of 3"),
        (FakeError("trace", EXHAUSTED), "on every node. Received: OOM when allocating tensor (1 of 3 runs"),
        (FakeError("node died\nlog"), "Expected nodes that live until a run ends. Received: FakeError: node"),
    ],
)
def test_what_fails_is_one_line_once_the_others_are_done(error, message):
    with logged() as lines, pytest.raises(InputError, match=re.escape(message)) as raised:
        gather([RECORD, RECORD, error])
    assert str(raised.value).endswith("runs failed: mnist-conv3-div-seed2)")
    assert "\n" not in str(raised.value)
    assert lines[1:] == ["done 1/3: mnist-conv3-div-seed1", "done 2/3: mnist-conv3-div-seed0"]


def test_errors_of_the_program_keep_their_traceback():
    error = FakeError("the traceback", ZeroDivisionError())
    with pytest.raises(FakeError, match="the traceback"):
        gather([error])


def test_node_that_does_not_see_the_storage_refuses_the_part(tmp_path):
    config = json.dumps(dataclasses.asdict(RunConfig(run_dir=str(tmp_path / "run"))))
    with pytest.raises(InputError, match="Expected --run_dir on storage that all nodes of the cluster share"):
        ray_task.run_part(Cluster.__new__(Cluster), ["command"], str(tmp_path / "sign"), config, None)
    assert list(tmp_path.iterdir()) == []


@needs_ray
def test_cluster_that_is_not_there_is_one_line(tmp_path):
    code, output = ended(run_table(tmp_path, "127.0.0.1:9", "--modes=base"))
    assert code == 2
    assert re.search(
        r"^error: Expected --cluster as the address of a Ray cluster that runs\. Received: .*\n\Z",
        output,
        re.M,
    )
    assert "Traceback" not in output


def run_table(root, address, *arguments, **environment):
    """Start the command; both its outputs are in `stdout`."""
    command = [sys.executable, "-m", "divtf.table2", *BUDGET, f"--run_dir={root}", *arguments]
    return subprocess.Popen(
        command + ([f"--cluster={address}"] if address else []),
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process):
    output, _ = process.communicate(timeout=500)
    return process.returncode, output


@pytest.fixture
def nodes(monkeypatch):
    """A cluster of two nodes with a processor each: the cluster, and its node that is not the head."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    from ray.cluster_utils import Cluster as LocalCluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    local = LocalCluster(initialize_head=True, head_node_args=node)
    try:
        yield local, local.add_node(**node)
    finally:
        local.shutdown()


def runs_on(node, directory):
    """Whether a process of that node holds the run directory."""
    try:
        process = (directory / ".lock").read_text()
        parent = re.search(r"^PPid:\s*(\d+)$", Path(f"/proc/{process}/status").read_text(), re.M)[1]
    except (OSError, TypeError):
        return False
    return int(parent) in {info.process.pid for info in node.all_processes["raylet"]}


def outcome(directory):
    """What a run measured, without what differs between two runs of the same configuration."""
    record = checked_json.read_json(directory / run_directory.RESULTS)
    metrics = (directory / run_directory.METRICS).read_text()
    return record["provenance"]["weights"], record["results"], record["coherence"], metrics


@needs_ray
@pytest.mark.slow
def test_killed_node_s_run_goes_on_elsewhere_and_ends_as_if_it_had_not_been(tmp_path, nodes):
    local, node = nodes
    root = tmp_path / "table"
    directories = [root / f"mnist5k-conv3-{mode}-seed0" for mode in ("base", "div")]
    arguments = ("--modes=base,div", "--attacks=fgsm")
    command = run_table(root, local.address, *arguments)
    deadline = time.monotonic() + 300
    killed = None
    while killed is None:
        assert command.poll() is None and time.monotonic() < deadline, ended(command)
        for directory in directories:
            if runs_on(node, directory) and list(directory.glob(f"{run_directory.CHECKPOINTS}/*.json")):
                killed = directory
        time.sleep(0.01)
    local.remove_node(node, allow_graceful=False)
    # The same without a cluster, while the other node finds out that this one is gone.
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}  # As cpus_per_run has it.
    undisturbed = run_table(tmp_path / "here", None, *arguments, **threads)

    code, output = ended(command)

    assert code == 0, output
    name = killed.name
    assert len(re.findall(rf"\[{name}\] trains ", output)) == 2, output
    assert re.search(rf"\[{name}\] goes on from step [1-9]", output), output
    assert len(re.findall(r"\[shared\] \[\S+\] trains ", output)) == 1
    assert output.count("epsilon 0.1, 40 images") == 3, "the surrogate's task made the set; both runs read it"
    started = {path: checked_json.read_json(path / run_directory.ENVIRONMENT) for path in directories}
    assert {path: len(times) for path, times in started.items()} == {
        path: 2 if path == killed else 1 for path in directories
    }
    assert all("-m divtf.table2" in once["command"] for times in started.values() for once in times)
    assert not list(root.glob(".cluster-*"))

    code, here = ended(undisturbed)
    assert code == 0, here
    for directory in directories:
        assert outcome(directory) == outcome(tmp_path / "here" / directory.name)

    before = {path: (path / run_directory.RESULTS).stat().st_mtime_ns for path in directories}
    code, output = ended(run_table(root, local.address, *arguments))
    assert code == 0, output
    assert "2 runs, 2 of them finished before" in output
    assert "] trains " not in output
    assert before == {path: (path / run_directory.RESULTS).stat().st_mtime_ns for path in directories}


@needs_ray
@pytest.mark.slow
def test_users_error_in_a_run_is_not_repeated_and_does_not_end_the_others(tmp_path, nodes):
    """In float32 this weight of GAL makes the gradient of T_Div infinite, but not that of T_Base."""
    local, _ = nodes
    code, output = ended(
        run_table(tmp_path, local.address, "--modes=div,base", "--attacks=", "--gal_weight=3e38")
    )
    assert code == 2, output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.fullmatch(
        r"error: Expected .*\. Received: .*\(1 of 2 runs failed: mnist5k-conv3-div-seed0\)", errors[0]
    )
    assert "Traceback" not in output
    assert len(checked_json.read_json(tmp_path / "mnist5k-conv3-div-seed0" / run_directory.ENVIRONMENT)) == 1
    assert (tmp_path / "mnist5k-conv3-base-seed0" / run_directory.RESULTS).exists()
