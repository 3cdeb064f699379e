"""What a protocol found, in Markdown: what is left of each target, and what each attack did."""

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Sequence

from divtf.reporting import captions, detection
from divtf.reporting.cells import signed
from divtf.reporting.entries import attack_settings, entries
from divtf.reporting.markdown import bullets, grid_markdown, plain
from divtf.reporting.marks import MASKED, marked_tables
from divtf.reporting.paired import COMPARED, paired_lines
from divtf.reporting.plain_text import WIDTH, aligned
from divtf.reporting.tables import Cell, Row, Table
from divtf.storage.evaluations import (
    KINDS,
    QUERY,
    TRANSFER,
    WHITE_BOX,
    EvaluationRecord,
    TrialResult,
)
from divtf.storage.records import (
    CLEAN,
    WORST_CASE,
    Record,
    TargetRecord,
    TransferResult,
    grouped,
    packed,
    unpacked,
)

PAPER = "paper"
"""The column of the run's own worst case."""
_COLUMNS = {
    CLEAN: "clean",
    PAPER: "five attacks, one plain surrogate (the paper)",
    TRANSFER: "transfer",
    WHITE_BOX: "white box",
    QUERY: "Square",
    WORST_CASE: "everything",
}
"""Column of the main table -> what stands above it."""
_ASKED = (
    "Square was also asked for each other image that the target withstood under all else: what it fooled "
    "there counts in everything, and neither in its own column nor in its curve"
)
_PAPERS = (
    "The paper's attacks were tried on as many images as the run itself was told to attack; their column has "
    "an image that is right under all five, also if it is wrong when clean"
)


def evaluation_markdown(records: Sequence[EvaluationRecord], beside: Sequence[Record] = ()) -> str:
    """The report of evaluations, a section for each protocol, model and data set.

    Args:
        records: of any protocols.
        beside: as in `marks.marks`.
    """
    groups = grouped(records, lambda record: record.table)
    known = [*records, *beside]
    return "\n\n".join(_section(title, group, known) for title, group in groups.items()) + "\n"


def evaluation_text(records: Sequence[EvaluationRecord], beside: Sequence[Record] = ()) -> str:
    """The same for the console: plain text, what is left alone."""
    groups = grouped(records, lambda record: record.table)
    blocks = []
    for title, group in groups.items():
        table = evaluation_table(group, [*records, *beside])
        lines = aligned([[plain(text) for text in line] for line in what_is_left(table, group)])
        rule = "-" * max(map(len, lines))
        notes = [wrapped for note in notes_on(table, group) for wrapped in textwrap.wrap(note, WIDTH)]
        blocks.append("\n".join([title, rule, lines[0], rule, *lines[1:], rule, *notes]))
    return "\n\n".join(blocks)


def evaluation_summaries(records: Sequence[EvaluationRecord], beside: Sequence[Record] = ()) -> list[str]:
    """A sentence for each protocol, model and data set: what each target keeps under everything."""
    sentences = []
    for group in grouped(records, lambda record: record.table).values():
        table = evaluation_table(group, [*records, *beside])
        kept = []
        for row in table.rows:
            cells = [row.cell(WORST_CASE, epsilon) for epsilon in table.epsilons]
            marks = "".join(row.marks)
            kept.append(f"{row.target} {' / '.join(f'{cell.accuracy:.1f}{marks}' for cell in cells if cell)}")
        tried = f"everything that protocol {group[0].tried_by} tries, on {group[0].images} images"
        sentences.append(f"{table.title}, under {tried}: {', '.join(kept)}")
    return sentences


def _section(title: str, records: Sequence[EvaluationRecord], beside: Sequence[Record]) -> str:
    table = evaluation_table(records, beside)
    parts = [
        f"### {title}: what is left",
        grid_markdown(what_is_left(table, records)),
        bullets(notes_on(table, records)),
        "#### Surrogates",
        grid_markdown(surrogate_lines(table, records)),
        "#### Attacks, in the order in which they were tried",
        grid_markdown(attack_lines(table, records)),
        *(["#### Signs of masked gradients", *_checks(records)] if any(r.checks for r in records) else []),
        *(_detection(table, records) if detection.has_curves(records) else []),
    ]
    return "\n\n".join(parts)


