"""Table 2 for programs: long format, and JSON with the uncertainty and the paper's figures."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from divtf.reporting.captions import measure, notes, quantity
from divtf.reporting.entries import entries
from divtf.reporting.marks import marked_tables
from divtf.reporting.tables import Row, Table, only_fooled
from divtf.storage.records import Record, TargetRecord, TransferResult

if TYPE_CHECKING:
    import pandas  # Slow to import, and needed for tables only.

CSV_FIELDS = (
    *("model", "dataset", "target", "seed", "attack", "epsilon", "correct", "total", "accuracy"),
    *("low", "high", "saturated", "surrogate", "adversarial_set", "paper_accuracy"),
    *("mean", "deviation", "difference", "strongest", "only", "settings", "surrogate_settings", "stored_as"),
    *("members", "epochs", "training images", "reduced"),
)


def long_format(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> "pandas.DataFrame":
    """All results in long format: one line for each (model, dataset, target, seed, attack, epsilon).

    Args:
        records: targets in any order.
        beside: as in `marks.marks`.

    Returns:
        A frame with the columns `CSV_FIELDS`. Accuracies, the paper's too, are shares in [0, 1]; "mean",
        "deviation" (n - 1) and "difference" (mean less the paper's) are over the seeds of the target;
        "strongest" is 1 for the attack that leaves the lowest mean of its row and epsilon; "only" counts the
        images that no other attack of the epsilon fools, "settings" and "surrogate_settings" name attack and
        surrogate whole. Two results of one attack with other settings differ in "attack", as "pgd_cw, steps
        5". What is not known is missing, as `paper_accuracy` where Table 2 has no such cell. Where a target
        has marks, a last column, "marks", tells them.
    """
    import pandas

    lines = [
        _line(table, row, record, result)
        for table in marked_tables(records, beside)
        for row in table.rows
        for record in row.records
        for result in record.results
    ]
    fields = [*CSV_FIELDS, *(["marks"] if any(line["marks"] for line in lines) else [])]
    # As objects, whole numbers stay such in columns where some are missing.
    return pandas.DataFrame(lines, columns=fields, dtype=object)


def table_csv(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> str:
    """The long format as comma-separated values under a header; what is missing is empty."""
    return long_format(records, beside).to_csv(index=False, lineterminator="\n")


def _line(table: Table, row: Row, record: TargetRecord, result: TransferResult) -> dict[str, Any]:
    """What the long format has of one result, and more."""
    of = {"model": record.model, "dataset": record.dataset, "target": record.target, "seed": record.seed}
    shares = _shares(_cell(table, row, result.attack, result.epsilon))
    told = {name: entries(getattr(result, name)) or None for name in ("settings", "surrogate_settings")}
    only = only_fooled(record, result)
    last = {"only": only, "marks": " ".join(row.marks)}
    return {**record.budget, **result.to_json(), **shares, **of, **told, **last}


def table_json(records: Iterable[TargetRecord], beside: Sequence[Record] = ()) -> str:
    """Table 2 as JSON text: one object for each model and dataset, with its rows, cells and caption.

    Args:
        records: targets in any order.
        beside: as in `marks.marks`.

    Returns:
        A list of objects: "model", "dataset", "epsilons", "attacks", "caption" and "rows", each with
        "target", "seeds", "marks" where it has some, and "cells", in percent: "attack", "epsilon",
        "accuracy" (mean over the seeds), "deviation" (n - 1; null for one seed), "low" and "high" (95 %
        Wilson interval of one seed, mean -+ deviation of several), "seeds" (number of), "strongest", "only"
        (images of all seeds that no other attack of the epsilon fools; null where outcomes were not kept),
        "paper" and "difference" (null where Table 2 has none).
    """
    values = [_table(table) for table in marked_tables(records, beside)]
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    rows = []
    for row in table.rows:
        cells = [_cell(table, row, attack, epsilon) for attack, epsilon in table.places]
        seeds = [record.seed for record in row.records]
        marks = {"marks": " ".join(row.marks)} if row.marks else {}
        rows.append(
            {"target": row.target, "seeds": seeds, **marks, "cells": [cell for cell in cells if cell]}
        )
    return {
        "model": table.model,
        "dataset": table.dataset,
        "epsilons": table.epsilons,
        "attacks": table.attacks,
        "caption": [quantity(table), measure(table, '"strongest"'), *notes(table)],
        "rows": rows,
    }


def _cell(table: Table, row: Row, attack: str, epsilon: float) -> dict[str, Any]:
    """One cell in percent; empty if it was not measured."""
    cell = row.cell(attack, epsilon)
    if cell is None:
        return {}
    low, high = cell.bounds
    return {
        "attack": attack,
        "epsilon": epsilon,
        "accuracy": cell.accuracy,
        "deviation": cell.deviation,
        "low": low,
        "high": high,
        "seeds": len(cell.results),
        "strongest": attack in row.strongest(table.attacks, epsilon),
        "only": row.only(attack, epsilon),
        "paper": table.paper_accuracy(row.target, attack, epsilon),
        "difference": table.difference(row, attack, epsilon),
    }


def _shares(cell: dict[str, Any]) -> dict[str, Any]:
    """The columns of the long format that a cell gives, as shares."""
    percent = {
        "mean": cell["accuracy"],
        "deviation": cell["deviation"],
        "paper_accuracy": cell["paper"],
        "difference": cell["difference"],
    }
    shares = {name: None if value is None else round(value / 100, 6) for name, value in percent.items()}
    return {**shares, "strongest": int(cell["strongest"])}
