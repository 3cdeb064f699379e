"""The files that describe the package agree with each other."""

import os
import re
import runpy
import sys
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
# Read as setup.py does, without importing the package and so TensorFlow.
VERSION = runpy.run_path(str(ROOT / "divtf" / "__init__.py"))["__version__"]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def content_lines(name):
    """The file's lines without comments and blank ones."""
    stripped = (line.split("#", 1)[0].strip() for line in read(name).splitlines())
    return [line for line in stripped if line]


@pytest.fixture
def setup_arguments(monkeypatch):
    """What setup.py hands to setuptools, from running it with a stand-in."""
    received = {}
    stand_in = types.ModuleType("setuptools")
    stand_in.setup = received.update
    stand_in.find_packages = lambda **kwargs: ["divtf"]
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    # From elsewhere, since build tools do not run it from the root.
    monkeypatch.chdir("/")
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    return received


def pins():
    parsed = [Requirement(line) for line in content_lines("constraints.txt")]
    return {canonicalize_name(pin.name): pin for pin in parsed}


def assert_pinned(requirements):
    known = pins()
    for requirement in map(Requirement, requirements):
        pin = known.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt has no pin for {requirement}"
        (specifier,) = pin.specifier
        assert requirement.specifier.contains(specifier.version), f"{pin} does not satisfy {requirement}"


def test_setup_requires_what_requirements_txt_lists(setup_arguments):
    assert setup_arguments["install_requires"] == content_lines("requirements.txt")


def test_every_requirement_has_a_lower_bound():
    for line in content_lines("requirements.txt"):
        operators = {specifier.operator for specifier in Requirement(line).specifier}
        assert operators & {">=", "==", "~="}, line


def test_constraints_pin_one_version_a_package():
    lines = content_lines("constraints.txt")
    for line in lines:
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "=="
        assert "*" not in specifier.version
    assert len(pins()) == len(lines)


def test_constraints_pin_every_requirement():
    assert_pinned(content_lines("requirements.txt"))


def test_constraints_pin_every_extra(setup_arguments):
    extras = setup_arguments["extras_require"]
    assert set(extras) == {"dev", "docs", "cluster", "onnx", "litert", "attacks", "bench", "mlflow", "wandb"}
    for requirements in extras.values():
        assert_pinned(requirements)


def test_versions_agree(setup_arguments):
    assert str(Version(VERSION)) == VERSION
    assert setup_arguments["version"] == VERSION
    assert re.findall(r"^version: (\S+)$", read("CITATION.cff"), re.MULTILINE) == [VERSION]


def test_changelog_has_the_version_and_its_date():
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    released = re.findall(r"^date-released: (\S+)$", read("CITATION.cff"), re.MULTILINE)
    assert headings[1] == (VERSION, *released)


def test_oldest_python_is_the_same_everywhere(setup_arguments):
    assert setup_arguments["python_requires"] == ">=3.11"
    assert 'target-version = "py311"' in read("pyproject.toml")
    assert 'python_version = "3.11"' in read("pyproject.toml")


def test_package_ships_its_type_marker(setup_arguments):
    assert setup_arguments["package_data"]["divtf"] == ["py.typed"]
    assert (ROOT / "divtf" / "py.typed").is_file()


def test_package_ships_the_templates_of_its_pages(setup_arguments):
    (pattern,) = setup_arguments["package_data"]["divtf.reporting.page"]
    names = {path.name for path in (ROOT / "divtf" / "reporting" / "page").glob(pattern)}
    assert names == {"base.html", "index.html", "page.js", "parts.html", "report.html", "style.css"}


def test_source_archive_has_what_setup_reads():
    included = " ".join(line for line in content_lines("MANIFEST.in") if line.startswith("include"))
    assert "requirements.txt" in included.split()


def test_source_archive_has_what_the_tests_read():
    grafted = {line.split()[1] for line in content_lines("MANIFEST.in") if line.startswith("graft")}
    assert grafted >= {"benchmarks", "docs", "examples", "flags", "tests"}


def test_licence_is_the_same_everywhere(setup_arguments):
    assert setup_arguments["license"] == "Apache-2.0"
    assert "license: Apache-2.0" in read("CITATION.cff").splitlines()
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", read("LICENSE"))


def test_ci_runs_make_check():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make check" in content_lines(".ci/run")


def test_every_make_target_is_documented():
    makefile = read("Makefile")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split()
    documented = re.findall(r"^([a-z]+):.* ## \S", makefile, re.MULTILINE)
    assert sorted(phony) == sorted(documented)


def test_no_text_has_marks_of_a_merge():
    kinds = ("*.md", "*.py", "*.toml", "*.txt", "*.flags", "Makefile")
    places = [ROOT, *(ROOT / name for name in ("divtf", "tests", "docs", "flags", "benchmarks", "examples"))]
    files = {path for place in places for kind in kinds for path in place.glob(kind)}
    files |= {path for place in places[1:] for kind in kinds for path in place.rglob(kind)}
    assert len(files) > 300
    marks = ["<" * 7 + " ", ">" * 7 + " "]
    assert not [path for path in files if any(f"\n{mark}" in path.read_text() for mark in marks)]
