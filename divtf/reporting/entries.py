"""Names and values in words: budgets, and settings of attacks and surrogates."""

from collections.abc import Mapping
from typing import Any


def entries(values: Mapping[str, Any]) -> str:
    """The entries in order, as "steps 30, step 0.1"."""
    return ", ".join(entry(name, value) for name, value in values.items())


def attack_settings(values: Mapping[str, Any]) -> str:
    """An attack's settings, without what is as it usually is, and without parts that its fields tell."""
    usual = {"shrink": False, "random_start": False, "restarts": 1, "nesterov": False}
    told = {name: value for name, value in values.items() if usual.get(name) != value and name != "parts"}
    return entries(told)


def entry(name: str, value: Any) -> str:
    """One entry: a switch as yes or no, a share in percent, "reduced" in a sentence."""
    if name == "reduced" and value is None:
        return "a budget of its own: the paper has none for this model"
    if name == "reduced":
        return "REDUCED: less than the paper's" if value else "not reduced: the paper's"
    if name == "clean accuracy" and value is not None:
        return f"clean accuracy {100 * value:.1f} % on the attacked images"
    if name == "parts":
        return "; ".join(value)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