def evaluation_table(records: Sequence[EvaluationRecord], beside: Sequence[Record] = ()) -> Table:
    """What is left of each target under each kind of attack, and under all together.

    Args:
        records: of one protocol, model and data set.
        beside: as in `marks.marks`.
    """
    (table,) = marked_tables(map(as_target_record, records), [*records, *beside])
    return table


def as_target_record(record: EvaluationRecord) -> TargetRecord:
    """The record as one of a table, in which each kind of attack, and all together, stand for attacks."""
    results = [result_of(record, CLEAN, 0.0, record.clean_hits)]
    kinds = [kind for kind in KINDS if any(trial.kind == kind for trial in record.trials)]
    for epsilon in record.epsilons:
        for kind in kinds:
            outcomes = record.standing_under(kind, epsilon)
            tried = outcomes[: record.query_images] if kind == QUERY else outcomes
            results.append(result_of(record, kind, epsilon, tried))
        results.append(result_of(record, WORST_CASE, epsilon, record.standing(epsilon)))
    results += [dataclasses.replace(result, attack=PAPER) for result in record.paper]
    return TargetRecord(**record.common(), results=tuple(results))


def result_of(record: EvaluationRecord, attack: str, epsilon: float, hits: Sequence[bool]) -> TransferResult:
    """What a target of an evaluation has right, image by image, as a result of a table."""
    return TransferResult(
        target=record.target,
        surrogate="",
        attack=attack,
        epsilon=epsilon,
        correct=sum(hits),
        total=len(hits),
        hits=packed(hits),
        images=record.images_digest,
    )


def what_is_left(table: Table, records: Sequence[EvaluationRecord]) -> list[list[str]]:
    """The lines of the main table, its head first: what is left of each target at each epsilon."""
    lines = [left_head(table)]
    for row, epsilon, cells, worst in left_lines(table, records):
        lines.append([row.target, f"{epsilon:g}", *(_shown(cell, row) for cell in cells), worst])
    return lines


def left_head(table: Table) -> list[str]:
    """What stands above the lines of `left_lines`."""
    return ["target", "epsilon", *(_COLUMNS[name] for name in _measured(table)), "surrogate that hurts most"]


def left_lines(
    table: Table, records: Sequence[EvaluationRecord]
) -> Iterator[tuple[Row, float, list[Cell | None], str]]:
    """For each target and epsilon what is left in the columns, and the surrogate that hurts most."""
    for row in table.rows:
        own = [record for record in records if record.target == row.target]
        for epsilon in table.epsilons:
            cells = [row.cell(name, 0.0 if name == CLEAN else epsilon) for name in _measured(table)]
            yield row, epsilon, cells, _worst_surrogate(own, epsilon)


def _measured(table: Table) -> list[str]:
    """The columns that the records have."""
    measured = {result.attack for record in table.records for result in record.results}
    return [name for name in _COLUMNS if name in measured]


def _shown(cell: Cell | None, row: Row) -> str:
    """A figure of a row, with the marks of its target."""
    return "-" if cell is None else f"{cell.accuracy:.1f}{''.join(row.marks)} <sub>{cell.spread}</sub>"


def _worst_surrogate(records: Sequence[EvaluationRecord], epsilon: float) -> str:
    """The surrogates whose images fool a target most often, all seeds together, and how often."""
    counts = {
        name: sum(sum(_fooled_by(record, epsilon, on_surrogate(name))) for record in records)
        for name in records[0].surrogates
    }
    most = max(counts.values(), default=0)
    return (
        f"{', '.join(name for name, count in counts.items() if count == most)} ({most})" if most else "none"
    )


def on_surrogate(surrogate: str) -> Callable[[TrialResult], bool]:
    """Tells whether a trial's images were made on a surrogate."""
    return lambda trial: trial.kind == TRANSFER and trial.surrogate == surrogate


def _fooled_by(record: EvaluationRecord, epsilon: float, counts: Callable[[TrialResult], bool]) -> list[bool]:
    """For each image that is right when clean whether one of the attacks fooled the target there."""
    standing = record.standing(epsilon, counts)
    return [right and not stands for right, stands in zip(record.clean_hits, standing, strict=True)]


