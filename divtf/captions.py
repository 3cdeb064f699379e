"""Captions: what a table says of itself: images, uncertainty, seeds, budget, commit, gain. No TensorFlow."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from divtf.records import CLEAN, TargetRecord
from divtf.tables import Table, gains


def quantity(table: Table) -> str:
    """What the numbers of a table are, and at which epsilons."""
    at = " / ".join(f"{epsilon:g}" for epsilon in table.epsilons)
    return f"accuracy in percent{f' at epsilon {at}' if at else ''}"


def signed(points: float) -> str:
    """A difference with its sign, to a tenth; never "-0.0"."""
    return f"{round(points, 1) + 0.0:+.1f}"


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
    seeds = ", ".join(str(seed) for seed in sorted({record.seed for record in table.records}))
    surrogates = sorted({result.surrogate for result in results} - {""})
    parts = [
        f"Images: {', '.join(images) or 'none'}",
        "[ ]: 95 % Wilson interval" if singles else "",
        "±: standard deviation over n seeds" if deviations else "",
        f"{mark}: strongest attack" if table.attacks else "",
        f"surrogate: {', '.join(surrogates)}" if surrogates else "",
        f"saturated images: up to {100 * saturated:.1f} %" if saturated else "",
        f"seeds: {seeds}" if "," in seeds else f"seed: {seeds}",
    ]
    return "; ".join(part for part in parts if part)


def _range(values: set[int]) -> str:
    return "-".join(str(value) for value in sorted({min(values), max(values)}))


def budgets(table: Table) -> list[str]:
    """One line for each budget: its entries in order, and the targets where they differ in it."""
    shared = _grouped(table, lambda record: _entries(record.budget))
    several = len(shared) > 1
    return [
        f"Budget{f' of {names}' if several else ''}: {budget or 'not recorded'}"
        for budget, names in shared.items()
    ]


def provenance(table: Table) -> list[str]:
    """One line for each command, then one for each commit, that the records name."""
    lines = []
    for entry in ("command", "commit"):
        shared = _grouped(table, functools.partial(_provenance_entry, entry))
        several = len(shared) > 1
        for value, names in shared.items():
            lines.append(f"{entry.capitalize()}{f' of {names}' if several else ''}: {value}")
    return lines


def _provenance_entry(name: str, record: TargetRecord) -> str:
    return str(record.provenance.get(name) or "not recorded")


def _grouped(table: Table, key: Callable[[TargetRecord], str]) -> dict[str, str]:
    """Key -> the names of the targets with that key."""
    groups: dict[str, dict[str, None]] = {}
    for record in table.records:
        groups.setdefault(key(record), {})[record.target] = None
    return {value: ", ".join(names) for value, names in groups.items()}


def _entries(budget: Mapping[str, Any]) -> str:
    return ", ".join(_entry(name, value) for name, value in budget.items())


def _entry(name: str, value: Any) -> str:
    if name == "reduced":
        return "REDUCED: less than the paper's" if value else "not reduced: the paper's"
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


NOISE_ALONE = (
    "T_Div also trains on noisy images, and so for twice as many steps as T_Base: the gain is not GAL's "
    "alone. T_Noise (mode noise) has both without GAL"
)


def gain(table: Table) -> list[str]:
    """What T_Div gains over T_Base, and over T_Noise, which sees the same images without GAL."""
    lines = _gain(table, "T_Base") + _gain(table, "T_Noise")
    return [*lines, NOISE_ALONE] if len(lines) == 1 and "T_Base" in lines[0] else lines


def _gain(table: Table, base: str) -> list[str]:
    """The line on what T_Div gains over a target; none if one of them is missing."""
    found = gains(table, base=base)
    clean = [f"clean {signed(gain.mean)}" for gain in found if gain.epsilon == 0]
    attacked = [gain for gain in found if gain.epsilon]
    if not found:
        return []
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
    return [f"T_Div over {base}, points{where}: {', '.join(parts)}"]
