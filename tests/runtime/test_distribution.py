"""Many devices and many machines follow one device: training, measures, resuming, attacks, lost workers.

Processes of their own are needed: devices can be split, and a cluster joined, only before TensorFlow starts.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import command_lines
import numpy as np
import process
import pytest
import reference
import tensorflow as tf
import tiny
from run_files import checkpoints, metrics, step_files

from divtf.errors import InputError
from divtf.runtime import devices, replicas, worker_fit, workers
from divtf.storage import run_directory

# 144 images of mode div in batches of 13: eleven whole ones, and one that is a single image.
UNEVEN = {"batch_size": 13, "epochs": 1}
STEPS = 12
EVERY_BATCH = 1e-9


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with pytest.MonkeyPatch.context() as patch:
        process.register(patch)
        yield


def start(task, *, cluster=None, **values):
    """A process of `process.py`; its standard output and error can be read when it has ended."""
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": str(Path(tiny.__file__).parents[1]),
        "TF_CPP_MIN_LOG_LEVEL": "0",  # Placements are logged as information.
    }
    environment.pop("TF_CONFIG", None)
    if cluster:
        environment["TF_CONFIG"] = json.dumps(cluster)
    return subprocess.Popen(
        [sys.executable, process.__file__, json.dumps({"task": task} | values, default=str)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(started, timeout=400):
    """Exit codes, standard outputs and errors of processes, in their order; none outlives the call."""
    try:
        texts = [one.communicate(timeout=timeout) for one in started]
    finally:
        for one in started:
            one.kill()
    return [(one.returncode, *text) for one, text in zip(started, texts, strict=True)]


def result(task, **values):
    """What a task of one process returns, and its standard error."""
    ((code, out, err),) = ended([start(task, **values)])
    assert code == 0, err[-3000:]
    return json.loads(out.splitlines()[-1]), err


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


def start_workers(task, count=2, of_worker=lambda index: {}, **values):
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    return [
        start(
            task,
            cluster={"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}},
            strategy="multi_worker",
            **values | of_worker(index),
        )
        for index in range(count)
    ]


def one_device(directory, **values):
    """Weights of a run of this process, and the images of its steps."""
    with pytest.MonkeyPatch.context() as patch:
        seen = directory.with_suffix(".npz")
        return process.train(directory, patch=patch, seen=seen, **values), load(seen)


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def assert_close(found, expected):
    """To 1e-5 of the largest entry of each tensor: float32 sums in another order differ in single entries."""
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


def assert_same_metrics(directory, other, rel=1e-5):
    for left, right in zip(metrics(directory), metrics(other), strict=True):
        assert left == pytest.approx(right, rel=rel, abs=1e-6)


# Devices of one machine


MIRRORED = [("conv3", mode, devices) for mode in ("base", "div") for devices in (2, 4)]
IN_DEFAULT_RUN = ("conv3", "div", 4)


@pytest.mark.parametrize(
    ("model", "mode", "devices"),
    [case if case == IN_DEFAULT_RUN else pytest.param(*case, marks=pytest.mark.slow) for case in MIRRORED],
)
def test_mirrored_training_follows_one_device(tmp_path, model, mode, devices):
    """SGD on batches of 13 images, which the devices cannot share evenly; the last has one."""
    values = UNEVEN | {"model": model, "mode": mode, "dataset": "stripes", "sgd": 0.05}
    expected, _ = one_device(tmp_path / "one", **values)
    found, _ = result("train", directory=tmp_path / "many", devices=devices, strategy="mirrored", **values)
    assert_close(found, expected)
    assert_same_metrics(tmp_path / "many", tmp_path / "one")


def test_mirrored_batch_normalisation_takes_each_replicas_own_moments(tmp_path):
    """Batches of 6, 6 and 1 on two devices, which see 3 and 3, 3 and 3, 1 and 0 images.

    Moving statistics are m <- 0.99 m + 0.01 v on each replica, v its own images' mean or variance, then the
    mean of the replicas' m, weighted by their images: m <- 0.99 m + 0.01 sum_r n_r v_r / sum_r n_r.
    """
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(13, 4)), rng.integers(3, size=13)
    mean, variance = np.zeros(4), np.ones(4)
    for batch in (x[:6], x[6:12], x[12:]):
        parts = [part for part in (batch[:3], batch[3:]) if len(part)]
        sizes = [len(part) for part in parts]
        mean = 0.99 * mean + 0.01 * np.average([p.mean(axis=0) for p in parts], axis=0, weights=sizes)
        variance = 0.99 * variance + 0.01 * np.average([p.var(axis=0) for p in parts], axis=0, weights=sizes)
    found, _ = result("statistics", devices=2, x=x.tolist(), y=y.tolist(), batch_size=6)
    for device in found["each"]:
        np.testing.assert_allclose(device, [mean, mean, variance, variance], rtol=1e-5, atol=1e-7)
    assert all(np.isfinite(values).all() for values in found["history"].values())


def test_mirrored_adam_steps_by_the_sum_of_the_replicas_gradients():
    gradients = np.random.default_rng(5).normal(size=(4, 2, 3))
    found, _ = result("adam", devices=2, gradients=gradients.tolist(), learning_rate=0.1)
    expected = reference.adam(np.zeros(3), gradients.sum(axis=1), 0.1)
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "normalised"])
def test_killed_mirrored_training_goes_on_bit_for_bit(tmp_path, model):
    """On the same devices: weights, and the measures of the epoch in which it was killed."""
    values = {"devices": 2, "strategy": "mirrored", "batch_size": 13, "epochs": 2, "model": model}
    values["checkpoint_minutes"] = EVERY_BATCH
    whole, _ = result("train", directory=tmp_path / "whole", **values)
    ((code, _, _),) = ended([start("train", directory=tmp_path / "killed", kill_at=STEPS + 5, **values)])
    assert code == -signal.SIGKILL
    resumed, _ = result("train", directory=tmp_path / "killed", **values)
    assert resumed == whole
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_training_that_diverges_on_two_devices_is_one_line(tmp_path):
    values = {"devices": 2, "strategy": "mirrored", "attacks": [], "learning_rate": 1e38}
    ((code, _, err),) = ended([start("run", run_dir=tmp_path / "run", **values)])
    assert code == 2
    assert re.search(r"^error: Expected a finite .* in training\. Received: .*checkpoint", err, re.M)
    assert "Traceback" not in err


ATTACKED = {"names": ["rfgsm", "mifgsm"], "size": 5}


@pytest.mark.parametrize("devices", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_attacks_and_predictions_on_many_devices_are_those_of_one(tmp_path, devices):
    """24 images in batches of 5, the last of 4: two rounds on 4 devices, three on 2; random starts too."""
    process.attack(tmp_path / "one.npz", "single", **ATTACKED)
    many = ATTACKED | {"path": tmp_path / "many.npz", "log": True}
    _, err = result("attack", strategy="mirrored", devices=devices, **many)
    expected, found = load(tmp_path / "one.npz"), load(tmp_path / "many.npz")
    assert len(expected) == 5 and set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert devices_of_products(err) == set(range(devices))


def devices_of_products(log):
    """Numbers of the devices on which a log of placements has matrix products."""
    return {int(number) for number in re.findall(r"\(MatMul\).*?device:CPU:(\d)", log)}


# Several workers


def test_shares_are_the_whole_batch_each_image_once():
    batches = [np.arange(13), np.arange(100, 106), np.arange(200, 202)]
    endless = tf.data.Dataset.from_generator(
        lambda: ((b, -b) for b in batches), output_signature=2 * (tf.TensorSpec([None], tf.int64),)
    ).repeat()
    for number, count in ((1, 1), (2, 1), (3, 1), (4, 2), (6, 3)):
        own = [
            list(worker_fit.shares(endless, first, count, number).take(3 * count).as_numpy_iterator())
            for first in range(0, number, count)
        ]
        for place, batch in enumerate(batches):
            parts = [part for worker in own for part in worker[place * count : (place + 1) * count]]
            assert len(parts) == number
            np.testing.assert_array_equal(np.concatenate([x for x, _ in parts]), batch)
            np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), -batch)
            sizes = [len(x) for x, _ in parts]
            assert max(sizes) - min(sizes) <= 1


def test_two_workers_follow_one_process_each_on_its_own_share(tmp_path):
    """One SGD trajectory and its records; shares that make up the batches; and only the chief writes."""
    values = UNEVEN | {"sgd": 0.05}
    expected, batches = one_device(tmp_path / "one", **values)
    found = ended(
        start_workers(
            "train",
            directory=tmp_path / "two",
            of_worker=lambda index: {"seen": tmp_path / f"seen-{index}.npz", "writes": index == 0},
            **values,
        )
    )
    for code, out, err in found:
        assert code == 0, err[-3000:]
        assert_close(json.loads(out.splitlines()[-1]), expected)
    assert_same_metrics(tmp_path / "two", tmp_path / "one")
    assert checkpoints(tmp_path / "two") == step_files(STEPS)
    assert len(list((tmp_path / "two" / run_directory.TENSORBOARD).iterdir())) == 1
    seen = [load(tmp_path / f"seen-{index}.npz") for index in (0, 1)]
    assert [len(own) for own in seen] == [STEPS, STEPS] == [len(batches)] * 2
    for name, batch in batches.items():
        first, second = seen[0][name], seen[1][name]
        np.testing.assert_array_equal(np.concatenate([first, second]), batch)
        assert 0 <= len(second) - len(first) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_lost_worker_ends_the_job_and_it_goes_on_bit_for_bit(tmp_path, victim):
    values = {"batch_size": 13, "epochs": 2, "mode": "base", "attacks": [], "resume": True}
    whole, lost = tmp_path / "whole", tmp_path / "lost"
    assert [code for code, _, _ in ended(start_workers("run", run_dir=whole / "run", **values))] == [0, 0]
    values["checkpoint_minutes"] = EVERY_BATCH

    def deadly(index):
        return {"kill_at": 9} if index == victim else {}

    started = start_workers("run", run_dir=lost / "run", of_worker=deadly, **values)
    assert started[victim].wait(timeout=300) == -signal.SIGKILL
    before = time.monotonic()
    code = started[1 - victim].wait(timeout=60)
    took = time.monotonic() - before
    _, _, err = ended(started)[1 - victim]
    assert code == 2, took
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"Received: worker {victim} (localhost:" in line and "--resume" in line
    assert "Traceback" not in err
    # Damage is mended by the chief alone.
    (lost / "run" / run_directory.METRICS).write_text("{")
    others = start_workers(
        "run", run_dir=lost / "run", of_worker=lambda index: {"writes": index == 0}, **values
    )
    for code, _, err in ended(others):
        assert code == 0, err[-3000:]
    assert metrics(lost / "run") == metrics(whole / "run")
    weights = [
        json.loads((place / "run" / run_directory.RESULTS).read_text())["provenance"]["weights"]
        for place in (whole, lost)
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_whole_run_on_two_workers_is_evaluated_by_the_chief(tmp_path):
    """Mode ens_div: static model, target and surrogate are trained by both, in one order."""
    values = {"run_dir": tmp_path / "run", "mode": "ens_div", "epochs": 1, "attacks": ["fgsm"]}
    (chief, out, err), (other, others_out, others_err) = ended(start_workers("run", **values))
    assert (chief, other) == (0, 0), err[-2000:] + others_err[-2000:]
    assert "T_Ens+Div" in out and (tmp_path / "run" / run_directory.RESULTS).exists()
    assert (
        others_out.splitlines()[-2]
        == "this worker's part, the training, is done; the chief evaluates by itself"
    )
    assert len(list((tmp_path / "shared-models").iterdir())) == 2


@pytest.mark.slow
def test_workers_of_different_configurations_do_not_train_together(tmp_path):
    started = start_workers(
        "run",
        of_worker=lambda index: {"seed": index},
        run_dir=tmp_path / "run",
        mode="base",
        attacks=[],
    )
    (chief, _, err), (other, _, others_err) = ended(started)
    assert (chief, other) == (2, 2)
    assert "the chief's configuration on every worker" in others_err
    assert "Received: worker 1 (localhost:" in err


def cluster(**changes):
    task = {"type": "worker", "index": 0} | changes.pop("task", {})
    return {"cluster": {"worker": ["one:2222", "two:2222"]}, "task": task} | changes


BAD_CLUSTERS = {
    "too deep": "[" * 100_000,
    "none": "",
    "not JSON": "{",
    "a list": "[]",
    "no task": json.dumps({"cluster": {"worker": ["one:2222"]}}),
    "no cluster": json.dumps({"task": {"type": "worker", "index": 0}}),
    "index out of range": json.dumps(cluster(task={"index": 2})),
    "negative index": json.dumps(cluster(task={"index": -1})),
    "index as text": json.dumps(cluster(task={"index": "0"})),
    "true for an index": json.dumps(cluster(task={"index": True})),
    "unknown task": json.dumps(cluster(task={"type": "chief"})),
    "parameter server": json.dumps(cluster(cluster={"worker": ["one:2222"], "ps": ["two:2222"]})),
    "no workers": json.dumps(cluster(cluster={"worker": []})),
    "no port": json.dumps(cluster(cluster={"worker": ["one", "two:2222"]})),
    "port too large": json.dumps(cluster(cluster={"worker": ["one:65536", "two:2222"]})),
    "address twice": json.dumps(cluster(cluster={"worker": ["one:2222", "one:2222"]})),
    "two chiefs": json.dumps(cluster(cluster={"chief": ["one:1", "two:1"], "worker": ["three:1"]})),
    "addresses as text": json.dumps(cluster(cluster={"worker": "one:2222"})),
}


@pytest.mark.parametrize("case", BAD_CLUSTERS)
def test_bad_cluster_is_refused_before_anything_waits(case, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", BAD_CLUSTERS[case])
    with pytest.raises(InputError, match=r"Expected TF_CONFIG as .* for --strategy=multi_worker. Received: "):
        workers.join_cluster()


@pytest.mark.parametrize(
    ("values", "place"),
    [
        (cluster(), "worker 0"),
        (cluster(task={"index": 1}), "worker 1"),
        (
            cluster(cluster={"chief": ["[::1]:80"], "worker": ["10.0.0.2:80"]}, task={"type": "chief"}),
            "chief 0",
        ),
    ],
)
def test_place_in_the_cluster_is_read(values, place):
    addresses, found = workers._read_cluster(json.dumps(values))
    assert found == place and len(addresses) == 2


def test_table_is_refused_on_several_workers():
    with pytest.raises(InputError, match=r"--strategy=single or mirrored for a table.*=multi_worker"):
        command_lines.parts("--strategy=multi_worker")


def test_missing_cluster_is_one_line_and_exit_code_2():
    command = [sys.executable, "-m", "divtf.main", "--strategy=multi_worker"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: Expected TF_CONFIG as ") and "Traceback" not in done.stderr


def test_one_process_is_its_own_chief():
    on = devices.strategy("single")
    assert workers.is_chief(on) and workers.from_chief(on, 7) == 7 and not workers.has_several(on)
    assert replicas.replicas() == 1 and devices.devices_of(object()) == ()
