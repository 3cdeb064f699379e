"""What a number depends on beside the configuration, and when it was made: versions, commit, command."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from divtf.runtime.processor import has_avx512

# What commands write into a checkout: it makes the code that runs no other.
_OUTPUTS = (":(exclude,top)runs", ":(exclude,top)benchmarks/results")


def environment() -> dict[str, Any]:
    """What a number depends on beside the configuration: versions, machine, commit, command."""
    packages = ("divtf", "tensorflow", "keras", "cleverhans", "tensorflow-datasets", "numpy")
    return {
        # -m keeps the module's name only in orig_argv. Quoted, since it is there to be run again.
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "avx512": has_avx512(),
        **_gpus(),
        **{name: _version(name) for name in packages},
    }


def _gpus(information: Path = Path("/proc/driver/nvidia/gpus")) -> dict[str, Any]:
    """The NVIDIA GPUs by name, as their driver tells them, and whether float32 may be TF32 there."""
    models = []
    for path in sorted(information.glob("*/information")):
        lines = path.read_text(encoding="utf-8").splitlines()
        models += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return {"gpus": models, "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"} if models else {}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Commit of the source tree, "-dirty" where files differ from it; "" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]

    def ask(*question: str) -> str:
        return subprocess.run([*git, *question], capture_output=True, text=True, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", Path(__file__).name)  # Fails in somebody else's checkout.
        changed = ask("status", "--porcelain", "--", ":/", *_OUTPUTS)
        return ask("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
