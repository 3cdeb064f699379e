"""Pages from records made by hand: every figure is worked out here, or by SciPy, and names stay text."""

import dataclasses
import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import page_records
import pytest
import scipy.stats
from page_records import COHERENCE, COSINES, COUNTS, EPSILONS, EXAMPLES, HOSTILE, RESULT, SURROGATE, TABLE

from divtf.data import paper
from divtf.reporting.evaluation import evaluation_markdown
from divtf.reporting.markdown import table_markdown
from divtf.reporting.page import bundle, findings
from divtf.reporting.page.content import Result, sections
from divtf.reporting.page.specs import styles
from divtf.reporting.page.writing import page
from divtf.reporting.published import KINDS
from divtf.storage.records import WORST_CASE

TESTS = Path(__file__).parents[1]
NBSP = "\N{NO-BREAK SPACE}"


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: tables by caption, charts by title, scripts, links, all its text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.charts, self.scripts, self.links, self.tags = {}, {}, [], [], []
        self.text, self.alts, self.labels, self.images = [], [], [], 0
        self._open, self._title, self._cell, self._chart = [], [], None, ""
        self.feed(text)
        self.close()
        assert not self._open, self._open

    VOID = ("meta", "link", "img", "input", "br")
    DRAWN = ("path", "polyline")

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.links += [values[name] for name in ("src", "href", "data", "action") if name in values]
        self.labels += [values["aria-label"]] if "aria-label" in values else []
        if tag == "img":
            self.alts.append(values["alt"])
        if tag not in self.VOID and tag not in self.DRAWN:
            self._open.append((tag, values))
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._cell = {"text": "", "small": "", "paper": "", "key": values.get("data-key")}
            self._cell["strong"] = "strong" in values.get("class", "").split()
            self._rows[-1].append(self._cell)
        if tag in ("caption", "h4", "script"):
            self._title = []

    def handle_startendtag(self, tag, attrs):
        assert tag in self.DRAWN, tag

    def handle_endtag(self, tag):
        if tag in self.DRAWN:
            return
        opened, values = self._open.pop()
        assert opened == tag, (opened, tag)
        title = "".join(self._title)
        if tag == "caption":
            self.caption = title
        if tag == "h4":
            self._chart = title
        if tag == "script":
            if values.get("type") == "application/json":
                self.charts.setdefault(self._chart, []).append(json.loads(title))
            else:
                self.scripts.append(title)
        if tag in ("td", "th"):
            self._cell = None
        if tag == "table":
            self.tables.setdefault(self.caption, []).append(self._rows)

    def handle_data(self, data):
        tag, values = self._open[-1] if self._open else ("", {})
        if tag in ("caption", "h4", "script"):
            self._title.append(data)
        if tag not in ("script", "style"):
            self.text.append(data)
        kind = values.get("class", "")
        if self._cell is not None and kind != "words" and values.get("aria-hidden") != "true":
            place = {"small": "small", "span": "paper"}.get(tag, "text")
            self._cell[place] += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def grid(self, caption, place=0):
        """The cells of a table by the first two of its line and by its head."""
        head, *rows = self.tables[caption][place]
        names = [cell["text"].strip() for cell in head]
        return names, [{name: cell for name, cell in zip(names, row, strict=True)} for row in rows]


@pytest.fixture(scope="module")
def text():
    return page(RESULT)


@pytest.fixture(scope="module")
def seen(text):
    return Page(text)


def interval(right, total):
    found = scipy.stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    return 100 * found.low, 100 * found.high


def spread(right, total):
    low, high = interval(right, total)
    return f"[{low:.1f}-{high:.1f}]"


def lines_of(seen, caption):
    """(target, epsilon) -> the cells of its line."""
    _, rows = seen.grid(caption)
    return {(row["target"]["text"].split()[0], float(row["epsilon"]["text"])): row for row in rows}


