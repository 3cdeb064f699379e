"""Label leaking in tables: when it is told, and in what words."""

import dataclasses
import json

import pytest
import scipy.stats

from divtf.reporting.leaking import MARK, leaks
from divtf.reporting.markdown import table_markdown
from divtf.reporting.plain_text import table_text
from divtf.reporting.table_data import table_json
from divtf.storage.records import CLEAN, TargetRecord, TransferResult


def entry(only_attacked, only_clean, attack="fgsm", **values):
    both = 150
    counts = {"right": both + only_attacked, "right clean": both + only_clean}
    differing = {"only attacked": only_attacked, "only clean": only_clean}
    told = {"model": "plain", "attack": attack, "epsilon": 0.3, "total": 200}
    return told | counts | differing | values


def record(*entries, target="T_Ens"):
    clean = TransferResult(target, "", CLEAN, 0.0, 190, 200)
    return TargetRecord(target, "conv3", "mnist", 0, (clean,), on_static_models=entries)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((), False),
        ([entry(9, 1)], True),  # p = 2 (1 + 10) / 2^10 = 0.021
        ([entry(8, 1)], True),  # 2 (1 + 9) / 2^9 = 0.039
        ([entry(7, 1)], False),  # 2 (1 + 8) / 2^8 = 0.070
        ([entry(1, 9)], False),  # Harder, as robustness has it.
        ([entry(0, 0)], False),
        ([entry(30, 0, attack="step_ll")], False),
        ([entry(30, 0, attack="mifgsm_ll")], False),
        ([entry(30, 0, attack="mifgsm")], True),
        ([entry(1, 9), entry(20, 0, epsilon=0.1)], True),
        ([entry(9, 1), entry(0, 0, epsilon=0.1)], True),  # 0.021 < 0.05 / 2
        ([entry(8, 1), entry(0, 0, epsilon=0.1)], False),  # 0.025 < 0.039
        ([entry(8, 1), entry(0, 0, attack="step_ll")], True),  # Which cannot be marked.
        ([entry(7, 0)] * 12, False),  # 2 / 2^7 = 0.016 > 0.05 / 12
        ([entry(9, 0)] + [entry(0, 0)] * 11, True),  # 2 / 2^9 = 0.0039
    ],
)
def test_leaking_is_attacked_images_that_are_easier_than_chance(entries, expected):
    assert leaks(record(*entries)) == expected


def test_threshold_is_that_of_the_exact_test():
    assert scipy.stats.binomtest(8, 9).pvalue < 0.05 < scipy.stats.binomtest(7, 8).pvalue


def test_table_marks_who_leaks_and_says_why():
    leaking, sound = record(entry(40, 0)), record(entry(0, 40), target="T_Ens+Div")
    plain = record(target="T_Base")
    for text in (table_markdown([leaking, sound, plain]), table_text([leaking, sound, plain])):
        words = " ".join(text.split())
        assert f"T_Ens {MARK}" in text and f"T_Ens+Div {MARK}" not in text and f"T_Base {MARK}" not in text
        told = f"own static models, %: fgsm on plain at 0.3 95.0 (clean 75.0) {MARK}"
        assert f"T_Ens {MARK} on test images of its {told}" in words
        assert (
            "T_Ens+Div on test images of its own static models, %: fgsm on plain at 0.3 75.0 (clean 95.0)"
            in words
        )
        assert words.count("label leaking:") == 1 and "T_Base on test images" not in words


def test_each_test_of_a_row_is_held_to_the_tests_of_its_own_record():
    one, two = record(entry(8, 1)), record(entry(8, 1), entry(0, 9, epsilon=0.1))
    words = " ".join(table_markdown([one, dataclasses.replace(two, seed=1)]).split())
    told = "fgsm on plain at 0.3 79.0 (clean 75.5)"
    assert f": {told} {MARK}, {told}, fgsm on plain at 0.1 75.0 (clean 79.5)" in words


def test_json_tells_of_leaking_in_its_caption():
    (table,) = json.loads(table_json([record(entry(40, 0)), record(target="T_Base")]))
    assert any(f"fgsm on plain at 0.3 95.0 (clean 75.0) {MARK}" in line for line in table["caption"])
    assert any(line.startswith(f"{MARK} label leaking:") for line in table["caption"])


def test_table_without_leaking_explains_no_mark():
    text = table_markdown([record(entry(0, 40)), record(target="T_Base")])
    assert MARK not in text and "label leaking" not in text


def test_records_keep_what_was_found_and_older_ones_lack_it():
    kept = record(entry(40, 0))
    assert TargetRecord.from_json(kept.to_json()).on_static_models == kept.on_static_models
    older = kept.to_json()
    del older["on_static_models"]
    assert TargetRecord.from_json(older).on_static_models == ()
