"""Defences side by side: what is left of each under a protocol, by surrogate and in all, and what it cost."""

import statistics
from collections.abc import Sequence

from divtf.reporting import captions
from divtf.reporting.cells import signed
from divtf.reporting.entries import entries
from divtf.reporting.evaluation import as_target_record, on_surrogate, result_of
from divtf.reporting.leaking import MARK as LEAKING
from divtf.reporting.leaking import leaks
from divtf.reporting.paired import differences, in_words
from divtf.reporting.plain_text import aligned
from divtf.reporting.tables import Cell, Row, Table, tables
from divtf.storage.evaluations import KINDS, QUERY, ComparisonRecord
from divtf.storage.records import CLEAN, WORST_CASE, TargetRecord

_EVERYTHING = "everything"
_MASKED = "†"


def comparison_markdown(records: Sequence[ComparisonRecord]) -> str:
    """The comparison as GitHub Markdown, a table for each model and data set."""
    return "\n\n".join(_markdown(table, records) for table in _tables(records)) + "\n"


def comparison_text(records: Sequence[ComparisonRecord]) -> str:
    """The same for the console: the tables alone."""
    blocks = []
    for table in _tables(records):
        lines = aligned(_grid(table, records))
        blocks.append("\n".join([f"{table.title}: what is left, %", *lines]))
    return "\n\n".join(blocks)


def comparison_csv(records: Sequence[ComparisonRecord]) -> str:
    """The same as comma-separated values: a line for each target, epsilon and column, all seeds together."""
    import pandas  # Slow to import, and needed here only.

    lines = [
        {
            **{"model": table.model, "dataset": table.dataset, "target": row.target, "epsilon": epsilon},
            **{"column": column, "accuracy": cell.accuracy, "deviation": cell.deviation},
            **{"seeds": len(cell.results), "images": cell.results[0].total},
            **_difference_values(table, row, records[0].reference, column, epsilon),
            **{"coherence": _coherence(records, table, row), "hours": _hours(records, table, row)},
        }
        for table in _tables(records)
        for row in table.rows
        for epsilon in table.epsilons
        for column in (CLEAN, *_columns(table))
        if (cell := _cell(row, column, epsilon))
    ]
    return pandas.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def _tables(records: Sequence[ComparisonRecord]) -> Sequence[Table]:
    """Tables whose columns are the surrogates, the kinds of attackers, and everything."""
    return tables([_by_surrogate(record) for record in records])


def _by_surrogate(record: ComparisonRecord) -> TargetRecord:
    """The record as one of a table, in which each surrogate, too, stands for an attack."""
    kinds = as_target_record(record)
    kept = tuple(result for result in kinds.results if result.attack in (CLEAN, *KINDS, WORST_CASE))
    on = [
        result_of(record, f"on {name}", epsilon, record.standing(epsilon, on_surrogate(name)))
        for epsilon in record.epsilons
        for name in record.surrogates
    ]
    return TargetRecord(**record.common(), results=(*kept, *on))


def _columns(table: Table) -> list[str]:
    """Surrogates, kinds, everything: in that order."""
    measured = [result.attack for record in table.records for result in record.results]
    on = [name for name in dict.fromkeys(measured) if name.startswith("on ")]
    return [*on, *(kind for kind in KINDS if kind in measured), WORST_CASE]


def _cell(row: Row, column: str, epsilon: float) -> Cell | None:
    return row.cell(column, 0.0 if column == CLEAN else epsilon)


def _grid(table: Table, records: Sequence[ComparisonRecord]) -> list[list[str]]:
    columns, reference = _columns(table), records[0].reference
    heads = [_EVERYTHING if column == WORST_CASE else column for column in columns]
    lines = [["target", "epsilon", CLEAN, *heads, f"against {reference}", "coherence", "hours"]]
    for row in table.rows:
        for epsilon in table.epsilons:
            cells = [_cell(row, column, epsilon) for column in (CLEAN, *columns)]
            coherence, hours = _coherence(records, table, row), _hours(records, table, row)
            lines.append(
                [
                    row.target + _marks(_of(records, table, row)),
                    f"{epsilon:g}",
                    *("-" if cell is None else f"{cell.accuracy:.1f} {cell.spread}" for cell in cells),
                    _difference(table, row, reference, epsilon),
                    "-" if coherence is None else f"{coherence:.2f}",
                    "-" if hours is None else f"{hours:.2g}",
                ]
            )
    return lines


def _markdown(table: Table, records: Sequence[ComparisonRecord]) -> str:
    header, *rows = _grid(table, records)
    lines = [header, ["---"] * len(header), *rows]
    own = [record for record in records if record.subject == table.title]
    notes = [
        f"Accuracy in percent, protocol {own[0].protocol}; images: the first {own[0].images} test images, "
        f"in the column {QUERY} the first {own[0].query_images}. An image counts only if it is right when "
        "clean and under every attack of a column",
        "[ ]: 95 % Wilson interval of one seed; ±: standard deviation over n seeds",
        f"Against {own[0].reference}: difference in everything, in points, and p of McNemar's exact test, "
        "image by image, of each seed; over several seeds mean ± deviation of the paired difference",
        f"{_MASKED}: shows signs of masked gradients; {LEAKING}: leaks labels",
        *(f"Surrogate {name}: {entries(told)}" for name, told in own[0].surrogates.items()),
        *captions.budgets(own),
        *captions.provenance(own),
        *captions.analyses(own),
    ]
    return "\n".join(
        [
            f"### {table.title}: what is left of each",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            *(f"- {note}" for note in notes),
        ]
    )


def _marks(records: Sequence[ComparisonRecord]) -> str:
    """Of one target, all its seeds."""
    masked = any(not check["passed"] for record in records for check in record.checks)
    return f" {_MASKED}" * masked + f" {LEAKING}" * any(map(leaks, records))


def _of(records: Sequence[ComparisonRecord], table: Table, row: Row) -> list[ComparisonRecord]:
    return [record for record in records if (record.subject, record.target) == (table.title, row.target)]


def _coherence(records: Sequence[ComparisonRecord], table: Table, row: Row) -> float | None:
    values = [value for record in _of(records, table, row) for value in record.coherence]
    return statistics.fmean(values) if values else None


def _hours(records: Sequence[ComparisonRecord], table: Table, row: Row) -> float | None:
    """Of training, in the mean over the seeds."""
    own = _of(records, table, row)
    known = [record.provenance["hours"] for record in own if "hours" in record.provenance]
    return statistics.fmean(known) if known else None


def _difference_values(
    table: Table, row: Row, reference: str, column: str, epsilon: float
) -> dict[str, float | None]:
    found = differences(table, row.target, reference, column, 0.0 if column == CLEAN else epsilon)
    mean = statistics.fmean(each.difference for each in found) if found else None
    return {"difference": mean, "p": found[0].p_value if len(found) == 1 else None}


def _difference(table: Table, row: Row, reference: str, epsilon: float) -> str:
    if row.target == reference:
        return "-"
    found = differences(table, row.target, reference, WORST_CASE, epsilon)
    if not found:
        return "-"
    points = [each.difference for each in found]
    tests = ", ".join(in_words(each.p_value) for each in found)
    if len(points) == 1:
        return f"{signed(points[0])}, {tests}"
    return f"{signed(statistics.fmean(points))} ±{statistics.stdev(points):.1f} n={len(points)}, {tests}"
