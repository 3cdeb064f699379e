"""Caption lines on attacks: each of them and the surrogate whole, and what each adds to the others."""

from collections.abc import Iterator

from divtf.reporting.entries import attack_settings, entries
from divtf.reporting.labels import attack_of
from divtf.reporting.tables import Row, Table
from divtf.storage.records import CLEAN, TransferResult


def under_attack(table: Table) -> list[str]:
    """Lines on the attacks, on each surrogate and on what single attacks add, as far as recorded."""
    return [*_attacks(table), *_surrogates(table), *_only(table)]


def _attacked(table: Table) -> Iterator[TransferResult]:
    for record in table.records:
        yield from (result for result in record.results if result.attack != CLEAN)


def _attacks(table: Table) -> list[str]:
    told = [result for result in _attacked(table) if result.settings or result.surrogate_settings]
    texts = dict.fromkeys(
        " ".join([attack_of(result.attack), attack_settings(result.settings)]).strip()
        for label in table.attacks
        for result in told
        if result.attack == label
    )
    return [f"Attacks: {'; '.join(texts)}"] if texts else []


def _surrogates(table: Table) -> list[str]:
    texts = dict.fromkeys(
        f"Surrogate {result.surrogate}: {entries(result.surrogate_settings)}"
        for result in _attacked(table)
        if result.surrogate_settings
    )
    return list(texts)


def _only(table: Table) -> list[str]:
    parts = [part for row in table.rows if (part := _only_of(table, row))]
    at = " / ".join(f"{epsilon:g}" for epsilon in table.epsilons)
    return [f"Images that one attack alone fools, at epsilon {at}: {'; '.join(parts)}"] if parts else []


def _only_of(table: Table, row: Row) -> str:
    """A target's part of that line: "T_Base fgsm 0 / 1, pgd_cw 2 / 5"; "" where it is not known."""
    parts = []
    for label in table.attacks:
        counts = [row.only(label, epsilon) for epsilon in table.epsilons]
        if any(count is not None for count in counts):
            shown = " / ".join("-" if count is None else str(count) for count in counts)
            parts.append(f"{label} {shown}")
    return f"{row.name} {', '.join(parts)}" if parts else ""
