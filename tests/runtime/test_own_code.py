"""Code of the user's own by name: what changes the digest of its source, and what does not."""

import pytest

from divtf.runtime.own_code import import_module, reference_digest, source_digest

TEXT = '''
import os

SCALE, OTHER = 2.0, 3.0
if SCALE:
    LIMIT = 1


def doubled(value):
    """Twice."""
    return SCALE * value


def scaled(by):
    return lambda function: lambda *given: by * function(*given)


class Base:
    weight = 1

    @staticmethod
    def half(value):
        return value / 2


class Own(Base):
    """What is named."""

    def __init__(self, start=5):
        self.start = start

    @scaled(7)
    def __call__(self, value):
        return doubled(value) + LIMIT


def own():
    return Own(start=8)


def unused():
    return OTHER
'''


def digest(text=TEXT):
    return source_digest(text, "own")


def changed(before, after):
    assert before in TEXT
    return digest(TEXT.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SCALE, OTHER = 2.0", "SCALE, OTHER = 2.5"),
        ("LIMIT = 1", "LIMIT = 2"),
        ("return SCALE * value", "return SCALE + value"),
        ("by * function", "by + function"),
        ("weight = 1", "weight = 2"),
        ("value / 2", "value / 3"),
        ("start=5", "start=6"),
        ("@scaled(7)", "@scaled(8)"),
        ("start=8", "start=9"),
    ],
)
def test_whatever_a_name_uses_counts(before, after):
    assert digest() != changed(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import os", "# A comment.\n\nimport os, sys"),
        ('"""Twice."""', '"""Two times."""'),
        ('    """What is named."""\n', ""),
        ("return OTHER", "return 0"),
        ("SCALE * value", "(SCALE*value)"),
    ],
)
def test_documentation_layout_and_what_else_is_there_do_not(before, after):
    assert digest() == changed(before, after)


def test_of_a_name_from_elsewhere_all_of_the_module_counts():
    assert source_digest(TEXT, "join") != source_digest(TEXT.replace("return OTHER", "return 0"), "join")


def test_a_reference_is_read_from_the_working_directory_without_its_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someones_code.py").write_text("raise SystemExit(3)\n" + TEXT)
    assert reference_digest("someones_code:own") == source_digest(TEXT, "own")
    assert reference_digest("someones_code:Own.half") == source_digest(TEXT, "Own")


@pytest.mark.parametrize("reference", ["nowhere:own", "sys:exit", "no.where:own", "broken_code:own"])
def test_what_has_no_source_has_no_digest(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_code.py").write_text("def own(:")
    assert reference_digest(reference) == ""


def test_a_module_is_found_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someones_number.py").write_text("NUMBER = 3")
    assert import_module("someones_number", "model").NUMBER == 3
