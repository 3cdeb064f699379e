import pytest
from evaluation_records import record

from divtf.errors import InputError
from divtf.reporting import published
from divtf.storage.records import CLEAN, TargetRecord, TransferResult


def test_insert_replaces_only_between_the_marks():
    page = "a\n<!-- t -->\nold\n<!-- /t -->\nb"
    assert published.insert(page, "t", "new", "page.md") == "a\n<!-- t -->\n\nnew\n\n<!-- /t -->\nb"


@pytest.mark.parametrize("page", ["no marks", "<!-- /t -->\n<!-- t -->\n", "<!-- t -->\n<!-- /t -->\n" * 2])
def test_insert_without_one_pair_of_marks_is_refused(page):
    with pytest.raises(InputError, match=r"Expected the marks <!-- t --> and <!-- /t --> once in page\.md"):
        published.insert(page, "t", "new", "page.md")


def test_title_is_the_first_heading_of_the_first_level():
    page = "<!-- x -->\n\n## Before\n\n# MNIST, Conv-3\n\n# Figures\n"
    assert published.page_title(page) == "MNIST, Conv-3"


def test_a_page_made_for_a_result_takes_its_text():
    page = published.insert(published.blank_page("mine", "Mine"), "mine", "new", "page.md")
    assert published.page_title(page) == "Mine" and "\nnew\n" in page


def test_outputs_are_of_known_kinds_and_no_file_has_two_makers():
    records = [kind.file for kind in published.KINDS.values()]
    assert {output.kind for output in published.OUTPUTS.values()} <= set(published.KINDS)
    assert len(set(records)) == len(records) and not set(records) & set(published.OUTPUTS)


def test_a_target_whose_gradients_seem_masked_has_its_mark_at_the_papers_table_and_in_the_index():
    """Where its evaluation is published beside; no other target has one."""
    failed = {"name": "gradients", "passed": False, "figure": 0.5, "sentence": "Half of them are zero."}
    results = [TransferResult("", "S", "fgsm", 0.1, 30, 100), TransferResult("", "", CLEAN, 0.0, 90, 100)]
    told = {
        "table": [TargetRecord(name, "conv3", "mnist", 0, results=results) for name in ("T_Base", "T_Div")],
        "evaluation": [record("T_Base", []), record("T_Div", [], checks=(failed,))],
    }
    section, index = published.section(told), published.index_section({"r": told}, {"r": "Result"})
    table = section[: section.index("what is left")]
    assert "| T_Div †, ours |" in table and "| T_Base, ours |" in table
    assert "- † T_Div: an evaluation has found signs of masked gradients" in table
    assert "T_Base 30.0, T_Div † 30.0" in index
    assert "†" not in published.section({"table": told["table"]})
