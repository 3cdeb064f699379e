"""What is evaluated on many devices is what one gives."""

import json
import os
import re
import subprocess
import sys

import forked
import numpy as np
import process
import pytest
from followed import load

from divtf.runtime import devices, replicas


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with pytest.MonkeyPatch.context() as patch:
        process.register(patch)
        yield


ATTACKED = {"names": ["rfgsm", "mifgsm"], "size": 5}


@pytest.mark.parametrize("devices", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_attacks_and_predictions_on_many_devices_are_those_of_one(tmp_path, devices):
    """24 images in batches of 5, the last of 4: two rounds on 4 devices, three on 2; random starts too."""
    process.attack(tmp_path / "one.npz", "single", **ATTACKED)
    log = logged_attack(tmp_path / "many.npz", devices)
    expected, found = load(tmp_path / "one.npz"), load(tmp_path / "many.npz")
    assert len(expected) == 5 and set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert devices_of_products(log) == set(range(devices))


def logged_attack(path, devices):
    """The attack on so many devices in a process that logs where each operation is placed; gives the log."""
    values = {"task": "attack", "path": str(path), "strategy": "mirrored", "devices": devices, "log": True}
    # Not forked: placements are logged as information, and of that the server's forks have none.
    done = subprocess.run(
        [sys.executable, process.__file__, json.dumps(values | ATTACKED)],
        env=os.environ | forked.ENVIRONMENT | {"TF_CPP_MIN_LOG_LEVEL": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def devices_of_products(log):
    """Numbers of the devices on which a log of placements has matrix products."""
    return {int(number) for number in re.findall(r"\(MatMul\).*?device:CPU:(\d)", log)}


def test_one_process_is_its_own_chief():
    team = devices.team("single")
    assert team.is_chief and team.from_chief(7) == 7 and not team.has_several
    team.require_same("a", "anything", "anything")
    with team.chief_first(), team.clear_errors(), team.scope():
        pass
    assert replicas.replicas() == 1 and devices.devices_of(object()) == ()
