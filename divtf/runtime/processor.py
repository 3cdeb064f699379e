"""The processor, and what divtf's commands tell TensorFlow of it. This module imports no TensorFlow."""

import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def prepare_tensorflow() -> None:
    """Set what the user's environment leaves open; TensorFlow reads it once, as it loads."""
    # It reports optimisations that it leaves out as errors; real ones come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # By itself it leaves oneDNN off on most processors without AVX-512, where steps are slower without it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def has_avx512() -> bool | None:
    """Whether an x86 processor has AVX-512; None for another kind, and where the system does not tell."""
    try:
        return "avx512" in _CPUINFO.read_text() if platform.machine() == "x86_64" else None
    except OSError:
        return None
