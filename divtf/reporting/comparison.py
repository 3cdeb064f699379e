"""Defences side by side: what is left of each under a protocol, by surrogate and in all, and what it cost."""

import statistics
from collections.abc import Callable, Iterator, Sequence

from divtf.reporting import captions
from divtf.reporting.cells import signed
from divtf.reporting.entries import entries
from divtf.reporting.evaluation import as_target_record, on_surrogate, result_of
from divtf.reporting.markdown import bullets, grid_markdown
from divtf.reporting.marks import LEAKING, MASKED, marked_tables
from divtf.reporting.paired import differences, in_words
from divtf.reporting.plain_text import aligned
from divtf.reporting.tables import Cell, Row, Table
from divtf.storage.evaluations import KINDS, QUERY, SAME_AS, TRANSFER, ComparisonRecord, TrialResult
from divtf.storage.records import CLEAN, WORST_CASE, Record, TargetRecord

_OWN = "on own surrogates"


def comparison_markdown(records: Sequence[ComparisonRecord], beside: Sequence[Record] = ()) -> str:
    """The comparison as GitHub Markdown, a table for each model and data set.

    Args:
        records: of the comparison.
        beside: as in `marks.marks`.
    """
    return "\n\n".join(_markdown(table, records) for table in comparison_tables(records, beside)) + "\n"


def comparison_text(records: Sequence[ComparisonRecord]) -> str:
    """The same for the console: the tables alone."""
    blocks = []
    for table in comparison_tables(records):
        lines = aligned(_grid(table, records))
        blocks.append("\n".join([f"{table.title}: what is left, %", *lines]))
    return "\n\n".join(blocks)


def comparison_csv(records: Sequence[ComparisonRecord], beside: Sequence[Record] = ()) -> str:
    """The same as comma-separated values: a line for each target, epsilon and column, all seeds together."""
    import pandas  # Slow to import, and needed here only.

    lines = [
        {
            **{"model": table.model, "dataset": table.dataset, "target": row.target},
            **{"marks": " ".join(row.marks), "epsilon": epsilon},
            **{"column": column, "accuracy": cell.accuracy, "deviation": cell.deviation},
            **{"seeds": len(cell.results), "images": cell.results[0].total},
            **_difference_values(table, row, records[0].reference, column, epsilon),
            **{"coherence": _coherence(records, table, row), "hours": _hours(records, table, row)},
        }
        for table in comparison_tables(records, beside)
        for row in table.rows
        for epsilon in table.epsilons
        for column in (CLEAN, *comparison_columns(table))
        if (cell := cell_of(row, column, epsilon))
    ]
    return pandas.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def comparison_tables(records: Sequence[ComparisonRecord], beside: Sequence[Record] = ()) -> Sequence[Table]:
    """Tables whose columns are the surrogates, the kinds of attackers, and everything."""
    return marked_tables(map(_by_surrogate, records), [*records, *beside])


def _by_surrogate(record: ComparisonRecord) -> TargetRecord:
    """The record as one of a table, in which each surrogate, too, stands for an attack."""
    kinds = as_target_record(record)
    kept = tuple(result for result in kinds.results if result.attack in (CLEAN, *KINDS, WORST_CASE))
    sources = {f"on {name}": on_surrogate(name) for name in record.surrogates}
    if any(name.startswith(SAME_AS) for name in record.surrogates):
        sources[_OWN] = _on_own_surrogates(record)
    on = [
        result_of(record, column, epsilon, record.standing(epsilon, counts))
        for epsilon in record.epsilons
        for column, counts in sources.items()
    ]
    return TargetRecord(**record.common(), results=(*kept, *on))


def _on_own_surrogates(record: ComparisonRecord) -> Callable[[TrialResult], bool]:
    """Tells whether a trial's images were made on a surrogate that is trained as no other target is."""
    others = {name for name in record.surrogates if name.startswith(SAME_AS)} - {f"{SAME_AS} {record.target}"}
    return lambda trial: trial.kind == TRANSFER and trial.surrogate not in others


def comparison_columns(table: Table) -> list[str]:
    """Surrogates, kinds, everything: in that order."""
    measured = [result.attack for record in table.records for result in record.results]
    on = [name for name in dict.fromkeys(measured) if name.startswith("on ")]
    return [*on, *(kind for kind in KINDS if kind in measured), WORST_CASE]


def column_heading(column: str) -> str:
    """What a column is called."""
    return "everything" if column == WORST_CASE else column


def cell_of(row: Row, column: str, epsilon: float) -> Cell | None:
    """What a target has in a column at an epsilon; clean images have none."""
    return row.cell(column, 0.0 if column == CLEAN else epsilon)


def comparison_head(table: Table, reference: str) -> list[str]:
    """What stands above the lines of `comparison_lines`."""
    columns = map(column_heading, comparison_columns(table))
    beside = table.names.get(reference, reference)
    against = [
        f"against {beside}{'' if column == WORST_CASE else f', {column}'}" for column in _compared(table)
    ]
    return ["target", "epsilon", CLEAN, *columns, *against, "coherence", "hours"]


