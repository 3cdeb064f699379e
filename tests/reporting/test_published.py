import pytest

from divtf.errors import InputError
from divtf.reporting import published


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
