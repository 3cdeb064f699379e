"""TensorFlow's lines of information are left out as a command loads it, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def stderr_of(code, status=0):
    """What a new process that runs the code writes to standard error."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"import os, sys\nfrom divtf.runtime import quiet_start\n{code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status
    return done.stderr


WRITE = (
    r"os.write(2, b'I0000 00:00:17 1 port.cc:153] on\nW0000 00:00:17 1 a.cc:1] careful\n' + b'no newline')"
)


def test_nothing_is_said_where_all_is_well():
    code = "quiet_start.import_tensorflow()\nimport tensorflow as tf, keras\nassert tf.ones(1) + 1 == 2\n"
    assert stderr_of(f"{code}print('afterwards', file=sys.stderr)") == "afterwards\n"


def test_warnings_and_errors_pass():
    code = f"with quiet_start._left_out(quiet_start._STARTING):\n    {WRITE}\n    1 / 0"
    said = stderr_of(code, status=1)
    assert "port.cc" not in said
    assert said.startswith("W0000 00:00:17 1 a.cc:1] careful\nno newline")
    assert "ZeroDivisionError" in said


def test_the_last_words_of_a_crash_pass():
    code = f"with quiet_start._left_out(quiet_start._STARTING):\n    {WRITE}\n    os.abort()"
    assert stderr_of(code, status=-6) == "W0000 00:00:17 1 a.cc:1] careful\nno newline"


def test_closed_standard_error_is_left_alone():
    code = "os.close(2)\nwith quiet_start._left_out(quiet_start._STARTING):\n    print('done')"
    assert stderr_of(code) == ""


def test_an_interrupt_is_not_the_filters():
    """From a terminal it goes to the whole group of processes, in which the filter is not."""
    code = (
        "import subprocess\nchildren = []\nstart = subprocess.Popen\n"
        "class Spy(start):\n    def __init__(self, *a, **k):\n        super().__init__(*a, **k)\n"
        "        children.append(os.getpgid(self.pid))\n"
        "subprocess.Popen = Spy\n"
        "with quiet_start._left_out(quiet_start._STARTING):\n    pass\n"
        "assert children and children != [os.getpgrp()]"
    )
    assert stderr_of(code) == ""


def test_where_no_process_is_to_be_had_nothing_is_filtered():
    code = (
        f"sys.executable = '/no/such/python'\nwith quiet_start._left_out(quiet_start._STARTING):\n    {WRITE}"
    )
    assert "port.cc:153] on" in stderr_of(code)


def test_what_litert_says_of_every_model_is_left_out_and_errors_pass():
    said = [
        "W0000 00:00:1795678879.749426   24372 tf_tfl_flatbuffer_helpers.cc:364] Ignored output_format.",
        "fully_quantize: 0, inference_type: 6, input_inference_type: FLOAT32, output_inference_type: FLOAT32",
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
        "W0000 00:00:17 1 a.cc:1] careful",
        "error: failed while converting: 'main'",
    ]
    code = f"with quiet_start.converting():\n    os.write(2, {chr(10).join([*said, '']).encode()!r})"
    assert stderr_of(code).splitlines() == said[3:]
