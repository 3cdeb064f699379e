"""The README's figures are those of the records beside it."""

import re
from pathlib import Path

import pytest

from divtf import publish
from divtf.errors import InputError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NAMES = sorted(path.stem for path in (ROOT / "runs/results").glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_readme_section_is_what_the_records_give(name):
    records = publish.load(ROOT / f"runs/results/{name}.json")
    assert publish.insert(README, name, publish.section(name, records)) == README


def test_every_generated_section_has_its_records():
    assert sorted(re.findall(r"<!-- /([\w-]+) -->", README)) == NAMES


def test_pictures_of_the_readme_exist():
    for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_insert_replaces_only_between_the_marks():
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb"
    assert publish.insert(text, "t", "new") == "a\n<!-- t -->\n\nnew\n\n<!-- /t -->\nb"


def test_insert_without_marks_is_refused():
    with pytest.raises(InputError, match="marks"):
        publish.insert("no marks", "t", "new")
