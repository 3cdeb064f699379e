"""Label leaking in words: which targets read labels off the images that they were trained on."""

from collections.abc import Mapping
from typing import Any

from divtf.reporting.paired import Paired
from divtf.reporting.tables import Table
from divtf.storage.evaluations import ComparisonRecord
from divtf.storage.records import TargetRecord

MARK = "‡"
_EXPLAINED = (
    f"{MARK} label leaking: attacked images are easier than clean ones, since the change tells the true "
    "class. Accuracy on images of such attacks says nothing of robustness"
)
# Of all of a record's tests by McNemar together: below it, that attacked images are easier is no chance.
_SIGNIFICANT = 0.05


def leaks(record: TargetRecord | ComparisonRecord) -> bool:
    """Whether a target has images right because they were attacked, by labels.

    One of the record's tests has to tell it, of as many as there are attacks by labels, static models and
    epsilons. So each is held to its share of the level 0.05: where nothing leaks, one in twenty records is
    marked at most (Bonferroni), and a target of several seeds more often.
    """
    return any(_are_easier(record))


def unexamined(record: TargetRecord | ComparisonRecord) -> bool:
    """Whether a target learnt from images that were attacked by labels, and nothing tells of its leaking.

    So it is with records of older versions; of those that do not name the attack it is the paper's, FGSM.
    """
    papers = "fgsm" if record.target in ("T_Ens", "T_Ens+Div") else ""
    attacks = record.budget.get("static attack", papers).split(", ")
    return not record.on_static_models and any(attack and not _by_no_labels(attack) for attack in attacks)


def leaking_lines(table: Table) -> list[str]:
    """Caption lines on what targets do with images of the static models of their training, one a target."""
    lines = []
    for row in table.rows:
        told = [
            f"{entry['attack']} on {entry['model']} at {entry['epsilon']:g} {_share(entry, 'right')} "
            f"(clean {_share(entry, 'right clean')}){f' {MARK}' if is_easier else ''}"
            for record in row.records
            for entry, is_easier in zip(record.on_static_models, _are_easier(record), strict=True)
        ]
        if told:
            lines.append(f"{row.name} on test images of its own static models, %: {', '.join(told)}")
    return [*lines, _EXPLAINED] if any(map(leaks, table.records)) else lines


def _are_easier(record: TargetRecord | ComparisonRecord) -> list[bool]:
    """For each entry whether images attacked by labels are right more often than clean ones."""
    entries = record.on_static_models
    tests = sum(not _by_no_labels(entry["attack"]) for entry in entries)
    return [_is_easier(entry, _SIGNIFICANT / max(tests, 1)) for entry in entries]


def _is_easier(entry: Mapping[str, Any], level: float) -> bool:
    compared = Paired(entry["only attacked"], entry["only clean"], entry["total"])
    by_labels = not _by_no_labels(entry["attack"])
    return by_labels and compared.difference > 0 and compared.p_value < level


def _by_no_labels(attack: str) -> bool:
    return attack.endswith("_ll")


def _share(entry: Mapping[str, Any], name: str) -> str:
    return f"{100 * entry[name] / entry['total']:.1f}"
