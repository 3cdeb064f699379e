"""GitHub Markdown: tables, bullets, and Table 2."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from divtf.data import paper
from divtf.reporting import captions
from divtf.reporting.captions import measure, quantity
from divtf.reporting.cells import heading, percent, signed, spread
from divtf.reporting.marks import marked_tables
from divtf.reporting.tables import Row, Table
from divtf.storage.records import CLEAN, Record, TargetRecord


def grid_markdown(grid: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """A table, its head first; with numbers all columns but the first are flush right."""
    head, *lines = grid
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


def bullets(lines: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def plain(text: str) -> str:
    """Without the marks of Markdown that the cells of tables have."""
    return text.replace("<sub>", "").replace("</sub>", "").replace("**", "")


def table_markdown(
    records: Iterable[TargetRecord], beside: Sequence[Record] = (), *, against_paper: bool = False
) -> str:
    """Table 2 as GitHub Markdown, one table for each model and dataset, with a caption.

    Args:
        records: targets in any order; several seeds of a target become one row.
        beside: as in `marks.marks`.
        against_paper: below each target add the paper's accuracies and the difference, ours less the paper's,
            in points.

    Source: section 4.2, Table 2.
    """
    blocks = [_markdown_block(table, against_paper) for table in marked_tables(records, beside)]
    return "\n\n".join(blocks) + "\n"


def _markdown_block(table: Table, against_paper: bool) -> str:
    header = ["target", CLEAN, *map(heading, table.columns), "saturated, %"]
    rows = [line for row in table.rows for line in _markdown_lines(table, row, against_paper)]
    notes = [f"{quantity(table)[0].upper()}{quantity(table)[1:]}", measure(table, "**bold**")]
    if against_paper and paper.is_paper_dataset(table.model, table.dataset):
        published = f"{table.model} on {paper.DATASETS[table.model]}"
        notes += [
            f"Paper: Table 2, {published}, all test images; difference: ours less the paper's, in points"
        ]
    caption = bullets([*notes, *captions.notes(table)])
    return "\n\n".join([f"### {table.title}", grid_markdown([header, *rows], numbers=True), caption])


def _markdown_lines(table: Table, row: Row, against_paper: bool) -> Iterator[list[str]]:
    strongest = {epsilon: row.strongest(table.attacks, epsilon) for epsilon in table.epsilons}

    def ours(name: str, epsilon: float) -> str:
        number = percent(row.cell(name, epsilon))
        return f"**{number}**" if name in strongest.get(epsilon, ()) else number

    def published(name: str, epsilon: float) -> str:
        value = table.paper_accuracy(row.target, name, epsilon)
        return "-" if value is None else f"{value:.1f}"

    def difference(name: str, epsilon: float) -> str:
        value = table.difference(row, name, epsilon)
        return "-" if value is None else signed(value)

    def line(label: str, show: Callable[[str, float], str], small: bool, last: str) -> list[str]:
        cells = []
        for name, epsilons in [(CLEAN, (0.0,)), *((name, table.epsilons) for name in table.columns)]:
            text = " / ".join(show(name, epsilon) for epsilon in epsilons)
            spreads = " / ".join(spread(row.cell(name, epsilon)) for epsilon in epsilons)
            cells.append(f"{text}<br><sub>{spreads}</sub>" if small else text)
        return [label, *cells, last]

    shares = [row.saturated(epsilon) for epsilon in table.epsilons]
    saturated = " / ".join("-" if share is None else f"{share:.1f}" for share in shares)
    beside = against_paper and table.paper_accuracy(row.target, CLEAN, 0.0) is not None
    yield line(f"{row.name}, ours" if beside else row.name, ours, True, saturated or "-")
    if beside:
        yield line(f"{row.target}, paper", published, False, "")
        yield line(f"{row.target}, difference", difference, False, "")
