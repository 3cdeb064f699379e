"""Pages in a real browser: what is drawn equals the records, clicks sort and switch, nothing overflows."""

import dataclasses
import datetime
import re
import shutil

import page_records
import pytest
from page_records import COUNTS, EPSILONS, HOSTILE, RESULT

from divtf.reporting.page.content import Result
from divtf.reporting.page.index import entry_of, write_index
from divtf.reporting.page.writing import write_page
from divtf.storage.records import WORST_CASE

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright, of the extra `dev`")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason=f"needs a browser on the PATH, one of {', '.join(NAMES)}: apt-get install chromium",
)
WIDTHS = (390, 1440)
# Right ends beyond the window, of what is shown outside boxes that scroll by themselves.
OVERFLOWING = """() => [...document.querySelectorAll("body *")]
  .filter((each) => !each.closest(".scroll, .words, .skip, script, [hidden]"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5)
  .map((each) => each.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A page of records of every kind, one of a table alone, and their index."""
    root = tmp_path_factory.mktemp("pages")
    other = Result(
        "other",
        {
            "table": [
                dataclasses.replace(each, dataset="cifar10", model="mix") for each in page_records.TABLE[:1]
            ]
        },
    )
    entries = []
    for name, result in {"small": RESULT, "other": other}.items():
        path = write_page(root / name, result)
        date = datetime.date(2026, 11, 26 if name == "small" else 25)
        entries.append(entry_of(result, name, path.relative_to(root).as_posix(), date))
    write_index(root, entries)
    return root


@pytest.fixture
def opened(browser, root):
    """`opened("small/report.html", width)`: the page, drawn; it must not complain, nor ask a network."""
    contexts, complaints = [], []

    def open_page(name, width=1440, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: complaints.append(request.url) if "http" in request.url else None)
        shown.on("dialog", lambda dialog: complaints.append(dialog.message))
        shown.goto((root / name).as_uri())
        if name != "index.html":
            shown.wait_for_selector("html[data-drawn]", state="attached")
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def table(shown, caption):
    return shown.locator("table").filter(has=shown.locator(f"caption:text-is({caption!r})")).first


def column(shown, caption, place):
    """The texts of a column of the lines that are shown."""
    cells = table(shown, caption).locator(f"tbody tr:visible > :nth-child({place})")
    return [text.split("\n")[0].split(" ▾")[0].strip() for text in cells.all_inner_texts()]


TABLE = "Accuracy in percent, conv3 on mnist"
WRITTEN = {"T_Base": "T_Base †", "T_Div": "T_Div"}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["small/report.html", "other/report.html", "index.html"])
def test_nothing_overflows_and_nothing_complains(opened, name, width):
    shown = opened(name, width)
    for part in shown.locator("details").all():
        part.evaluate("part => { part.open = true; }")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate(OVERFLOWING) == []
    assert shown.title() != "hostile"


def test_figures_in_the_table_equal_the_records(opened):
    shown = opened("small/report.html")
    targets = column(shown, TABLE, 1)
    epsilons = list(map(float, column(shown, TABLE, 2)))
    assert list(zip(targets, epsilons, strict=True)) == [
        (WRITTEN[t], e) for t in ("T_Base", "T_Div") for e in EPSILONS
    ]
    targets = [target.removesuffix(" †") for target in targets]
    for place, attack in {4: "fgsm", 5: "pgd_cw", 6: WORST_CASE}.items():
        expected = [
            f"{10 * COUNTS[t, attack][EPSILONS.index(e)]:.1f}" for t, e in zip(targets, epsilons, strict=True)
        ]
        assert column(shown, TABLE, place) == expected


def drawn_points(shown, title):
    """The words of the points in a chart's picture, as a screen reader meets them, by heights in pixels."""
    chart = shown.locator("figure").filter(has=shown.locator(f"h4:text-is({title!r})")).first
    marks = chart.locator("svg g.mark-symbol.role-mark path[aria-label]")
    return marks.evaluate_all(
        "marks => marks.map(mark => [mark.getAttribute('aria-label'), mark.getBoundingClientRect()])"
        ".map(([words, box]) => [words, box.top + box.height / 2 + scrollY])"
    )


