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
# Of McNemar's test: below it, that attacked images are easier than clean ones is no chance.
_SIGNIFICANT = 0.05


def leaks(record: TargetRecord | ComparisonRecord) -> bool:
    """Whether a target has images right because they were attacked, by labels."""
    return any(_is_easier(entry) for entry in record.on_static_models)


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
        entries = [entry for record in row.records for entry in record.on_static_models]
        told = [
            f"{entry['attack']} on {entry['model']} at {entry['epsilon']:g} {_share(entry, 'right')} "
            f"(clean {_share(entry, 'right clean')}){f' {MARK}' if _is_easier(entry) else ''}"
            for entry in entries
        ]
        if told:
            lines.append(f"{row.target} on test images of its own static models, %: {', '.join(told)}")
    return [*lines, _EXPLAINED] if any(map(leaks, table.records)) else lines


def _is_easier(entry: Mapping[str, Any]) -> bool:
    """Whether attacked images are right more often than clean ones, by an attack that knows the labels."""
    compared = Paired(entry["only attacked"], entry["only clean"], entry["total"])
    by_labels = not _by_no_labels(entry["attack"])
    return by_labels and compared.difference > 0 and compared.p_value < _SIGNIFICANT


def _by_no_labels(attack: str) -> bool:
    return attack.endswith("_ll")


def _share(entry: Mapping[str, Any], name: str) -> str:
    return f"{100 * entry[name] / entry['total']:.1f}"
