"""The guides build without a warning, their Python runs, and the API's page has all public names."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import divtf

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_docs_build_without_a_warning(tmp_path):
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*sphinx, "-c", "docs", ".", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'url=docs/index.html"' in (tmp_path / "index.html").read_text()
    assert 'href="../benchmarks/results/exactness.html"' in (tmp_path / "docs" / "members.html").read_text()
    assert 'href="../docs/machines.html"' in (tmp_path / "flags" / "README.html").read_text()
    page = (tmp_path / "docs" / "api.html").read_text()
    for name in ("divtf.Ensemble.fit", "divtf.export_model", "divtf.TransferResult.interval"):
        assert f'id="{name}"' in page
    text = re.sub(r"<[^>]+>", "", page)
    assert "divtf.Ensemble(members, objective=None" in text


def test_every_public_name_is_on_the_api_page_once():
    names = re.findall(r"^\.\. \w+:: divtf\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(set(divtf.__all__) - {"__version__"})


def test_every_guide_is_in_the_index():
    listed = set(re.findall(r"^(\w+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert listed == {path.stem for path in DOCS.glob("*.md")} - {"index"}


@pytest.mark.parametrize("guide", ["objectives", "evaluating"])
def test_python_of_a_guide_runs(guide):
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / f"{guide}.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) >= 2
    names = {}
    for block in blocks:
        exec(compile(block, f"{guide}.md", "exec"), names)
    if guide == "objectives":
        x, y = np.zeros([4, 28, 28, 1], "float32"), np.arange(4)
        names["ensemble"].compile("sgd")
        assert {"diversity", "loss"} <= set(names["ensemble"].train_on_batch(x, y, return_dict=True))
    else:
        assert names["attack"].name == "mirrored"
