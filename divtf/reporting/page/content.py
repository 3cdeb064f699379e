"""What a page says of a result: records -> sections of blocks, in the order of reading."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from divtf.data.paper import TARGETS
from divtf.reporting import captions, detection
from divtf.reporting.comparison import comparison_notes, comparison_tables
from divtf.reporting.evaluation import (
    attack_lines,
    evaluation_table,
    notes_on,
    surrogate_lines,
)
from divtf.reporting.figures.gaas import BUDGETS_NOTE, ORDERS_NOTE
from divtf.reporting.figures.sparsity import SHARES
from divtf.reporting.marks import marked_tables, names_of
from divtf.reporting.page import charts, findings, grids, heats
from divtf.reporting.page.elements import Block, Grid
from divtf.reporting.page.origins import origin_grids
from divtf.reporting.page.specs import Looks, Style, chosen, styles
from divtf.reporting.page.strips import strips
from divtf.reporting.report import READING
from divtf.reporting.tables import Table, in_order
from divtf.storage.evaluations import SHOWN_SCORES, ComparisonRecord, EvaluationRecord
from divtf.storage.records import (
    GaasRecord,
    Record,
    SparsityRecord,
    TargetRecord,
    TransferMatrixRecord,
    grouped,
)


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
    # What one of them tells of a target marks it in all blocks.
    everything = [record for group in of.values() for record in group]
    targets = in_order(dict.fromkeys(record.target for record in everything), TARGETS)
    looks = styles(targets)
    blocks = [
        *_comparison(of.get("comparison", ()), everything),
        *_tables(of.get("table", ()), looks, everything),
        *_evaluations(of.get("evaluation", ()), looks, everything),
        *_alignment(of.get("table", ()), looks, everything),
        *_transfer_matrix(of.get("transfer_matrix", ()), everything),
        *_gaas(of.get("gaas", ()), looks, everything),
        *_sparsity(of.get("sparsity", ()), looks, everything),
        Block("Images", "images", strips=strips(of.get("examples", ()), everything)),
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
    everything = [record for group in records.values() for record in group]
    if compared := records.get("comparison"):
        return findings.comparison_finding(compared, everything)
    if evaluations := records.get("evaluation"):
        first = next(iter(grouped(evaluations, lambda record: record.table).values()))
        return findings.evaluation_finding(first, everything)
    if targets := records.get("table"):
        return findings.table_finding(targets)
    return f"{', '.join(dict.fromkeys(record.target for record in everything))}."


def _comparison(records: Sequence[ComparisonRecord], beside: Sequence[Record]) -> list[Block]:
    if not records:
        return []
    (table,) = comparison_tables(records, beside)
    notes = comparison_notes(table, records)
    grid = grids.comparison_grid(table, records)
    return [Block("Side by side", "comparison", grids=[grid], bullets=notes)]


def _tables(records: Sequence[TargetRecord], looks: Looks, beside: Sequence[Record]) -> list[Block]:
    if not records:
        return []
    (table,) = marked_tables(records, beside)
    drawn = charts.accuracy_charts(table, looks) if table.columns else []
    legend = chosen(looks, table.targets)
    return [
        Block(
            "Accuracy under transfer attacks", "table", grids=[grids.table_grid(table)], bullets=_notes(table)
        ),
        Block("Accuracy against epsilon", "accuracy", charts=drawn, legend=legend, names=table.names),
        Block("Accuracy by class", "classes", grids=grids.class_grids(records, beside)),
    ]


def _notes(table: Table) -> list[str]:
    quantity = captions.quantity(table)
    return [
        f"{quantity[0].upper()}{quantity[1:]}",
        captions.measure(table, "bold with ▾"),
        *captions.notes(table),
    ]


def _evaluations(records: Sequence[EvaluationRecord], looks: Looks, beside: Sequence[Record]) -> list[Block]:
    groups = grouped(records, lambda record: record.tried_by)
    return [
        block for protocol, group in groups.items() for block in _evaluation(protocol, group, looks, beside)
    ]


def _evaluation(
    protocol: str, records: Sequence[EvaluationRecord], looks: Looks, beside: Sequence[Record]
) -> list[Block]:
    table = evaluation_table(records, beside)
    name = re.sub(r"\W+", "-", f"evaluation-{protocol}")
    # In this order the counts stand in each cell.
    at = " / ".join(f"{epsilon:g}" for epsilon in table.epsilons)
    counts = f"images at epsilon {at}"
    attacks = attack_lines(table, records)
    details = [
        grids.text_grid(f"Surrogates; {counts}", surrogate_lines(table, records)),
        grids.text_grid(f"Attacks, in the order in which they were tried; {counts}", attacks),
    ]
    blocks = [
        Block(
            f"Protocol {protocol}: what is left",
            name,
            grids=[grids.evaluation_grid(table, records)],
            bullets=notes_on(table, records),
        ),
        Block(f"Protocol {protocol}: who fooled whom", f"{name}-attacks", grids=details, folded=True),
        Block(
            f"Protocol {protocol}: accuracy against queries",
            f"{name}-queries",
            charts=charts.query_charts(records, looks, beside),
            legend=chosen(looks, table.targets),
            names=table.names,
        ),
        Block(
            f"Protocol {protocol}: signs of masked gradients",
            f"{name}-masking",
            grids=grids.check_grids(records),
        ),
    ]
    if detection.has_curves(records):
        found = grids.text_grid("Images that are flagged", detection.lines(table, records), table.names)
        drawn = charts.roc_charts(records, SHOWN_SCORES, beside)
        blocks.append(
            Block(
                f"Protocol {protocol}: detection",
                f"{name}-detection",
                notes=[detection.note(records)],
                grids=[found],
                charts=drawn,
                legend=charts.roc_legend(SHOWN_SCORES),
            )
        )
    return blocks


def _alignment(records: Sequence[TargetRecord], looks: Looks, beside: Sequence[Record]) -> list[Block]:
    measured = [record for record in records if record.coherence]
    paired = [record for record in records if record.pair_cosines]
    blocks = []
    if measured:
        (table,) = marked_tables(measured, beside)
        drawn = [charts.coherence_chart(table, looks)]
        title, legend = "Coherence of the input gradients", chosen(looks, table.targets)
        blocks.append(Block(title, "coherence", charts=drawn, legend=legend, names=table.names))
    if paired:
        (table,) = marked_tables(paired, beside)
        title = "Mean cosine of each two members' input gradients"
        blocks.append(Block(title, "cosines", heats=heats.pair_cosine_heats(table)))
    return blocks


def _transfer_matrix(records: Sequence[TransferMatrixRecord], beside: Sequence[Record]) -> list[Block]:
    if not records:
        return []
    notes = captions.transfer_matrix(records, beside)
    title = "Accuracy on the images of each ensemble"
    return [Block(title, "transfer", heats=heats.transfer_heats(records, beside), bullets=notes)]


def _gaas(records: Sequence[GaasRecord], looks: Looks, beside: Sequence[Record]) -> list[Block]:
    if not records:
        return []
    notes = [*captions.gaas(records, beside), ORDERS_NOTE]
    notes += [BUDGETS_NOTE] if {record.dataset for record in records} - {"cifar10"} else []
    title = "Orthogonal adversarial directions (GAAS)"
    drawn, legend = charts.gaas_charts(records, looks, beside), charts.gaas_legend(records, looks)
    names = names_of(records, beside)
    return [Block(title, "gaas", charts=drawn, bullets=notes, legend=legend, names=names)]


def _sparsity(records: Sequence[SparsityRecord], looks: Looks, beside: Sequence[Record]) -> list[Block]:
    if not records:
        return []
    names = names_of(records, beside)
    lines = [["target", "seed", *(f"{name}, %" for name in SHARES.values())]]
    for record in records:
        shares = [f"{100 * getattr(record, name):.2f}" for name in SHARES]
        lines.append([names[record.target], str(record.seed), *shares])
    grid: Grid = grids.text_grid("Exact zeros in the input gradients", lines, names)
    drawn = [charts.gal_chart(records, looks, beside)]
    legend = chosen(looks, list(dict.fromkeys(record.target for record in records)))
    notes, title = captions.sparsity(records, beside), "ReLU against LeakyReLU"
    return [Block(title, "sparsity", grids=[grid], charts=drawn, bullets=notes, legend=legend, names=names)]


def reading(kinds: Collection[str]) -> list[str]:
    """How to read the figures of records of these kinds, a sentence or several each."""
    _, text = READING.split("\n- ", 1)
    if "evaluation" in kinds:
        text = text.replace("and is not measured here", "and the tables of a protocol tell of it")
    return [" ".join(item.replace("*", "").split()) for item in text.split("\n- ")]