def _only(record: EvaluationRecord, epsilon: float, counts: Callable[[TrialResult], bool]) -> int:
    """Images that these attacks fooled, and no other one of their kind and epsilon."""
    kinds = {trial.kind for trial in record.trials if counts(trial)}
    others = record.standing(epsilon, lambda trial: trial.kind in kinds and not counts(trial))
    return sum(a and b for a, b in zip(_fooled_by(record, epsilon, counts), others, strict=True))


def surrogate_lines(table: Table, records: Sequence[EvaluationRecord]) -> list[list[str]]:
    """A line for each surrogate, after a head: how it was trained, and whom its images fooled."""
    targets = list(dict.fromkeys(record.target for record in records))
    lines = [["surrogate", "trained", *_fooled_heads(table, targets)]]
    for name in dict.fromkeys(name for record in records for name in record.surrogates):
        # Seeds may share a surrogate, or each have its own.
        told = dict.fromkeys(
            entries(record.surrogates[name]) for record in records if name in record.surrogates
        )
        counts = [_counts(records, target, on_surrogate(name)) for target in targets]
        lines.append([name, "; ".join(told), *counts])
    return lines


def _fooled_heads(table: Table, targets: Sequence[str]) -> list[str]:
    return [f"{table.names[target]}: fooled, only by it" for target in targets]


def _counts(records: Sequence[EvaluationRecord], target: str, counts: Callable[[TrialResult], bool]) -> str:
    """How many images some attacks fooled, and how many they alone, all seeds together, at each epsilon.

    "-" where none of them was tried. Attacks on the target itself are each tried on the images that those
    before left: the second number would repeat the first, and is "-".
    """
    own = [record for record in records if record.target == target]
    trials = [trial for record in own for trial in record.trials if counts(trial)]
    at = {trial.epsilon for trial in trials}
    is_transfer = all(trial.kind == TRANSFER for trial in trials)
    cells = []
    for epsilon in own[0].epsilons:
        if epsilon not in at:
            cells.append("-")
            continue
        fooled = sum(sum(_fooled_by(record, epsilon, counts)) for record in own)
        only = str(sum(_only(record, epsilon, counts) for record in own)) if is_transfer else "-"
        cells.append(f"{fooled}, {only}")
    return " / ".join(cells)


def attack_lines(table: Table, records: Sequence[EvaluationRecord]) -> list[list[str]]:
    """A line for each attack in the order of the protocol, after a head: settings, cost, whom it fooled."""
    targets = list(dict.fromkeys(record.target for record in records))
    heads = ["attack", "on", "settings", "cost of an image", "images tried"]
    lines = [[*heads, *_fooled_heads(table, targets)]]
    # The last of several versions, which differ in their random draws, has the highest number.
    trials = {_key(trial): trial for record in records for trial in record.trials}
    for key, trial in trials.items():
        times = trial.version + 1
        starts = f", {times} times with other random draws" if times > 1 else ""
        cost = f"{trial.queries} queries" if trial.queries else f"{times * trial.gradients} gradients"
        lines.append(
            [
                trial.attack,
                trial.surrogate or "the target",
                attack_settings(trial.settings) + starts,
                cost,
                _tried(records, key),
                *(_counts(records, target, _is(key)) for target in targets),
            ]
        )
    return lines


def _tried(records: Sequence[EvaluationRecord], key: str) -> str:
    """The largest number of images that an attack was tried on, at each epsilon; "-" where it was not."""
    counts: dict[float, list[int]] = {epsilon: [] for epsilon in records[0].epsilons}
    for record in records:
        for trial in record.trials:
            if _key(trial) == key:
                counts[trial.epsilon].append(sum(unpacked(trial.tried, record.images)))
    return " / ".join(str(max(found)) if found else "-" for found in counts.values())


def _key(trial: TrialResult) -> str:
    """What tells an attack of a protocol, whatever its epsilon and random draws."""
    return f"{trial.kind}, {trial.attack}, {trial.surrogate}, {trial.settings}"


def _is(key: str) -> Callable[[TrialResult], bool]:
    return lambda trial: _key(trial) == key


