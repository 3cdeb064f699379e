"""Captions: what tables and pictures say of themselves, as images, budget, command, hours."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from divtf.reporting.cells import signed
from divtf.reporting.entries import entries
from divtf.reporting.labels import is_worst_case
from divtf.reporting.leaking import leaking_lines
from divtf.reporting.marks import MASKED, names_of
from divtf.reporting.paired import COMPARED, paired_lines
from divtf.reporting.tables import Row, Table, common_seeds, gains
from divtf.reporting.transfer_matrix import TransferMatrix
from divtf.reporting.under_attack import under_attack
from divtf.storage.records import (
    CLEAN,
    GaasRecord,
    Record,
    SparsityRecord,
    TransferMatrixRecord,
    attacks,
    epsilons,
    grouped,
)


def quantity(table: Table) -> str:
    """What the numbers of a table are, and at which epsilons."""
    at = " / ".join(f"{epsilon:g}" for epsilon in table.epsilons)
    return f"accuracy in percent{f' at epsilon {at}' if at else ''}"


def measure(table: Table, mark: str = "*") -> str:
    """On how many images, with what uncertainty, on which surrogate and seeds."""
    results = [result for record in table.records for result in record.results]
    clean = {result.total for result in results if result.attack == CLEAN}
    attacked = {result.total for result in results if result.attack != CLEAN}
    images = [
        f"{_range(totals)} {kind}" for totals, kind in ((clean, "clean"), (attacked, "attacked")) if totals
    ]
    deviations = any(len(row.records) > 1 for row in table.rows)
    singles = any(len(row.records) == 1 for row in table.rows)
    saturated = max((result.saturated for result in results), default=0.0)
    unmoved = max((result.unmoved or 0 for result in results), default=0)
    stored = sorted({result.stored_as for result in results} - {"float32"})
    surrogates = sorted({result.surrogate for result in results} - {""})
    parts = [
        f"Images: {', '.join(images) or 'none'}",
        "[ ]: 95 % Wilson interval" if singles else "",
        "±: standard deviation over n seeds" if deviations else "",
        f"{mark}: strongest attack" if table.attacks else "",
        f"surrogate: {', '.join(surrogates)}" if surrogates else "",
        f"targets see adversarial images stored as {', '.join(stored)}" if stored else "",
        f"saturated images: up to {100 * saturated:.1f} %" if saturated else "",
        f"images that an attack left unmoved: up to {unmoved}" if unmoved else "",
        _seeds(table.records),
    ]
    return "; ".join(part for part in parts if part)


def _range(values: set[int]) -> str:
    return "-".join(str(value) for value in sorted({min(values), max(values)}))


def budgets(records: Sequence[Record]) -> list[str]:
    """One line for each budget: its entries in order, and the targets where they differ in it."""
    return _shared("Budget", records, lambda record: entries(record.budget))


def provenance(records: Sequence[Record]) -> list[str]:
    """One line for each command, then one for each commit, that the records name."""
    return commands(records) + commits(records)


def commands(records: Sequence[Record]) -> list[str]:
    """One line for each command that trained the targets."""
    return _shared("Command", records, lambda record: record.provenance.get("command"))


def commits(records: Sequence[Record]) -> list[str]:
    """One line for each commit that trained the targets."""
    return _shared("Commit", records, lambda record: record.provenance.get("commit"))


def hours(records: Sequence[Record]) -> list[str]:
    """A line with the hours of each target's training, all seeds together; none where none are known."""
    parts = []
    for target, seeds_of_target in grouped(records, lambda record: record.target).items():
        provenances = [record.provenance for record in seeds_of_target]
        known = [provenance["hours"] for provenance in provenances if "hours" in provenance]
        seeds = f" ({len(known)} seeds)" if len(known) > 1 else ""
        parts += [f"{target} {sum(known):.2g}{seeds}"] if known else []
    return [f"Hours of training, surrogate and static model left out: {', '.join(parts)}"] if parts else []


def coherence(table: Table) -> list[str]:
    """A line with the mean coherence of each target over clean test images and seeds; Eq. 7."""
    parts = []
    for row in table.rows:
        values = [value for record in row.records for value in record.coherence]
        parts += [f"{row.name} {round(statistics.fmean(values), 2) + 0.0:.2f}"] if values else []
    return [f"Mean coherence (Equation 7) on clean test images: {', '.join(parts)}"] if parts else []


def masked_line(table: Table) -> list[str]:
    """A line on the targets that have the mark of masked gradients."""
    masked = [row.target for row in table.rows if MASKED in row.marks]
    if not masked:
        return []
    told = f"{MASKED} {', '.join(masked)}: an evaluation has found signs of masked gradients"
    return [f"{told}, by which attacks may look weaker than they are"]


