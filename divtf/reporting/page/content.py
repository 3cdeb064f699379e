"""What a page says of a result: records -> sections of blocks, in the order of reading."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from divtf.data.paper import TARGETS
from divtf.reporting import captions
from divtf.reporting.comparison import comparison_notes, comparison_tables
from divtf.reporting.evaluation import (
    as_target_record,
    attack_lines,
    detection_lines,
    detection_note,
    has_detection,
    notes_on,
    surrogate_lines,
)
from divtf.reporting.figures.gaas import BUDGETS_NOTE, ORDERS_NOTE
from divtf.reporting.figures.sparsity import SHARES
from divtf.reporting.page import charts, findings, grids, heats
from divtf.reporting.page.elements import Block, Grid
from divtf.reporting.page.origins import origin_grids
from divtf.reporting.page.specs import Looks, Style, chosen, styles
from divtf.reporting.page.strips import strips
from divtf.reporting.report import READING
from divtf.reporting.tables import Table, in_order, tables
from divtf.storage.evaluations import SHOWN_SCORES, ComparisonRecord, EvaluationRecord
from divtf.storage.records import GaasRecord, SparsityRecord, TargetRecord, TransferMatrixRecord, grouped


@dataclasses.dataclass(frozen=True)
class Result:
    """What a page is made of.

    Attributes:
        title: of the page.
        records: kind, a name of `published.KINDS` or "examples" -> its records; kinds without are left out.
        configs: (model and data set) -> target and seed -> the configuration of that run, as JSON values.
    """

    title: str
    records: Mapping[str, Sequence[Any]]
    configs: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        """Each model and data set, in order of appearance."""
        return list(dict.fromkeys(record.subject for group in self.records.values() for record in group))

    def of(self, subject: str) -> dict[str, list[Any]]:
        """Kind -> the records of one model and data set; kinds without are left out."""
        groups = {
            kind: [record for record in group if record.subject == subject]
            for kind, group in self.records.items()
        }
        return {kind: group for kind, group in groups.items() if group}


@dataclasses.dataclass(frozen=True)
class Section:
    """All of one model and data set.

    Attributes:
        title: model and data set.
        finding: in one sentence.
        caveats: what belongs beside it; "" if nothing does.
        targets: name -> the style of each.
        blocks: in the order of reading.
        has_paper: whether some figure stands beside the paper's.
    """

    title: str
    finding: str
    caveats: str
    targets: Mapping[str, Style]
    blocks: Sequence[Block]
    has_paper: bool


def sections(result: Result) -> list[Section]:
    """A section for each model and data set, in order of appearance.

    Raises:
        ValueError: if there are no records, or two of the same thing.
    """
    if not result.subjects:
        raise ValueError("Expected at least one record. Received: none")
    return [_section(subject, result) for subject in result.subjects]


def _section(subject: str, result: Result) -> Section:
    of = result.of(subject)
    named = dict.fromkeys(record.target for group in of.values() for record in group)
    targets = in_order(named, TARGETS)
    looks = styles(targets)
    blocks = [
        *_comparison(of.get("comparison", ())),
        *_tables(of.get("table", ()), looks),
        *_evaluations(of.get("evaluation", ()), looks),
        *_alignment(of.get("table", ()), looks),
        *_transfer_matrix(of.get("transfer_matrix", ())),
        *_gaas(of.get("gaas", ()), looks),
        *_sparsity(of.get("sparsity", ()), looks),
        Block("Images", "images", strips=strips(of.get("examples", ()))),
        Block(
            "How it was made", "made", grids=origin_grids(of, result.configs.get(subject, {})), folded=True
        ),
    ]
    shown = [block for block in blocks if not block.is_empty]
    has_paper = any(
        cell.paper for b in shown for grid in b.grids for line in grid.lines for cell in line.cells
    )
    return Section(subject, finding(of), findings.caveats(of), looks, shown, has_paper)


def finding(records: Mapping[str, Sequence[Any]]) -> str:
    """The finding of what is known of one model and data set: under the widest attack that was tried."""
    if compared := records.get("comparison"):
        return findings.comparison_finding(compared)
    if evaluations := records.get("evaluation"):
        first = next(iter(grouped(evaluations, lambda record: record.protocol).values()))
        return findings.evaluation_finding(first)
    if targets := records.get("table"):
        return findings.table_finding(targets)
    return f"{', '.join(dict.fromkeys(record.target for group in records.values() for record in group))}."


def _comparison(records: Sequence[ComparisonRecord]) -> list[Block]:
    if not records:
        return []
    (table,) = comparison_tables(records)
    notes = comparison_notes(table, records)
    grid = grids.comparison_grid(table, records)
    return [Block("Side by side", "comparison", grids=[grid], bullets=notes)]


def _tables(records: Sequence[TargetRecord], looks: Looks) -> list[Block]:
    if not records:
        return []
    (table,) = tables(records)
    drawn = charts.accuracy_charts(table, looks) if table.columns else []
    return [
        Block(
            "Accuracy under transfer attacks", "table", grids=[grids.table_grid(table)], bullets=_notes(table)
        ),
        Block("Accuracy against epsilon", "accuracy", charts=drawn, legend=chosen(looks, table.targets)),
        Block("Accuracy by class", "classes", grids=grids.class_grids(records)),
    ]


def _notes(table: Table) -> list[str]:
    quantity = captions.quantity(table)
    return [
        f"{quantity[0].upper()}{quantity[1:]}",
        captions.measure(table, "bold with ▾"),
        *captions.notes(table),
    ]


def _evaluations(records: Sequence[EvaluationRecord], looks: Looks) -> list[Block]:
    groups = grouped(records, lambda record: record.tried_by)
    return [block for protocol, group in groups.items() for block in _evaluation(protocol, group, looks)]


def _evaluation(protocol: str, records: Sequence[EvaluationRecord], looks: Looks) -> list[Block]:
    (table,) = tables(map(as_target_record, records))
    targets = table.targets
    name = re.sub(r"\W+", "-", f"evaluation-{protocol}")
    # In this order the counts stand in each cell.
    at = " / ".join(f"{epsilon:g}" for epsilon in table.epsilons)
    counts = f"images at epsilon {at}"
    details = [
        grids.text_grid(f"Surrogates; {counts}", surrogate_lines(records)),
        grids.text_grid(f"Attacks, in the order in which they were tried; {counts}", attack_lines(records)),
    ]
    blocks = [
        Block(
            f"Protocol {protocol}: what is left",
            name,
            grids=[grids.evaluation_grid(records)],
            bullets=notes_on(table, records),
        ),
        Block(f"Protocol {protocol}: who fooled whom", f"{name}-attacks", grids=details, folded=True),
        Block(
            f"Protocol {protocol}: accuracy against queries",
            f"{name}-queries",
            charts=charts.query_charts(records, looks),
            legend=chosen(looks, table.targets),
        ),
        Block(
            f"Protocol {protocol}: signs of masked gradients",
            f"{name}-masking",
            grids=grids.check_grids(records),
        ),
    ]
    if has_detection(records):
        found = grids.text_grid("Images that are flagged", detection_lines(records), targets)
        drawn = charts.roc_charts(records, SHOWN_SCORES)
        blocks.append(
            Block(
                f"Protocol {protocol}: detection",
                f"{name}-detection",
                notes=[detection_note(records)],
                grids=[found],
                charts=drawn,
                legend=charts.roc_legend(SHOWN_SCORES),
            )
        )
    return blocks


def _alignment(records: Sequence[TargetRecord], looks: Looks) -> list[Block]:
    measured = [record for record in records if record.coherence]
    paired = [record for record in records if record.pair_cosines]
    blocks = []
    if measured:
        (table,) = tables(measured)
        drawn = [charts.coherence_chart(table, looks)]
        legend = chosen(looks, table.targets)
        blocks.append(Block("Coherence of the input gradients", "coherence", charts=drawn, legend=legend))
    if paired:
        (table,) = tables(paired)
        title = "Mean cosine of each two members' input gradients"
        blocks.append(Block(title, "cosines", heats=heats.pair_cosine_heats(table)))
    return blocks


def _transfer_matrix(records: Sequence[TransferMatrixRecord]) -> list[Block]:
    if not records:
        return []
    notes = captions.transfer_matrix(records)
    title = "Accuracy on the images of each ensemble"
    return [Block(title, "transfer", heats=heats.transfer_heats(records), bullets=notes)]


def _gaas(records: Sequence[GaasRecord], looks: Looks) -> list[Block]:
    if not records:
        return []
    notes = [*captions.gaas(records), ORDERS_NOTE]
    notes += [BUDGETS_NOTE] if {record.dataset for record in records} - {"cifar10"} else []
    title = "Orthogonal adversarial directions (GAAS)"
    legend = charts.gaas_legend(records, looks)
    return [Block(title, "gaas", charts=charts.gaas_charts(records, looks), bullets=notes, legend=legend)]


def _sparsity(records: Sequence[SparsityRecord], looks: Looks) -> list[Block]:
    if not records:
        return []
    lines = [["target", "seed", *(f"{name}, %" for name in SHARES.values())]]
    for record in records:
        shares = [f"{100 * getattr(record, name):.2f}" for name in SHARES]
        lines.append([record.target, str(record.seed), *shares])
    grid: Grid = grids.text_grid("Exact zeros in the input gradients", lines, [r.target for r in records])
    drawn = [charts.gal_chart(records, looks)]
    notes = captions.sparsity(records)
    legend = chosen(looks, list(dict.fromkeys(record.target for record in records)))
    return [
        Block("ReLU against LeakyReLU", "sparsity", grids=[grid], charts=drawn, bullets=notes, legend=legend)
    ]


def reading(kinds: Collection[str]) -> list[str]:
    """How to read the figures of records of these kinds, a sentence or several each."""
    _, text = READING.split("\n- ", 1)
    if "evaluation" in kinds:
        text = text.replace("and is not measured here", "and the tables of a protocol tell of it")
    return [" ".join(item.replace("*", "").split()) for item in text.split("\n- ")]
