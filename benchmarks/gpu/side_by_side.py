"""Runs the targets of tables side by side on one GPU, each in a process of its own, and then the tables.

    python -m benchmarks.gpu.side_by_side flags/mnist.flags flags/cifar10.flags --precision=float32

A step of small members is thousands of small kernels: one process leaves most of the GPU idle while it
launches them. The arguments after the files are given to `divtf.table2` with each of them.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_MODES = "--modes="


def main(arguments: Sequence[str]) -> int:
    """Run every target of the files of flags; the number of commands that failed."""
    files = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    # By itself TensorFlow takes the memory of the whole GPU for the first process.
    environment = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    tables = {path: [*_TABLE, f"--flagfile={path}", *options] for path in files}
    targets = [
        subprocess.Popen([*command, _MODES + mode], env=environment)
        for path, command in tables.items()
        for mode in _modes(path)
    ]
    failed = sum(target.wait() != 0 for target in targets)
    # All that is in them is done: this puts it together.
    return failed + sum(
        subprocess.run(command, env=environment).returncode != 0 for command in tables.values()
    )


_TABLE = (sys.executable, "-m", "divtf.table2")


def _modes(path: str) -> list[str]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    [modes] = [line.removeprefix(_MODES) for line in lines if line.startswith(_MODES)]
    return modes.split(",")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
