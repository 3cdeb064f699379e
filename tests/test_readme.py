"""The README's Python runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_python_of_the_readme_runs_in_order(tmp_path):
    assert len(BLOCKS) == 2
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(BLOCKS) + "\nprint(probabilities.shape)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "(3, 10)"
    assert [line.split()[0] for line in lines if line.startswith(("clean", "fgsm", "mifgsm"))] == [
        "clean",
        "fgsm",
        "mifgsm",
    ]