def _compared(table: Table) -> list[str]:
    """In which columns targets are compared with the reference: others than by transfer may leave nothing."""
    kinds = [column for column in comparison_columns(table) if column in KINDS]
    return [WORST_CASE, TRANSFER] if TRANSFER in kinds and len(kinds) > 1 else [WORST_CASE]


def comparison_lines(
    table: Table, records: Sequence[ComparisonRecord]
) -> Iterator[tuple[Row, float, list[Cell | None], list[str]]]:
    """For each target and epsilon what is in the columns, clean images first, and the texts behind them."""
    reference = records[0].reference
    for row in table.rows:
        told = [(_coherence(records, table, row), ".2f"), (_hours(records, table, row), ".2g")]
        last = ["-" if value is None else f"{value:{form}}" for value, form in told]
        for epsilon in table.epsilons:
            cells = [cell_of(row, column, epsilon) for column in (CLEAN, *comparison_columns(table))]
            against = [
                _difference_in_words(table, row, reference, column, epsilon) for column in _compared(table)
            ]
            yield row, epsilon, cells, [*against, *last]


def _grid(table: Table, records: Sequence[ComparisonRecord]) -> list[list[str]]:
    lines = [comparison_head(table, records[0].reference)]
    for row, epsilon, cells, last in comparison_lines(table, records):
        shown = ["-" if cell is None else f"{cell.accuracy:.1f} {cell.spread}" for cell in cells]
        lines.append([row.name, f"{epsilon:g}", *shown, *last])
    return lines


def _markdown(table: Table, records: Sequence[ComparisonRecord]) -> str:
    notes = bullets(comparison_notes(table, records))
    return "\n\n".join(
        [f"### {table.title}: what is left of each", grid_markdown(_grid(table, records)), notes]
    )


def comparison_notes(table: Table, records: Sequence[ComparisonRecord]) -> list[str]:
    """What the table says of itself: images, marks, surrogates, budgets, commands."""
    own = [record for record in records if record.subject == table.title]
    asked = f", in the column {QUERY} the first {own[0].query_images}" if own[0].query_images else ""
    return [
        f"Accuracy in percent, protocol {own[0].tried_by}; images: "
        f"the first {own[0].images} test images{asked}. "
        "An image counts only if it is right when clean and under every attack of a column",
        "[ ]: 95 % Wilson interval of one seed; ±: standard deviation over n seeds",
        *(
            [f"{_OWN}: all but those that are trained as another target is"]
            if any(name.startswith(SAME_AS) for name in own[0].surrogates)
            else []
        ),
        f"Against {own[0].reference}: difference in everything, and by transfer where others were tried too, "
        "in points, and p of McNemar's exact test, image by image, of each seed; over several seeds mean ± "
        "deviation of the paired difference",
        "Hours: of training, in the mean over the seeds; static models, which targets share, and attacks on "
        "them are left out",
        f"{MASKED}: shows signs of masked gradients; {LEAKING}: leaks labels",
        *(f"Surrogate {name}: {entries(told)}" for name, told in own[0].surrogates.items()),
        *captions.budgets(own),
        *captions.provenance(own),
        *captions.analyses(own),
    ]


def _of(records: Sequence[ComparisonRecord], table: Table, row: Row) -> list[ComparisonRecord]:
    return [record for record in records if (record.subject, record.target) == (table.title, row.target)]


def _coherence(records: Sequence[ComparisonRecord], table: Table, row: Row) -> float | None:
    """Mean coherence of a target over images and seeds; None where it was not measured."""
    values = [value for record in _of(records, table, row) for value in record.coherence]
    return statistics.fmean(values) if values else None


def _hours(records: Sequence[ComparisonRecord], table: Table, row: Row) -> float | None:
    """Of training, in the mean over the seeds."""
    own = _of(records, table, row)
    known = [record.provenance["hours"] for record in own if "hours" in record.provenance]
    return statistics.fmean(known) if known else None


def _difference_values(
    table: Table, row: Row, reference: str, column: str, epsilon: float
) -> dict[str, float | str | None]:
    """From the reference: the mean over the seeds, and each seed's p."""
    found = differences(table, row.target, reference, column, 0.0 if column == CLEAN else epsilon)
    mean = statistics.fmean(each.difference for each in found) if found else None
    return {"difference": mean, "p": "; ".join(str(each.p_value) for each in found) or None}


def _difference_in_words(table: Table, row: Row, reference: str, column: str, epsilon: float) -> str:
    """In a column, from the reference, with its test; "-" where there is none."""
    if row.target == reference:
        return "-"
    found = differences(table, row.target, reference, column, epsilon)
    if not found:
        return "-"
    points = [each.difference for each in found]
    tests = ", ".join(in_words(each.p_value) for each in found)
    if len(points) == 1:
        return f"{signed(points[0])}, {tests}"
    return f"{signed(statistics.fmean(points))} ±{statistics.stdev(points):.1f} n={len(points)}, {tests}"
