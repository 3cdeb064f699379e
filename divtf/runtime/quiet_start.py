"""TensorFlow loaded without the lines of information that it writes as it starts."""

import contextlib
import os
import sys
from collections.abc import Iterator

from divtf.runtime.processor import prepare_tensorflow

# What TF_CPP_MIN_LOG_LEVEL does not hold back: lines of level I, and the one that announces them. Warnings
# and errors pass, as does everything else.
_FILTER = r"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"I\d{4} \d\d:|WARNING: All log messages before absl::InitializeLog", line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def import_tensorflow() -> None:
    """Load TensorFlow and Keras for a command."""
    prepare_tensorflow()
    if "tensorflow" not in sys.modules:
        with _information_left_out():
            import keras  # noqa: F401
            import tensorflow  # noqa: F401


@contextlib.contextmanager
def _information_left_out() -> Iterator[None]:
    """Let what is written to the descriptor of standard error go through a filter.

    It is a process of its own, so that the last words of a crash in native code come out.
    """
    import subprocess  # Late, as difflib in `pipeline.fields`: `--help` does without.

    command = [sys.executable, "-I", "-S", "-c", _FILTER]
    process, before = None, -1
    # Standard error may be closed, or no process to be had: no filter then.
    with contextlib.suppress(OSError):
        before = os.dup(2)
        # In a session of its own, an interrupt from the terminal is this process's alone.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    if process is None or process.stdin is None:
        yield
        return
    with process:
        os.dup2(process.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            process.stdin.close()  # Then it has all, and ends.