def gaas(records: Sequence[GaasRecord], beside: Sequence[Record] = ()) -> list[str]:
    """What the figure of GAAS says of itself; section 4.4. `beside` as in `marks.marks`."""
    curves = [curve for record in records for curve in record.curves]
    orders = sorted({curve["order"] for curve in curves})
    epsilons = sorted({curve["epsilon"] for curve in curves})
    means, names = [], names_of(records, beside)
    for record in records:
        largest = [curve["mean_successes"] for curve in record.curves if curve["order"] == orders[-1]]
        means.append(f"{names[record.target]} {' / '.join(f'{mean:.1f}' for mean in largest)}")
    lines = [
        "Probability, over the test images that a target classifies correctly, of at least m orthogonal "
        "directions of l_inf norm epsilon that change its prediction (white box; section 4.4, Figure 5)",
        f"k in {{{', '.join(map(str, orders))}}}: the paper's 25 is the order of no Hadamard matrix",
        f"Images: the first {_range({record.images for record in records})} test images, of which "
        f"{_range({curve['images'] for curve in curves})} count; {_seeds(records)}",
        f"Successful directions of {orders[-1]}, on average, at epsilon "
        f"{' / '.join(f'{epsilon:g}' for epsilon in epsilons)}: {', '.join(means)}",
    ]
    return [*lines, *analyses(records), *budgets(records), *provenance(records), *hours(records)]


def transfer_matrix(records: Sequence[TransferMatrixRecord], beside: Sequence[Record] = ()) -> list[str]:
    """What a transfer matrix says of itself, and its figures, a line for each source.

    It stands below the table of the same targets, which says how they were trained. `beside` as in
    `marks.marks`.
    """
    matrix, budgets_, written = TransferMatrix(records), epsilons(records), names_of(records, beside)
    at = " / ".join(f"{epsilon:g}" for epsilon in budgets_)
    names = ", ".join(attacks(records)) or "no attack"
    lines = [
        f"Accuracy in percent at epsilon {at} on images that {names} makes on each ensemble; on a "
        f"target's own images: white box{_counted(records)}",
        f"Images: the first {_range({result.total for record in records for result in record.results})} test "
        f"images; {_seeds(records)}. Targets of one seed start from the same weights",
    ]
    for source in matrix.sources:
        cells = {target: [matrix.accuracy(source, target, e) for e in budgets_] for target in matrix.targets}
        known = {target: row for target, row in cells.items() if not all(map(math.isnan, row))}
        whose = {source: " (its own)"}
        texts = [
            f"{written[target]} {' / '.join(f'{value:.1f}' for value in row)}{whose.get(target, '')}"
            for target, row in known.items()
        ]
        lines.append(f"On images of {source}: {', '.join(texts)}")
    return [*lines, *analyses(records)]


def _counted(records: Sequence[TransferMatrixRecord]) -> str:
    """Which images count; records of earlier versions, which keep no outcomes, count by the attacks alone."""
    results = [result for record in records for result in record.results]
    return "; an image counts if it is right when clean, too" if all(each.hits for each in results) else ""


def sparsity(records: Sequence[SparsityRecord], beside: Sequence[Record] = ()) -> list[str]:
    """What the figure of the ReLU ablation says of itself; section 3.4. `beside` as in `marks.marks`."""
    names = names_of(records, beside)
    lines = ["Exact zeros among the entries of the input gradients on test images, and their product terms"]
    for record in records:
        shares = f"{100 * record.zero_entries:.2f} % and {100 * record.zero_products:.2f} %"
        course = f"GAL {record.gal[0]:.3f} in epoch 1, {record.gal[-1]:.3f} in epoch {len(record.gal)}"
        lines.append(f"{names[record.target]}, seed {record.seed}: {shares}; {course}")
    return [*lines, *budgets(records), *provenance(records), *hours(records)]


def _seeds(records: Sequence[Record], separator: str = ": ") -> str:
    seeds = sorted({record.seed for record in records})
    return f"seed{'s' if len(seeds) > 1 else ''}{separator}{', '.join(map(str, seeds))}"


def analyses(records: Sequence[Any]) -> list[str]:
    """One line for each command, then one for each commit, that analysed the targets."""
    return [
        *_shared("Command of the analysis", records, lambda record: record.analysis.get("command")),
        *_shared("Commit of the analysis", records, lambda record: record.analysis.get("commit")),
    ]


