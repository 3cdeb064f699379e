"""Processes for tests, forked from a server that has imported TensorFlow, so that none costs its import.

TensorFlow starts in the process itself: its devices can still be split, and a cluster joined.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

import pytest
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[1]
# The server's, and so its processes'. Without TensorFlow's remarks their standard error is divtf's own.
ENVIRONMENT = {
    **{"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"},
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
}


def context():
    """The multiprocessing context of forks; the server starts with the first, for this process alone."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    return found


def split_cpu(number: int) -> None:
    """Make so many devices of the processor, in a forked process before TensorFlow starts in it."""
    logical = [tf.config.LogicalDeviceConfiguration()] * number
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)


class Forked:
    """A function in a process of its own, which is killed at the latest when this one ends.

    Args:
        function: of a module, which the process imports by name.
        *args: its arguments; what it returns is lost.
        environment: variables set in the process.
    """

    def __init__(self, function, *args, environment: Mapping[str, str] | None = None):
        place = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, place)
        self._said = [Path(place, name) for name in ("out", "err")]
        arguments = (function, args, dict(environment or {}), self._said)
        self._process = context().Process(target=_child, args=arguments, daemon=True)
        self._process.start()

    def wait(self, timeout: float = 400) -> int:
        """Its exit code once it has ended; the negative signal if one has killed it."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it takes no minutes"
        return self._process.exitcode

    def ended(self, timeout: float = 400) -> tuple[int, str, str]:
        """Its exit code, and what it has written to standard output and error."""
        code = self.wait(timeout)
        return code, *(path.read_text() for path in self._said)

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._process.kill()
        self._process.join(60)

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()


def _child(function, args, environment, paths) -> None:
    assert "preloaded" in sys.modules, "the server has imported all"
    for stream, path in enumerate(paths, 1):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream)
    os.environ.update(environment)
    function(*args)