def test_points_of_a_chart_stand_where_the_records_say(opened):
    """Heights in the picture are those of the axis's own numbers: 9 right clean, then those of the counts."""
    shown = opened("small/report.html")
    drawn = dict(drawn_points(shown, "fgsm"))
    expected = {}
    for target in ("T_Base", "T_Div"):
        for epsilon, right in zip((0, *EPSILONS), (9, *COUNTS[target, "fgsm"]), strict=True):
            (words,) = [
                w
                for w in drawn
                if w.startswith(f"{WRITTEN[target]}, fgsm, epsilon {epsilon:g}: {10 * right:.1f} %")
            ]
            assert words.endswith(f"{right} of 10")
            expected[words] = right
    assert set(drawn) == set(expected)
    chart = shown.locator("figure").filter(has=shown.locator("h4:text-is('fgsm')")).first
    places = {}
    for number in ("20", "80"):
        box = (
            chart.locator("svg g.role-axis-label text")
            .filter(has_text=re.compile(f"^{number}$"))
            .bounding_box()
        )
        places[number] = box["y"] + box["height"] / 2 + shown.evaluate("scrollY")
    height = (places["20"] - places["80"]) / 60
    assert height > 1
    for words, right in expected.items():
        above = places["20"] - (10 * right - 20) * height
        assert drawn[words] == pytest.approx(above, abs=2), words


def test_ticks_are_plain_numbers(opened):
    shown = opened("small/report.html")
    figure = shown.locator("figure").filter(has=shown.locator("figcaption", has_text="queries of Square"))
    labels = figure.first.locator("svg g.role-axis-label").first.locator("text")
    assert labels.all_text_contents() == ["0", "1", "10", "100", "500"]


def test_histograms_reach_as_high_as_they_should(opened):
    """Areas are not stacked where both have values: the highest point of each is that of its line."""
    shown = opened("small/report.html")
    title = "Mean T_Base † 0.80, T_Div 0.10"
    figure = shown.locator("figure").filter(has=shown.locator(f"h4:text-is({title!r})"))
    tops = "marks => marks.map(mark => mark.getBBox().y)"
    areas = figure.locator("svg g.mark-area path[d]").evaluate_all(tops)
    lines = figure.locator("svg g.mark-line path[d]").evaluate_all(tops)
    assert len(areas) == len(lines) == 2
    assert sorted(areas) == pytest.approx(sorted(lines), abs=1)