def points(seen, title, place=0):
    return seen.charts[title][place]["data"]["values"]


class TestFile:
    def test_it_is_small_and_needs_nothing_else(self, text, seen):
        assert len(text.encode()) < 3_000_000
        assert all(link.startswith(("#", "data:")) for link in seen.links), seen.links
        (policy,) = [v["content"] for t, v in seen.tags if v.get("http-equiv") == "Content-Security-Policy"]
        assert "default-src 'none'" in policy and "http" not in policy
        assert "@import" not in text.split("</style>")[0]

    def test_links_lead_somewhere_on_the_page(self, seen):
        ids = [values["id"] for _, values in seen.tags if "id" in values]
        assert len(ids) == len(set(ids))
        assert {link[1:] for link in seen.links if link.startswith("#")} <= set(ids)

    def test_names_stay_text(self, text, seen):
        """Two scripts: the library and the page's own. A browser meets no other tag of a name either."""
        assert len(seen.scripts) == 2
        assert not [values for tag, values in seen.tags if tag == "img" and values.get("src") == "x"]
        assert not [name for _, values in seen.tags for name in values if name.startswith("on")]
        assert HOSTILE in seen.words and SURROGATE in seen.words

    def test_a_chart_of_a_hostile_target_does_not_end_its_script(self):
        hostile = dataclasses.replace(TABLE[1], target=HOSTILE)
        seen = Page(page(Result("t", {"table": [TABLE[0], hostile]})))
        assert len(seen.scripts) == 2
        named = {point["target"] for point in points(seen, "fgsm")}
        assert named == {"T_Base", HOSTILE}

    def test_the_library_cannot_end_its_script(self):
        assert bundle.inside_script("a='</script>';b='<!--'") == "a='<\\/script>';b='<\\!--'"
        assert "</script" not in bundle.charting_library()

    def test_no_tensorflow_is_needed(self):
        code = (
            "import sys, page_records\n"
            "from divtf.reporting.page import writing\n"
            "from divtf.pipeline import indexed\n"
            "assert '</html>' in writing.page(page_records.RESULT)\n"
            "assert not {'tensorflow', 'keras', 'ray'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def test_nothing_to_show_is_refused(self):
        with pytest.raises(ValueError, match="at least one record"):
            page(Result("t", {}))

    def test_a_target_has_one_colour_whatever_else_a_chart_shows(self):
        """T_Noise is in the table alone, so that T_Detect is first elsewhere."""
        records = {
            "table": [dataclasses.replace(TABLE[0], target=name) for name in ("T_Noise", "T_Detect")],
            **{
                kind: [dataclasses.replace(RESULT.records[kind][0], target="T_Detect")]
                for kind in ("evaluation", "gaas", "sparsity")
            },
        }
        (section,) = sections(Result("t", records))
        own = section.targets["T_Detect"]
        assert own.colour != section.targets["T_Noise"].colour
        legends = {block.name: block.legend for block in section.blocks if "T_Detect" in (block.legend or ())}
        assert {"accuracy", "evaluation-strong-queries", "coherence", "gaas", "sparsity"} <= set(legends)
        assert {legend["T_Detect"].colour for legend in legends.values()} == {own.colour}
        drawn = [
            (block.name, layer["encoding"]["color"]["scale"])
            for block in section.blocks
            if block.name in legends
            for chart in block.charts
            for layer in chart.spec["layer"]
            if "color" in layer["encoding"]
        ]
        assert {name for name, _ in drawn} == set(legends)
        for _, scale in drawn:
            assert dict(zip(scale["domain"], scale["range"], strict=True))["T_Detect"] == own.colour


class TestFinding:
    def test_the_widest_attack_stands_at_the_top(self, seen):
        """Of 8 images 7 are right clean; all attacks together leave T_Div 3 to 6, T_Base 5 and 6."""
        (found,) = [section.finding for section in sections(RESULT)]
        left = {"T_Div": 4, "T_Base": 2}
        # Only T_Base is fooled on 3 and 4; T_Div alone on none: two images, one way.
        p = scipy.stats.binomtest(2, 2).pvalue
        told = {
            name: f"{12.5 * count:.1f}{NBSP}% ({{}}{low:.1f} to {high:.1f})"
            for name, count in left.items()
            for low, high in [interval(count, 8)]
        }
        div, base = told["T_Div"], told["T_Base"]
        assert found == (
            "Under everything that protocol strong tries, T_Div keeps "
            f"{div.format(f'95{NBSP}% interval ')} of 8 images right at epsilon 0.1, T_Base † "
            f"{base.format('')} (exact McNemar p = {p:.2g}); at 0.3, T_Div {div.format('')} and "
            f"T_Base † {base.format('')}."
        )
        assert " ".join(found.split()) in seen.words.replace(NBSP, " ")

    def test_of_a_table(self):
        low, high = interval(8, 10)
        found = findings.table_finding(TABLE)
        assert found.startswith(
            f"Under all 2 attacks from a surrogate, T_Div keeps 80.0{NBSP}% (95{NBSP}% interval {low:.1f} to "
            f"{high:.1f}) of 10 images right at epsilon 0.1, T_Base 40.0{NBSP}% ("
        )
        # Right with T_Div alone: images 4 to 7; with T_Base alone: none.
        assert f"(exact McNemar p = {2 * 0.5**4:.2g})" in found

    def test_of_several_seeds(self):
        other = dataclasses.replace(
            page_records.table_record("T_Div", seed=1),
            results=tuple(
                dataclasses.replace(each, correct=each.correct - 2, hits="") for each in TABLE[1].results
            ),
        )
        found = findings.table_finding([TABLE[1], other])
        assert f"T_Div keeps 70.0{NBSP}% (± {100 * np.std([0.6, 0.8], ddof=1):.1f} over 2 seeds)" in found

    def test_of_clean_images_alone(self):
        records = [dataclasses.replace(record, results=record.results[:1]) for record in TABLE]
        found = findings.table_finding(records)
        assert found.startswith(f"On clean images, T_Base keeps 90.0{NBSP}% (") and "epsilon" not in found
        seen = Page(page(Result("t", {"table": records})))
        _, rows = seen.grid("Accuracy in percent, conv3 on mnist")
        assert [row["clean"]["text"] for row in rows] == ["90.0", "90.0"]

    def test_of_a_comparison_stands_beside_its_reference(self):
        records = [*page_records.COMPARED, dataclasses.replace(page_records.COMPARED[0], target="T_Ens")]
        assert ", T_Base † 25.0" in findings.comparison_finding(records)
        records = [dataclasses.replace(record, reference="T_Ens") for record in records]
        assert ", T_Ens † 25.0" in findings.comparison_finding(records)

    def test_what_limits_it_stands_beside_it(self, seen):
        (section,) = sections(RESULT)
        assert section.caveats.startswith("One seed; REDUCED: less than the paper's budget")
        assert section.caveats in seen.words

    def test_who_may_be_no_stronger_than_it_seems(self):
        """T_Ens has 6 more images right because they are attacked, p = 2 / 2^6; T_Ens+Div tells of none."""
        entry = {
            "model": "plain",
            "attack": "fgsm",
            "epsilon": 0.3,
            "total": 10,
            "right": 9,
            "right clean": 3,
        }
        leaking = dataclasses.replace(
            TABLE[0], target="T_Ens", on_static_models=(entry | {"only attacked": 6, "only clean": 0},)
        )
        silent = dataclasses.replace(TABLE[0], target="T_Ens+Div", seed=1)
        failed = {"name": "gradients", "passed": False, "figure": 0.5, "sentence": "Half of them are zero."}
        masked = dataclasses.replace(RESULT.records["evaluation"][0], target="T_Div", checks=(failed,))
        assert findings.caveats({"table": [leaking, silent], "evaluation": [masked]}) == (
            "REDUCED: less than the paper's budget; T_Ens \N{DOUBLE DAGGER} leaks labels: what it keeps "
            "under attack may tell nothing of robustness; these records hold no test for label leaking of "
            "T_Ens+Div; T_Div \N{DAGGER} shows signs of masked gradients."
        )

    @pytest.mark.parametrize(
        ("target", "budget", "said"),
        [
            ("T_Ens", {}, True),
            ("T_Div", {}, False),
            ("T_Ens", {"static attack": "step_ll"}, False),
            ("T_Ens (both)", {"static attack": "step_ll, fgsm"}, True),
            ("T_Ens (two)", {"static attack": "step_ll, mifgsm_ll"}, False),
        ],
    )
    def test_leaking_that_records_do_not_tell_of(self, target, budget, said):
        record = dataclasses.replace(TABLE[0], target=target, budget=budget)
        assert ("these records hold no test" in findings.caveats({"table": [record]}).lower()) == said


class TestTables:
    def test_table_2(self, seen):
        found = lines_of(seen, "Accuracy in percent, conv3 on mnist")
        assert set(found) == {(target, epsilon) for target in COHERENCE for epsilon in EPSILONS}
        for (target, attack), counts in COUNTS.items():
            for epsilon, right in zip(EPSILONS, counts, strict=True):
                cell = found[target, epsilon][attack.replace(WORST_CASE, "worst case")]
                assert cell["text"].strip() == f"{10 * right:.1f}"
                assert cell["small"] == spread(right, 10)
                assert float(cell["key"]) == pytest.approx(10 * right)
                least = min(COUNTS[target, name][EPSILONS.index(epsilon)] for name in ("fgsm", "pgd_cw"))
                assert cell["strong"] == (attack != WORST_CASE and right == least)
        assert found["T_Div", 0.1]["clean"]["small"] == spread(9, 10)

    def test_the_papers_figures_wait_beside_ours(self, seen):
        found = lines_of(seen, "Accuracy in percent, conv3 on mnist")
        for (target, attack), counts in COUNTS.items():
            for epsilon, right in zip(EPSILONS, counts, strict=True):
                cell = found[target, epsilon][attack.replace(WORST_CASE, "worst case")]
                published = paper.paper_accuracy("conv3", target, attack, epsilon)
                told = "" if published is None else f"paper {published:.1f}, {10 * right - published:+.1f}"
                assert cell["paper"] == told
        assert "data-paper" in str(seen.tags)

    def test_without_the_papers_figures_there_is_no_switch_for_them(self):
        records = [dataclasses.replace(record, dataset="mnist5k") for record in TABLE]
        assert "data-paper" not in str(Page(page(Result("t", {"table": records}))).tags)

    def test_what_a_protocol_leaves(self, seen):
        found = lines_of(seen, "What is left under protocol strong, in percent")
        # Images that stand: of the 7 right ones, those that none of the kind fools; queries ask the first 4.
        left = {"T_Base": {"transfer": 3, "white box": 2, "everything": 2}}
        left["T_Div"] = {"transfer": 5, "white box": 6, "everything": 4}
        for target, counts in left.items():
            mark = "†" if target == "T_Base" else ""
            for name, count in counts.items():
                cell = found[target, 0.1][name]
                assert (cell["text"], cell["small"]) == (f"{12.5 * count:.1f}{mark}", spread(count, 8)), name
            assert found[target, 0.1]["Square"]["small"] == spread(3, 4)

    def test_a_comparison(self):
        records = page_records.RECORDS | {"comparison": page_records.COMPARED}
        seen = Page(page(dataclasses.replace(RESULT, records=records)))
        found = lines_of(seen, "What is left of each, in percent, beside T_Base")
        row = found["T_Div", 0.1]
        assert (row["on plain"]["text"], row["on other"]["text"], row["everything"]["text"]) == (
            *("75.0", "75.0", "50.0"),
        )
        assert row["against T_Base †"]["text"].startswith("+25.0, p = 0.5")
        assert row["coherence"]["text"] == f"{np.mean(COHERENCE['T_Div']):.2f}"
        assert row["hours"]["text"] == "0.5"
        assert found["T_Base", 0.1]["target"]["text"] == "T_Base †"

    def test_classes_and_checks(self, seen):
        _, rows = seen.grid("T_Div, seed 0: percent of images of each class, worst first")
        assert [(row["class"]["text"], row["clean"]["text"], row["clean"]["small"]) for row in rows] == [
            ("two", "80.0", "of 5"),
            (HOSTILE, "100.0", "of 5"),
        ]
        _, rows = seen.grid("T_Base, seed 0, at epsilon 0.1 if no other is named")
        assert [row["passed"]["text"].strip() for row in rows] == ["yes", "no †"]
        assert rows[1]["what was found"]["text"] == "It fools & wins."

    def test_detection(self, seen):
        """A line with a mark at its target's name is that target's still: the switch hides it."""
        _, rows = seen.grid("Images that are flagged")
        names = [row["target"]["text"].strip() for row in rows]
        assert names == ["T_Base †", "T_Base †", "T_Div", "T_Div"]
        assert rows[0]["flagged of all, %"]["text"] == "50.0 [40.0-60.0] / 62.5 [52.5-72.5]"
        blocks = [block for section in sections(RESULT) for block in section.blocks]
        (block,) = [block for block in blocks if block.title == "Protocol strong: detection"]
        assert [line.target for line in block.grids[0].lines] == ["T_Base"] * 2 + ["T_Div"] * 2

    def test_detection_of_nothing_is_not_there(self):
        nothing = {"clean": {"images": 8, "right": 0}, "attacks": {}, "curves": []}
        records = [dataclasses.replace(each, detection=nothing) for each in RESULT.records["evaluation"]]
        assert "detection" not in Page(page(Result("t", {"evaluation": records}))).words

    def test_transfer_matrix(self, seen):
        _, rows = seen.grid("epsilon 0.1")
        corner = "images of ↓, accuracy of →"
        shown = {row[corner]["text"]: (row["T_Base †"]["text"], row["T_Div"]["text"]) for row in rows}
        assert shown == {
            "T_Base": ("10.0", "90.0"),
            "T_Div": ("80.0", "20.0"),
            "surrogate": ("50.0", "70.0"),
        }

    def test_pair_cosines(self, seen):
        for target, cosine in COSINES.items():
            _, rows = seen.grid({"T_Base": "T_Base †"}.get(target, target))
            assert [[row[name]["text"] for name in ("1", "2")] for row in rows] == [
                ["1.00", f"{cosine:.2f}"],
                [f"{cosine:.2f}", "1.00"],
            ]

    def test_text_on_colours_can_be_read(self, seen):
        """WCAG 2: a contrast of 4.5 at least, (L1 + 0.05) / (L2 + 0.05)."""

        def luminance(colour):
            parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
            linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
            return np.dot(linear, [0.2126, 0.7152, 0.0722])

        styled = [v["style"] for tag, v in seen.tags if tag == "td" and "style" in v]
        assert len(styled) == 2 * 4 + 6
        for style in styled:
            dark, light = sorted(map(luminance, re.findall(r"#[0-9a-f]{6}", style)))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, style


class TestCharts:
    @pytest.mark.parametrize(
        ("title", "attack"),
        [("worst case of all attacks", WORST_CASE), ("fgsm", "fgsm"), ("pgd_cw", "pgd_cw")],
    )
    def test_accuracy_against_epsilon(self, seen, title, attack):
        found = {}
        for point in points(seen, title):
            found.setdefault(point["target"], []).append(point)
        for target, drawn in found.items():
            rights = [9, *COUNTS[target, attack]]
            assert [point["y"] for point in drawn] == [10 * right for right in rights]
            for point, right in zip(drawn, rights, strict=True):
                assert (point["low"], point["high"]) == pytest.approx(interval(right, 10), abs=1e-3)
                assert f"{spread(right, 10)}, {right} of 10" in point["words"]
            assert [point["x"] for point in drawn] == pytest.approx([0, *EPSILONS], abs=0.003)
        assert set(found) == {"T_Base", "T_Div"}

    def test_accuracy_against_queries(self, seen):
        """Of four images that are asked about one falls after 5 queries."""
        (title,) = [t for t in seen.charts if t == "epsilon 0.1"]
        drawn = [point for point in points(seen, title) if point["target"] == "T_Div"]
        assert [(point["x"], point["y"]) for point in drawn] == [(0, 100), (5, 75), (500, 75)]

    def test_histograms_of_coherence(self, seen):
        (title,) = [title for title in seen.charts if title.startswith("Mean T_Base")]
        assert title == "Mean T_Base † 0.80, T_Div 0.10"
        for target, values in COHERENCE.items():
            drawn = [point for point in points(seen, title) if point["target"] == target]
            edges = np.array([point["x"] for point in drawn])
            widths = np.diff(edges)
            shares = np.array([point["y"] for point in drawn[:-1]]) * widths
            assert shares.sum() == pytest.approx(1, abs=1e-2)
            for edge, width, share in zip(edges, widths, shares, strict=False):
                inside = sum(edge <= value < edge + width for value in values)
                assert share == pytest.approx(inside / len(values), abs=0.01)
        rows = seen.grid("Coherence")[1]
        assert sum(int(row["images"]["text"]) for row in rows) == 8

    def test_histograms_are_not_stacked(self, seen):
        (title,) = [title for title in seen.charts if title.startswith("Mean T_Base")]
        areas = [each for each in seen.charts[title][0]["layer"] if each["mark"]["type"] == "area"]
        assert [each["encoding"]["y"]["stack"] for each in areas] == [None]

    def test_directions(self, seen):
        drawn = points(seen, "epsilon 0.1", 1)
        assert len(drawn) == 2 * (4 + 16)
        for point in drawn:
            scale = {"T_Base": 2, "T_Div": 1}[point["target"]]
            assert point["y"] == pytest.approx(scale * 0.1 / point["x"], abs=1e-4)

    def test_detection(self, seen):
        title = "T_Div, seed 0: pgd on the target, 4 images that fool"
        drawn = [point for point in points(seen, title) if point["series"] == "disagreement"]
        # The least share of false alarms is half a clean image of 8.
        assert [(point["x"], point["y"]) for point in drawn] == [
            *((0.0625, 0), (0.0625, 0.5), (0.25, 0.75), (1, 1)),
        ]
        _, rows = seen.grid(title)
        assert rows[0]["area under it"]["text"] == "0.812"
        assert rows[0]["flagged at 5 % false alarms, %"]["text"] == "62.5 [52.5-72.5]"

    def test_every_chart_has_words_and_a_table(self, seen):
        specs = [spec for charts in seen.charts.values() for spec in charts]
        assert len(specs) == 3 + 2 + 1 + 2 + 2 + 1
        for spec in specs:
            assert spec["description"] in seen.words
        figures = [tag for tag, _ in seen.tags if tag == "figure"]
        assert len(figures) == len(specs)

    def test_targets_differ_in_more_than_colour(self):
        found = styles([f"T{number}" for number in range(7)])
        for part in ("colour", "shape", "dash"):
            assert len({getattr(style, part) for style in found.values()}) == 7


class TestImages:
    def test_predictions_of_every_member(self, seen):
        assert len(seen.alts) == 6
        assert seen.alts[:2] == [
            f"clean, labelled {HOSTILE}, classified as {HOSTILE}",
            f"pgd_cw, epsilon 0.1, labelled {HOSTILE}, classified as {HOSTILE}",
        ]
        assert seen.alts[3] == f"pgd_cw, epsilon 0.1, labelled {HOSTILE}, classified as two"
        assert seen.words.count("two ✗") == 1 + 3
        assert f"members: {HOSTILE} ✓, two ✗" in seen.words

    def test_records_come_back(self):
        (record,) = EXAMPLES
        again = type(record).from_json(json.loads(json.dumps(record.to_json())))
        assert again == record

    @pytest.mark.parametrize("change", [{"label": "0"}, {"seen": [{"attack": "x"}]}, {"number": None}])
    def test_other_types_are_refused(self, change):
        values = json.loads(json.dumps(EXAMPLES[0].to_json()))
        values["examples"][0] |= change
        with pytest.raises((ValueError, KeyError, TypeError)):
            type(EXAMPLES[0]).from_json(values)


def sentences(markdown):
    return [
        line[2:].replace("**bold**", "bold with ▾") for line in markdown.splitlines() if line.startswith("- ")
    ]


class TestOrigins:
    @pytest.mark.parametrize("kind", ["table", "evaluation", "gaas", "transfer_matrix", "sparsity"])
    def test_every_line_of_todays_captions_is_there(self, kind):
        """On a page of that kind alone: kinds have lines in common."""
        records = RESULT.records[kind]
        seen = Page(page(Result("t", {kind: records})))
        texts = {"table": lambda: table_markdown(records), "evaluation": lambda: evaluation_markdown(records)}
        lines = sentences(texts.get(kind, lambda: KINDS[kind].text(records, ()))())
        assert len(lines) >= 4
        for line in lines:
            assert " ".join(line.split()) in seen.words, line

    def test_what_captions_leave_out(self, seen):
        _, surrogates = seen.grid("Surrogates: how each was trained")
        told = {row["surrogate"]["text"]: row for row in surrogates}
        assert {SURROGATE, "plain (protocol strong)", "other (protocol strong)"} <= set(told)
        assert told[SURROGATE]["learning rate"]["text"] == "0.0125"
        assert told["other (protocol strong)"]["epochs"]["text"] == "8"
        assert told[SURROGATE]["clean accuracy on the attacked images"]["text"] == "90.0 %"
        _, hashes = seen.grid("Hashes")
        digests = {row["digest"]["text"] for row in hashes}
        assert {"weights of T_Base", "weights of T_Div", "set of fgsm 0.3", "of ten", "of all"} <= digests
        _, targets = seen.grid("Targets: budget, command and versions")
        values = {(row["name"]["text"], row["of"]["text"]): row["value"]["text"] for row in targets}
        assert values["tensorflow", "all"] == "2.21.0"
        assert values["command", "T_Div, seed 0"] == "train T_Div"
        _, attacks = seen.grid("Attacks, with all settings; a step is a share of epsilon")
        assert ("pgd", "plain; other; the target") in {
            (row["attack"]["text"], row["made on"]["text"]) for row in attacks
        }

    def test_configurations_are_told_where_they_are_known(self):
        configs = {
            "conv3 on mnist": {
                "T_Base, seed 0": {"schedule": "<cosine>"},
                "T_Div, seed 0": {"schedule": "<cosine>"},
            }
        }
        seen = Page(page(dataclasses.replace(RESULT, configs=configs)))
        _, rows = seen.grid("Configuration of each run, every field")
        assert [(r["name"]["text"], r["value"]["text"], r["of"]["text"]) for r in rows] == [
            ("schedule", "<cosine>", "all")
        ]


def test_a_section_for_each_model_and_data_set():
    other = [dataclasses.replace(record, model="conv4", dataset="cifar10") for record in TABLE]
    result = Result("two", {"table": [*TABLE, *other]})
    assert [section.title for section in sections(result)] == ["conv3 on mnist", "conv4 on cifar10"]
    Page(page(result))
