"""What is published: the kinds of records, the files that are made of them, and the pages that show these."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from divtf.errors import require
from divtf.reporting import captions, report
from divtf.reporting.comparison import comparison_csv, comparison_markdown
from divtf.reporting.evaluation import evaluation_markdown, evaluation_summaries
from divtf.reporting.figures import style
from divtf.reporting.figures.accuracy import accuracy_figure
from divtf.reporting.figures.coherence import coherence_figure
from divtf.reporting.figures.comparison import comparison_figure
from divtf.reporting.figures.gaas import gaas_figure
from divtf.reporting.figures.pair_cosines import pair_cosine_figure
from divtf.reporting.figures.queries import queries_figure
from divtf.reporting.figures.roc import roc_figure
from divtf.reporting.figures.sparsity import sparsity_figure
from divtf.reporting.figures.table import table_figure
from divtf.reporting.figures.transfer_matrix import transfer_matrix_figure
from divtf.reporting.markdown import bullets, table_markdown
from divtf.reporting.marks import marked_tables, name_of
from divtf.reporting.plain_text import table_lines
from divtf.reporting.table_data import table_csv
from divtf.storage.evaluations import QUERY, ComparisonRecord, EvaluationRecord
from divtf.storage.records import (
    GaasRecord,
    Record,
    SparsityRecord,
    TargetRecord,
    TransferMatrixRecord,
    grouped,
)

Published = Mapping[str, Sequence[Any]]
"""Name of a kind -> its records; kinds without records are left out."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """Records of one kind, published as one JSON file.

    Attributes:
        file: the JSON file's name.
        record: the class of the records.
        text: Markdown that says what the records are; `beside`, too, is given, as in `marks.marks`.
    """

    file: str
    record: type[Record]
    text: Callable[[Sequence[Any], Sequence[Record]], str]


@dataclasses.dataclass(frozen=True)
class Output:
    """A file that is made of the records of one kind.

    Attributes:
        kind: a name of `KINDS`.
        title: what it is, for its page.
        make: a picture, or text, from the records and `beside`, as in `marks.marks`.
        shown: whether the page shows it; else it only links to it.
        has_values: whether the records hold values for it; else it is left out.
    """

    kind: str
    title: str
    make: Callable[[Sequence[Any], Sequence[Record]], Figure | str]
    shown: bool = True
    has_values: Callable[[Sequence[Any]], bool] = bool


def _table_text(records: Sequence[TargetRecord], beside: Sequence[Record]) -> str:
    return table_markdown(records, beside, against_paper=True).strip()


def _comparison_text(records: Sequence[ComparisonRecord], beside: Sequence[Record]) -> str:
    return comparison_markdown(records, beside).strip()


def _bullets(
    caption: Callable[[Sequence[Any], Sequence[Record]], Sequence[str]],
) -> Callable[[Sequence[Any], Sequence[Record]], str]:
    """A Markdown list of the caption's lines for each model and data set."""

    def text(records: Sequence[Any], beside: Sequence[Record]) -> str:
        groups = grouped(records, lambda record: record.subject)
        parts = [f"**{name}**\n\n{bullets(caption(group, beside))}" for name, group in groups.items()]
        return "\n\n".join(parts)

    return text


def _table_beside_the_papers(records: Sequence[TargetRecord], beside: Sequence[Record]) -> Figure:
    return table_figure(records, beside, against_paper=True)


def _has_queries(records: Sequence[EvaluationRecord]) -> bool:
    return any(trial.kind == QUERY for record in records for trial in record.trials)


def _has_detection(records: Sequence[EvaluationRecord]) -> bool:
    return any(curve["images"] == "fooled" for r in records for curve in r.detection.get("curves", ()))


def _roc_of_targets(records: Sequence[EvaluationRecord], beside: Sequence[Record]) -> Figure:
    detected = [record for record in records if record.detection]
    several = len({record.table for record in detected}) > 1
    return roc_figure(
        {
            f"{name_of([r], beside)}, seed {r.seed}{f', {r.table}' if several else ''}": r.detection
            for r in detected
        }
    )


KINDS = {
    "table": Kind("table.json", TargetRecord, _table_text),
    "evaluation": Kind("evaluation.json", EvaluationRecord, evaluation_markdown),
    "comparison": Kind("comparison.json", ComparisonRecord, _comparison_text),
    "gaas": Kind("gaas.json", GaasRecord, _bullets(captions.gaas)),
    "transfer_matrix": Kind("transfer.json", TransferMatrixRecord, _bullets(captions.transfer_matrix)),
    "sparsity": Kind("sparsity.json", SparsityRecord, _bullets(captions.sparsity)),
}

# File name -> what it is, in the order of the page.
OUTPUTS = {
    "comparison.png": Output("comparison", "what is left of each", comparison_figure),
    "accuracy.png": Output(
        "table", "accuracy against epsilon", accuracy_figure, has_values=report.has_attacks
    ),
    "coherence.png": Output(
        "table", "coherence (Figure 4)", coherence_figure, has_values=report.has_coherence
    ),
    "queries.png": Output("evaluation", "accuracy against queries", queries_figure, has_values=_has_queries),
    "roc.png": Output(
        "evaluation",
        "images that fool a target, flagged against false alarms",
        _roc_of_targets,
        has_values=_has_detection,
    ),
    "gaas.png": Output("gaas", "orthogonal adversarial directions (Figure 5)", gaas_figure),
    "transfer.png": Output(
        "transfer_matrix", "accuracy on the images of each source", transfer_matrix_figure
    ),
    "sparsity.png": Output("sparsity", "ReLU against LeakyReLU (section 3.4)", sparsity_figure),
    "pair_cosines.png": Output(
        "table", "mean cosine of each pair", pair_cosine_figure, False, report.has_pair_cosines
    ),
    "table.png": Output("table", "the table as a picture", _table_beside_the_papers, False),
    "table.csv": Output("table", "the table as CSV", table_csv, False),
    "comparison.md": Output("comparison", "the comparison alone", comparison_markdown, False),
    "comparison.csv": Output("comparison", "the comparison as CSV", comparison_csv, False),
}


