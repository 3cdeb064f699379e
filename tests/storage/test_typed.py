import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from divtf.storage.typed import as_tuples, checked, fits


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (object(), Any, True),
        ("a", str, True),
        (np.str_("a"), str, False),
        (None, str, False),
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (np.int64(1), int, False),
        (True, bool, True),
        (1, bool, False),
        (0.5, float, True),
        (1, float, True),
        (np.float32(0.5), float, True),
        (True, float, False),
        ("0.5", float, False),
        (float("nan"), float, False),
        (float("inf"), float, False),
        ((), tuple[int, ...], True),
        ((1, 2), tuple[int, ...], True),
        ([1, 2], tuple[int, ...], False),
        ((1, "2"), tuple[int, ...], False),
        (((1.0,), (2,)), tuple[tuple[float, ...], ...], True),
        (((1.0,), 2), tuple[tuple[float, ...], ...], False),
        ({"a": 1}, Mapping[str, float], True),
        ({1: 1}, Mapping[str, float], False),
        ({"a": "1"}, Mapping[str, float], False),
        ({"a": object()}, Mapping[str, Any], True),
        ([("a", 1)], Mapping[str, Any], False),
        (None, int | None, True),
        (1, int | None, True),
        ("1", int | None, False),
        (None, tuple[int, ...] | None, True),
        (("1",), tuple[int, ...] | None, False),
    ],
)
def test_values_fit_their_type(value, hint, expected):
    assert fits(value, hint) is expected


@dataclasses.dataclass
class Sample:
    name: str
    shares: tuple[float, ...] = ()


def test_the_first_field_of_another_type_is_named():
    sample = Sample("a", (0.5, 1))
    assert checked(sample) is sample
    with pytest.raises(ValueError, match=r"^Expected shares as tuple\[float, ...\]. Received: \('b',\)$"):
        checked(Sample("a", ("b",)))
    with pytest.raises(ValueError, match=r"^Expected name as <class 'str'>. Received: 3$"):
        checked(Sample(3, ("b",)))


def test_lists_become_tuples_at_every_depth():
    assert as_tuples([[1, [2]], "a", {"b": [3]}]) == ((1, (2,)), "a", {"b": [3]})