def test_a_click_sorts_up_and_down(opened):
    shown = opened("small/report.html")
    button = table(shown, TABLE).get_by_role("button", name="fgsm")
    head = button.locator("xpath=..")
    button.click()
    values = list(map(float, column(shown, TABLE, 4)))
    assert values == sorted(values) and head.get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert list(map(float, column(shown, TABLE, 4))) == values[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    table(shown, TABLE).get_by_role("button", name="target").click()
    assert column(shown, TABLE, 1) == ["T_Base †", "T_Base †", "T_Div", "T_Div"]
    assert head.get_attribute("aria-sort") is None


def test_a_switch_hides_a_target_everywhere_and_shows_it_again(opened):
    shown = opened("small/report.html")
    before = dict(drawn_points(shown, "fgsm"))
    switch = shown.get_by_role("checkbox", name="T_Base")
    switch.uncheck()
    assert set(column(shown, TABLE, 1)) == {"T_Div"}
    shown.wait_for_function(
        "n => document.querySelectorAll('[aria-label^=\"T_Base †, fgsm\"]').length === n", arg=0
    )
    left = [words for words, _ in drawn_points(shown, "fgsm")]
    assert len(left) == 3 and all(words.startswith("T_Div") for words in left)
    assert shown.locator("h4:visible", has_text="T_Base †, seed 0: pgd").count() == 0
    assert shown.locator("[data-target='T_Base']:visible").count() == 0
    transfer = shown.locator("table", has=shown.locator("th", has_text="images of ↓")).first
    heads = transfer.locator("thead th:visible").all_inner_texts()
    assert heads[1:] and not any("T_Base" in head for head in heads)
    rows = transfer.locator("tbody tr:visible")
    assert not any("T_Base" in head for head in rows.locator("th").all_inner_texts())
    assert rows.first.locator("td:visible").count() == len(heads) - 1
    switch.check()
    shown.wait_for_function(
        "n => document.querySelectorAll('[aria-label^=\"T_Base †, fgsm\"]').length === n", arg=3
    )
    assert dict(drawn_points(shown, "fgsm")) == pytest.approx(before)


def test_the_papers_figures_come_when_asked_for(opened):
    shown = opened("small/report.html")
    figure = table(shown, TABLE).locator(".paper-figure").first
    assert not figure.is_visible()
    shown.get_by_role("checkbox", name="the paper's figures").check()
    assert figure.is_visible() and re.fullmatch(r"paper [\d.]+, [+-][\d.]+", figure.inner_text())


def test_hovering_tells_counts_and_interval(opened):
    shown = opened("small/report.html")
    mark = shown.locator("svg [aria-label^='T_Div, fgsm, epsilon 0.3']").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = shown.locator("#tip")
    tip.wait_for(state="visible")
    assert tip.inner_text() == mark.get_attribute("aria-label")
    assert "[16.8-68.7], 4 of 10" in tip.inner_text()


def test_a_screen_reader_meets_tables_headings_and_pictures_with_words(opened):
    shown = opened("small/report.html")
    assert shown.get_by_role("heading", level=1).inner_text() == f"small {HOSTILE}"
    assert shown.get_by_role("table", name=TABLE).count() == 1
    first = shown.get_by_role("table", name=TABLE)
    assert first.get_by_role("columnheader").count() == 7
    assert first.get_by_role("rowheader").all_inner_texts() == ["T_Base †"] * 2 + ["T_Div"] * 2
    assert "strongest attack" in first.text_content()
    images = shown.locator("img").evaluate_all("all => all.map(each => [each.alt, each.naturalWidth])")
    assert images and all(words and width == 1 for words, width in images)
    charts = shown.locator("figure [role=graphics-document]")
    assert charts.count() == shown.locator("figure").count()
    assert all(charts.evaluate_all("all => all.map(each => each.getAttribute('aria-label'))"))
    unnamed = "all => all.filter(each => !each.closest('label')).length"
    assert shown.locator("input").evaluate_all(unnamed) == 0


def test_print_has_what_the_figures_say_of_themselves(opened):
    shown = opened("small/report.html")
    bullet = (
        shown.get_by_text("Command: train it").or_(shown.get_by_text("Command of T_Div: train T_Div")).first
    )
    assert not bullet.is_visible()
    shown.emulate_media(media="print")
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert bullet.is_visible()
    shown.set_viewport_size({"width": 688, "height": 900})  # A4 without its margins.
    assert shown.evaluate(OVERFLOWING) == []
    cut = "all => all.filter(each => each.getBoundingClientRect().right > innerWidth).length"
    assert table(shown, TABLE).evaluate_all(cut) == 0
    assert table(shown, "What is left under protocol strong, in percent").evaluate_all(cut) == 0
    shown.evaluate("dispatchEvent(new Event('afterprint'))")
    shown.emulate_media(media="screen")
    assert not bullet.is_visible()
    assert shown.pdf(format="A4").startswith(b"%PDF")


def test_the_index_is_filtered_and_leads_to_pages(opened):
    shown = opened("index.html")
    results = shown.locator(".results > li:visible")
    assert results.locator("h2").all_inner_texts() == ["small", "other"], "the newest first"
    shown.get_by_label("defence").select_option("T_Div")
    assert results.locator("h2").all_inner_texts() == ["small"]
    assert shown.locator("#count").inner_text() == "1"
    shown.get_by_label("defence").select_option("")
    shown.get_by_label("data set").select_option("cifar10")
    assert results.locator("h2").all_inner_texts() == ["other"]
    shown.get_by_label("model").select_option("conv3")
    assert results.count() == 0
    shown.get_by_label("data set").select_option("")
    picture = results.locator("svg.thumb").get_attribute("aria-label")
    assert "T_Div: 87.5 % at 0, 50.0 % at 0.1, 50.0 % at 0.3." in picture
    results.get_by_role("link").click()
    shown.wait_for_selector("html[data-drawn]", state="attached")
    assert shown.url.endswith("small/report.html")
