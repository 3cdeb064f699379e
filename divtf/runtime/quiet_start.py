"""TensorFlow without the lines of information that it writes as it starts, and as it converts a model."""

import contextlib
import os
import sys
from collections.abc import Iterator

from divtf.runtime.processor import prepare_tensorflow

# What TF_CPP_MIN_LOG_LEVEL does not hold back: lines of level I, and the one that announces them. Warnings
# and errors pass, as does everything else.
_STARTING = r"I\d{4} \d\d:|WARNING: All log messages before absl::InitializeLog"
# What LiteRT's converter and interpreter say of every model: which options they had, what they will use.
_CONVERTING = (
    rf"{_STARTING}|W\d{{4}} \d\d:\S+ +\d+ (tf_tfl_flatbuffer_helpers|flatbuffer_export)\.cc:|fully_quantize: "
    r"|INFO: Created TensorFlow Lite"
)
_FILTER = r"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(sys.argv[1].encode(), line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def import_tensorflow() -> None:
    """Load TensorFlow and Keras for a command."""
    prepare_tensorflow()
    if "tensorflow" not in sys.modules:
        with _left_out(_STARTING):
            import keras  # noqa: F401
            import tensorflow  # noqa: F401


def converting() -> contextlib.AbstractContextManager[None]:
    """Leave out what LiteRT's converter says of every model."""
    return _left_out(_CONVERTING)


@contextlib.contextmanager
def _left_out(pattern: str) -> Iterator[None]:
    """Let what is written to the descriptor of standard error go through a filter of lines.

    It is a process of its own, so that the last words of a crash in native code come out.
    """
    import subprocess  # Late, as difflib in `pipeline.fields`: `--help` does without.

    command = [sys.executable, "-I", "-S", "-c", _FILTER, pattern]
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
