"""Measurements in files: made once for each manifest, and again when a file is damaged."""

import pytest

from divtf.storage import checked_json
from divtf.storage.files import PARTIAL
from divtf.storage.kept import kept

MANIFEST = {"model": "abc", "numbers": [1, 2]}


class Measured:
    """Counts how often it measures; what it gives tells one time from another."""

    def __init__(self, value=None):
        self.times, self.value = 0, value

    def __call__(self):
        self.times += 1
        return self.times if self.value is None else self.value


def test_made_once_and_read_then(tmp_path):
    make = Measured()
    assert [kept(tmp_path / "new", "square", MANIFEST, make) for _ in range(3)] == [1, 1, 1]
    assert make.times == 1
    (path,) = (tmp_path / "new").glob("*.json")
    assert path.name.startswith("square-")
    assert checked_json.read_checked(path) == {"manifest": MANIFEST, "made": 1}


@pytest.mark.parametrize("value", [[], 0, None, False, {}, [1, 2], {"a": [1.5]}])
def test_what_is_empty_is_kept_too(tmp_path, value):
    make = Measured(value=[value])
    found = [kept(tmp_path, "x", MANIFEST, lambda: make()[0]) for _ in range(2)]
    assert (found, make.times) == ([value, value], 1)


@pytest.mark.parametrize(
    ("name", "manifest"),
    [("other", MANIFEST), ("square", MANIFEST | {"model": "abd"}), ("square", MANIFEST | {"numbers": [1]})],
)
def test_another_name_or_manifest_is_another_measurement(tmp_path, name, manifest):
    make = Measured()
    found = [kept(tmp_path, *given, make) for given in [("square", MANIFEST), (name, manifest)] * 2]
    assert found == [1, 2, 1, 2]


def test_order_of_the_manifest_is_nothing(tmp_path):
    make = Measured()
    kept(tmp_path, "x", MANIFEST, make)
    assert kept(tmp_path, "x", dict(reversed(MANIFEST.items())), make) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"made": 1', '"made": 5'),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "{}",
        lambda text: '{"checksum": "abc"}',
        lambda text: '{"manifest": {}}',
        lambda text: "[]",
        lambda text: "5",
    ],
    ids=["changed", "cut", "empty", "nothing", "other", "half", "list", "number"],
)
def test_damaged_file_is_measured_again(tmp_path, change):
    make = Measured()
    kept(tmp_path, "x", MANIFEST, make)
    (path,) = tmp_path.glob("*.json")
    path.write_text(change(path.read_text()))
    assert [kept(tmp_path, "x", MANIFEST, make) for _ in range(2)] == [2, 2]


def test_failed_measurement_leaves_no_file(tmp_path):
    def fail():
        raise RuntimeError("not today")

    with pytest.raises(RuntimeError, match="not today"):
        kept(tmp_path, "x", MANIFEST, fail)
    assert not list(tmp_path.glob("*.json")) and not list(tmp_path.glob(f"{PARTIAL}*"))
    assert kept(tmp_path, "x", MANIFEST, Measured()) == 1