def contents(published: Published, beside: Sequence[Record] = ()) -> dict[str, bytes]:
    """Every file that is made of the records, by its name; `beside` as in `section`."""
    known = [*_all_of(published), *beside]
    return {
        file: content(output, published[output.kind], known) for file, output in outputs(published).items()
    }


def _all_of(published: Published) -> list[Record]:
    """All records, of every kind: what one of them tells of a target marks it in all."""
    return [record for records in published.values() for record in records]


def content(output: Output, records: Sequence[Any], beside: Sequence[Record] = ()) -> bytes:
    """One file that is made of records; `beside` as in `marks.marks`."""
    picture_or_text = output.make(records, beside)
    if isinstance(picture_or_text, Figure):
        return style.png(picture_or_text)
    return picture_or_text.encode()


def outputs(published: Published) -> dict[str, Output]:
    """The outputs for which there are records with values."""
    return {
        file: output
        for file, output in OUTPUTS.items()
        if output.kind in published and output.has_values(published[output.kind])
    }


def section(published: Published, beside: Sequence[Record] = ()) -> str:
    """The generated part of a result's page, which lies beside the files that it shows.

    Args:
        published: what it shows.
        beside: what is known of the same targets and not shown, as in `marks.marks`.
    """
    known = [*_all_of(published), *beside]
    parts: list[str] = []
    also: dict[str, str] = {}
    for kind in published:
        parts.append(KINDS[kind].text(published[kind], known))
        for file, output in outputs(published).items():
            if output.kind == kind and output.shown:
                parts.append(f"![{output.title}]({file})")
    for file, output in outputs(published).items():
        if not output.shown:
            also[file] = output.title
    for kind in published:
        also[KINDS[kind].file] = f"records: {kind}"
    links = [f"[{title}]({file})" for file, title in also.items()]
    return "\n\n".join([*parts, f"Also: {', '.join(links)}."])


def demo_section(published: Published, directory: str) -> str:
    """The generated part of the main page: the demo's table as it is printed, and its first picture.

    Args:
        published: the demo's records.
        directory: where its files lie, seen from the main page.
    """
    blocks = []
    for table in marked_tables(published["table"], _all_of(published)):
        notes = [captions.measure(table), *captions.gain(table), *captions.masked_line(table)]
        blocks.append("\n".join(["```text", *table_lines(table, notes), "```"]))
    file, output = _first_picture(published)
    return "\n\n".join([*blocks, f"![{output.title}]({directory}/{file})"])


def index_section(results: Mapping[str, Published], titles: Mapping[str, str]) -> str:
    """The generated part of the page of all results: a line and a picture for each.

    Args:
        results: name -> its records; a name without records is left out.
        titles: name -> what its page is called.
    """
    rows = ["| result | |", "| --- | --- |"]
    for name, published in results.items():
        if published:
            page = f"{name}/README.md"
            records = [f"[{kind}]({name}/{KINDS[kind].file})" for kind in published]
            line = f"**[{titles[name]}]({page})**<br>{_summary(published)}<br>Records: {', '.join(records)}"
            file, output = _first_picture(published)
            picture = f'<img src="{name}/{file}" width="320" alt="{output.title}">'
            rows.append(f"| {line} | [{picture}]({page}) |")
    return "\n".join(rows)


def _summary(published: Published) -> str:
    beside = _all_of(published)
    by_the_paper = [captions.summary(table) for table in marked_tables(published["table"], beside)]
    evaluated = [*published.get("evaluation", ()), *published.get("comparison", ())]
    return "<br>".join([*by_the_paper, *evaluation_summaries(evaluated, beside)])


def _first_picture(published: Published) -> tuple[str, Output]:
    """The file that stands for a result: accuracy under attack, where there was one."""
    pictures = {file: output for file, output in outputs(published).items() if file.endswith(".png")}
    return next(iter(pictures.items()))


def insert(page: str, name: str, text: str, where: object) -> str:
    """The page with the text between the name's two marks, <!-- NAME --> and <!-- /NAME -->.

    Args:
        page: Markdown.
        name: of the marks.
        text: Markdown.
        where: the page lies, to name it in the error.

    Raises:
        InputError: if the marks are not there, once each and in order.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"({re.escape(first)}\n).*?({re.escape(last)})", re.DOTALL)
    pairs = len(pattern.findall(page))
    require(pairs == 1, f"the marks {first} and {last} once in {where}", f"{pairs} pairs of them")
    return pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page)


def page_title(page: str) -> str:
    """What a page is called: its first heading.

    Raises:
        InputError: if it has none.
    """
    titles = re.findall(r"^# (.+)$", page, re.MULTILINE)
    require(bool(titles), "a heading, # TITLE, in the README.md of each result", f"{page!r:.40}")
    return titles[0]


def blank_page(name: str, called: str) -> str:
    """A page with marks and no words, for a result that has none yet."""
    return f"# {called}\n\n<!-- {name} -->\n<!-- /{name} -->\n"