def _checks(records: Sequence[EvaluationRecord]) -> list[str]:
    """A table for each target and seed of what was looked for, and a word on what a failed check means."""
    parts = []
    for record in records:
        lines = [[f"{record.target}, seed {record.seed}", "passed", "what was found"]]
        for check in record.checks:
            passed = "yes" if check["passed"] else f"**no** {MASKED}"
            lines.append([record.check_name(check), passed, check["sentence"]])
        parts.append(grid_markdown(lines))
    return [
        f"At epsilon {min(records[0].epsilons):g} if no other is named. A target that fails one has "
        f"{MASKED} at its figures, or at its name where figures of it stand: they may tell more of the "
        "attacks than of the target.",
        *parts,
    ]


def _detection(table: Table, records: Sequence[EvaluationRecord]) -> list[str]:
    return ["#### Detection", detection.note(records), grid_markdown(detection.lines(table, records))]


def notes_on(table: Table, records: Sequence[EvaluationRecord]) -> list[str]:
    """What the main table says of itself: images, order, paired gains, analysis and budget."""
    seeds = any(len(row.records) > 1 for row in table.rows)
    spread = "±: standard deviation over n seeds" if seeds else "[ ]: 95 % Wilson interval"
    stored = {record.stored_as for record in records} - {"float32"}
    names = set(table.targets)
    asked = f", in the column Square the first {records[0].query_images}" if records[0].query_images else ""
    return [
        f"Accuracy in percent; images: the first {records[0].images} test images{asked}; {spread}. An image "
        "counts only if it is classified as labelled when clean and under every attack of the column",
        "Images that have fooled every target are left out of further attacks on a surrogate, those that "
        "have fooled a target of further attacks on itself. So an attack that comes early is credited, as "
        "only by it among those of its kind, with images that a later one might have fooled too. Of attacks "
        "on the target itself - stands in place of that number: what one of them fools is left out of the "
        "next, so that it would repeat the number fooled",
        *([_ASKED] if any(map(_asked_for_more, records)) else []),
        *([_PAPERS] if any(record.paper for record in records) else []),
        *([f"Targets saw adversarial images stored as {', '.join(sorted(stored))}"] if stored else []),
        *(
            line
            for ours, theirs in COMPARED
            if {ours, theirs} <= names
            for line in _gains(table, ours, theirs)
        ),
        *([captions.NOISE_ALONE] if {"T_Div", "T_Base"} <= names and "T_Noise" not in names else []),
        *captions.analyses(records),
        *captions.budgets(records),
        # Where there are checks, they say what the mark means.
        *([] if any(record.checks for record in records) else captions.masked_line(table)),
    ]


def _gains(table: Table, ours: str, theirs: str) -> list[str]:
    """Lines on what a target gains over another: in points, in each column that both have, then in pairs."""
    gained = _gained(table, ours, theirs)
    parts = [f"{_COLUMNS[name]} {' / '.join(map(signed, gains))}" for name, gains in gained.items()]
    shown = " / ".join(f"{epsilon:g}" for epsilon in table.epsilons)
    over = f"{table.names[ours]} over {table.names[theirs]}"
    heads = {name: _COLUMNS[name] for name in gained}
    return [
        f"{over}, points at epsilon {shown}: {', '.join(parts)}",
        *paired_lines(table, ours, theirs, heads),
    ]


def _gained(table: Table, ours: str, theirs: str) -> dict[str, list[float]]:
    """What a target gains over another in each column that both have, in points at each epsilon."""
    rows = {row.target: row for row in table.rows}
    gained = {}
    for name in _COLUMNS:
        at = [0.0] if name == CLEAN else table.epsilons
        pairs = [(rows[ours].cell(name, epsilon), rows[theirs].cell(name, epsilon)) for epsilon in at]
        gains = [mine.accuracy - other.accuracy for mine, other in pairs if mine and other]
        if len(gains) == len(at):
            gained[name] = gains
    return gained


def _asked_for_more(record: EvaluationRecord) -> bool:
    """Whether queries attacked others than the first images."""
    return any(
        any(unpacked(trial.tried, record.images)[record.query_images :])
        for trial in record.trials
        if trial.kind == QUERY
    )
