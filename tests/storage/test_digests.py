"""Digests of code: what changes them, and what does not."""

import subprocess
import sys

import pytest

from divtf.errors import InputError
from divtf.storage.digests import code_digest

TEXT = """
class Own:
    limit = 3

    def __call__(self, value):
        return [each for each in value if each in {"a", "b", "c"}]

    @property
    def cost(self):
        return 2
"""


def kind(text=TEXT, name="Own"):
    values = {"__name__": "someones_code"}
    exec(text, values)
    return values[name]


def test_code_is_the_same_wherever_it_stands():
    assert code_digest([kind()]) == code_digest([kind("\n\n# A comment.\n" + TEXT)]) != ""


@pytest.mark.parametrize(
    ("before", "after"), [('"c"', '"d"'), ("return 2", "return 3"), ("if each in", "if each not in")]
)
def test_other_code_is_another_digest(before, after):
    assert before in TEXT
    assert code_digest([kind()]) != code_digest([kind(TEXT.replace(before, after))])


def test_code_of_a_base_counts():
    text = TEXT + "\n\nclass Derived(Own):\n    pass\n"
    assert code_digest([kind(text, "Derived")]) == code_digest([kind()])


def test_divtfs_own_classes_and_those_of_python_have_none():
    assert code_digest([InputError, dict]) == ""


def test_it_is_the_same_in_every_process():
    """The order of a set is another one in each."""
    program = f"from divtf.storage.digests import code_digest\n{TEXT}\nprint(code_digest([Own]))"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1 and found != {"\n"}
