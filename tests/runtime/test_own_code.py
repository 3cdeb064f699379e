"""Code of the user's own by name: how it is found, and how it is told from what it was."""

import sys

import pytest

from divtf.errors import InputError
from divtf.runtime import own_code
from divtf.runtime.own_code import function, import_module, imported_digest, source_digest


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with modules that this process has not imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(own_code, "_IMPORTED", {})
    (tmp_path / "someones_package").mkdir()
    for name in ("someones_code", "someones_package/__init__", "someones_package/inner"):
        (tmp_path / f"{name}.py").write_text("class Own:\n    number = 3\n")
    (tmp_path / "leaving_code.py").write_text("raise SystemExit(3)")
    yield tmp_path
    for name in ("someones_code", "someones_package", "someones_package.inner"):
        sys.modules.pop(name, None)


def test_names_are_found_in_the_working_directory(place):
    assert import_module("someones_package.inner", "model").Own.number == 3
    assert function("someones_code:Own", "model").number == 3


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere:Own", r"module nowhere of --objective to be imported\. Received: ModuleNotFoundError"),
        ("leaving_code:Own", r"module leaving_code of --objective to be imported\. Received: SystemExit: 3"),
        ("someones_code:Owm", r"to be there\. Received: no Owm in someones_code; did you mean Own\?"),
        ("someones_code:Own.number", r"as a function\. Received: a int"),
    ],
)
def test_what_cannot_be_had_is_one_line(reference, message, place):
    with pytest.raises(InputError, match=message):
        function(reference, "objective")


def test_a_digest_is_of_the_source_whether_or_not_it_can_be_imported(place):
    names = ["someones_code", "someones_package", "someones_package.inner", "leaving_code"]
    first, *others = [source_digest(name) for name in names]
    assert others[:2] == [first, first] != [others[2], others[2]] and "someones_code" not in sys.modules
    (place / "someones_code.py").write_text("class Own:\n    number = 4\n")
    assert source_digest("someones_code") not in (first, "")


@pytest.mark.parametrize("module", ["nowhere", "no.where", "sys", "__main__"])
def test_what_has_no_source_has_no_digest(module, place):
    assert source_digest(module) == ""


def test_a_package_that_ends_the_process_has_no_digest(place):
    (place / "someones_package" / "__init__.py").write_text("raise SystemExit(3)")
    assert source_digest("someones_package.inner") == ""


def test_a_process_keeps_what_it_has_imported(place):
    assert imported_digest("someones_code") == ""
    import_module("someones_code", "model")
    before = source_digest("someones_code")
    (place / "someones_code.py").write_text("number = 4")
    import_module("someones_code", "model")
    assert imported_digest("someones_code") == before != source_digest("someones_code")


METHOD = """
class Mine:
    def call(self, x):
        return [value for value in x if value in {"a", "b", "c"}]
"""


def compiled(source, file):
    """The class, as a notebook's kernel or a module elsewhere has it."""
    place = {"__name__": "nowhere"}
    exec(compile(source, file, "exec"), place)
    return place["Mine"]


def test_a_class_has_one_digest_wherever_and_whenever_it_was_compiled():
    found = {
        own_code.classes_digest([compiled(lines + METHOD, file)])
        for lines in ("", "\n\n")
        for file in ("/tmp/1/cell.py", "/tmp/2/cell.py")
    }
    assert len(found) == 1
    for old, new in (("in {", "not in {"), ('"c"', '"d"'), ("[value", "[x")):
        assert own_code.classes_digest([compiled(METHOD.replace(old, new), "cell.py")]) not in found