def _shared(name: str, records: Sequence[Any], value: Callable[[Any], Any]) -> list[str]:
    """A line for each value; the targets that have it where they differ, and seeds where those do."""
    groups = grouped(records, lambda record: str(value(record) or "not recorded"))
    targets = {text: dict.fromkeys(record.target for record in group) for text, group in groups.items()}
    by_seed = sum(map(len, targets.values())) > len({record.target for record in records})
    lines = []
    for text, group in groups.items():
        whose = ", ".join(targets[text]) + (f" at {_seeds(group, ' ')}" if by_seed else "")
        lines.append(f"{name}{f' of {whose}' if len(groups) > 1 else ''}: {text}")
    return lines


def summary(table: Table) -> str:
    """A table in one sentence: budget, and what each target keeps under the strongest attack."""
    reduced = [record.budget.get("reduced", False) for record in table.records]
    budget = "REDUCED budget" if any(reduced) else "the paper's budget"
    if None in reduced:
        budget = "a budget of its own"
    accuracies = ", ".join(f"{row.name} {_lowest(table, row)}" for row in table.rows)
    under = "under the strongest attack" if table.attacks else "on clean images"
    return f"{table.title}, {budget}, {_seeds(table.records)}; {quantity(table)}, {under}: {accuracies}"


def _lowest(table: Table, row: Row) -> str:
    """The lowest accuracy of a target at each epsilon; on clean images where nothing was attacked."""
    lowest = []
    for epsilon, names in [(epsilon, table.attacks) for epsilon in table.epsilons] or [(0.0, (CLEAN,))]:
        cells = [cell for name in names if (cell := row.cell(name, epsilon))]
        lowest.append(f"{min(cell.accuracy for cell in cells):.1f}" if cells else "-")
    return " / ".join(lowest)


def notes(table: Table, origin: Callable[[Sequence[Record]], Sequence[str]] = provenance) -> list[str]:
    """All that Table 2 says of itself below its figures, but what they are and how they are marked.

    Args:
        table: of targets.
        origin: lines on what made its records.
    """
    records = table.records
    return [
        *under_attack(table),
        *earlier_worst_case(table),
        *budgets(records),
        *origin(records),
        *hours(records),
        *coherence(table),
        *gain(table),
        *leaking_lines(table),
        *masked_line(table),
    ]


def earlier_worst_case(table: Table) -> list[str]:
    """A line where the worst case is that of an earlier version, whose records keep no outcomes by image."""
    results = [result for record in table.records for result in record.results]
    if not any(is_worst_case(result.attack) and not result.hits for result in results):
        return []
    return ["The worst case, of an earlier version, may count images that are wrong when clean"]


UNPAIRED = (
    "There is no paired test of this: the records tell no outcomes of the same images. A gain within the "
    "intervals may be chance"
)
NOISE_ALONE = (
    "T_Div also trains on noisy images, and so for twice as many steps as T_Base: the gain is not GAL's "
    "alone. T_Noise (mode noise) has both without GAL"
)


def gain(table: Table) -> list[str]:
    """What targets with GAL gain over others; over T_Noise, of the same images, the gain is GAL's alone."""
    told = [lines for ours, theirs in COMPARED if (lines := _gain(table, ours, theirs))]
    names = {row.target for row in table.rows}
    alone = {"T_Div", "T_Base"} <= names and "T_Noise" not in names
    # What is said of several, that there is no test, is said once.
    return [*dict.fromkeys(line for lines in told for line in lines), *([NOISE_ALONE] if alone else [])]


def _of(table: Table, *targets: str) -> str:
    """Of which seeds a gain is, where the targets' rows have others, too."""
    ours, theirs = (row for row in table.rows if row.target in targets)
    seeds = common_seeds(ours, theirs)
    whole = len(seeds) == len(ours.records) == len(theirs.records)
    return "" if whole else f", of seeds {', '.join(map(str, seeds))} alone"


def _gain(table: Table, target: str, base: str) -> list[str]:
    """The lines on what a target gains over another; none if one of them is missing."""
    compared = gains(table, target, base)
    if not compared:
        return []
    clean = [f"clean {signed(gain.mean)}" for gain in compared if gain.epsilon == 0]
    attacked = [gain for gain in compared if gain.epsilon]
    parts = clean
    if attacked:
        count = _range({gain.attacks for gain in attacked})
        parts = [
            f"strongest attack {' / '.join(signed(gain.worst) for gain in attacked)}",
            f"mean of {count} {' / '.join(signed(gain.mean) for gain in attacked)}",
            *clean,
        ]
    at = " / ".join(f"{gain.epsilon:g}" for gain in attacked)
    where = f" at epsilon {at}" if at else ""
    over = f"{table.names[target]} over {table.names[base]}"
    line = f"{over}, points{where}{_of(table, target, base)}: {', '.join(parts)}"
    paired = paired_lines(table, target, base)
    return [line, *([UNPAIRED] if attacked and not paired else paired)]
