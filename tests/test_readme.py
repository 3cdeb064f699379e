"""The README is short and its Python runs as it stands there; links of every page lead somewhere."""

import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
# Not those that runs write, nor their stored copies in tests/data.
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "runs").glob("*.md"),
        *(
            page
            for room in ("benchmarks", "divtf", "docs", "flags", "runs/results")
            for page in (ROOT / room).rglob("*.md")
        ),
    }
)
LINK = re.compile(r"""\]\(([^)\s]+)\)|\b(?:src|href)="([^"]+)\"""")


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    names = []
    for heading in re.findall(
        r"^#{1,6} (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.M
    ):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return names


def broken_links(page):
    """Links of a page to files that are not there, and to headings that are not."""
    broken = []
    for pair in LINK.findall(without_code(page.read_text())):
        link = pair[0] or pair[1]
        if urllib.parse.urlsplit(link).scheme:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target.is_relative_to(ROOT.resolve())
        if not (inside and target.exists()) or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert not broken_links(page)


def test_every_page_that_git_keeps_is_looked_at():
    done = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a checkout")
    kept = {ROOT / name for name in done.stdout.splitlines() if not name.startswith("tests/data/")}
    assert {path for path in kept if path.exists()} <= set(PAGES)


def test_broken_links_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    good = "# A (b), `c`!\n\n[x](page.md) [x](#a-b-c) [x](https://example.org/y) `[x](z)`\n"
    page.write_text(good)
    assert broken_links(page) == []
    page.write_text(
        f'{good}[x](#d) [x](gone.md) [x](page.md#d) [![x](gone.png)](page.md) <img src="lost.png">'
    )
    assert broken_links(page) == ["#d", "gone.md", "page.md#d", "gone.png", "lost.png"]
    page.write_text("[x](../outside.md)")
    (tmp_path.parent / "outside.md").touch()
    assert broken_links(page) == ["../outside.md"]


def test_readme_fits_on_two_screens():
    assert len(README.read_bytes()) <= 8192


def test_python_of_the_readme_runs_in_order(tmp_path):
    """On an eighth of the images."""
    assert len(BLOCKS) == 2
    code = "\n".join(BLOCKS).replace("max_train_examples=512", "max_train_examples=64")
    done = subprocess.run(
        [sys.executable, "-c", code + "\nprint(probabilities.shape)"],
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
