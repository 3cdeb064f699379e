"""Labels: what tells two results of one attack apart, as "pgd_cw, steps 5"."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from divtf.reporting.entries import entry
from divtf.storage.records import CLEAN, WORST_CASE, TargetRecord, TransferResult


def labelled(records: Sequence[TargetRecord]) -> list[TargetRecord]:
    """The records with labels for names of attacks.

    A label is the attack's name and those of its settings in which results of the attack differ; what a
    result does not tell is no difference, so that older records stand beside newer ones.
    """
    differing = _differing([result for record in records for result in record.results])

    def named(result: TransferResult) -> TransferResult:
        told = [entry(name, value) for name, value in _told(result) if (result.attack, name) in differing]
        return dataclasses.replace(result, attack=", ".join([result.attack, *told]))

    return [
        dataclasses.replace(record, results=tuple(map(named, record.results))) if differing else record
        for record in records
    ]


def attack_of(label: str) -> str:
    """The attack, or `CLEAN` or `WORST_CASE`, of a label."""
    return label.split(", ")[0]


def is_worst_case(label: str) -> bool:
    """Whether it is that of all attacks of an epsilon."""
    return attack_of(label) == WORST_CASE


def _differing(results: Sequence[TransferResult]) -> set[tuple[str, str]]:
    """(attack, name) of each setting that has several values."""
    values: dict[tuple[str, str], list[Any]] = {}
    for result in results:
        # Parts are mostly told by their settings.
        for name, value in (told for told in _told(result) if told[0] != "parts"):
            known = values.setdefault((result.attack, name), [])
            if value not in known:
                known.append(value)
    differing = {key for key, known in values.items() if len(known) > 1}
    return differing | {(attack, "parts") for attack in _told_by_parts(results)}


def _told_by_parts(results: Sequence[TransferResult]) -> set[str]:
    """Attacks of which results differ in their parts alone: pieces of one's own may have no settings."""
    seen: dict[tuple[str, str], list[str]] = {}
    found = set()
    for result in results:
        if "parts" in result.settings:
            fields = repr([entry for entry in _told(result) if entry[0] != "parts"])
            parts = seen.setdefault((result.attack, fields), result.settings["parts"])
            if parts != result.settings["parts"]:
                found.add(result.attack)
    return found


def _told(result: TransferResult) -> list[tuple[str, Any]]:
    """Names and values by which a result may differ from another of its attack."""
    if result.attack == CLEAN:
        return []
    return [*result.settings.items(), ("stored as", result.stored_as)]
