"""Tables of what `benchmarks.explanations` found: with and without each explanation, and all accuracies."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import timing
from divtf.data.paper import SETUPS, TARGETS, paper_accuracy
from divtf.reporting.cells import signed, signed_range
from divtf.reporting.markdown import grid_markdown
from divtf.reporting.paired import paired
from divtf.storage.records import unpacked

AS_TRAINED = "as published"
"""The surrogate that the table's targets were attacked from."""
WITH = " with "
"""Stands in the name of an attack or target between what it is else, and what is changed."""
SOURCES_TRIED_BY = "ifgsm"
"""The attack by which surrogates are compared, and ways to train T_Ens."""

Hits = Mapping[str, Mapping[str, str]]
"""Surrogate -> attack -> which images a target classifies as labelled, `packed`; "none" has "clean"."""
Place = tuple[str, str, str]
"""Target, surrogate, attack."""


def explanations(found: Mapping[str, Hits]) -> Iterator[tuple[str, Place, Place]]:
    """What is told apart: an explanation, a place where it holds, and the same place without it.

    Attacks come first, then surrogates, then ways to train; variants of a target tell the last of them alone.
    """
    usual_targets = {name: each for name, each in found.items() if WITH not in name and AS_TRAINED in each}
    for attack in dict.fromkeys(attack for each in usual_targets.values() for attack in each[AS_TRAINED]):
        usual, changed, change = attack.partition(WITH)
        if changed:
            for target in usual_targets:
                yield f"{usual}: {change}", (target, AS_TRAINED, attack), (target, AS_TRAINED, usual)
    sources = dict.fromkeys(name for each in usual_targets.values() for name in each)
    for source in [name for name in sources if name not in ("none", AS_TRAINED)]:
        for target in [name for name, each in usual_targets.items() if source in each]:
            without = (target, AS_TRAINED, SOURCES_TRIED_BY)
            yield f"surrogate: {source}", (target, source, SOURCES_TRIED_BY), without
    for target in found:
        usual, _, change = target.partition(WITH)
        if change and usual in usual_targets:
            place = (target, AS_TRAINED, SOURCES_TRIED_BY)
            yield f"training: {change}", place, (usual, AS_TRAINED, SOURCES_TRIED_BY)


def accuracy(record: Mapping[str, Any], place: Place) -> float:
    """Of a place, in percent."""
    outcomes = _outcomes(record, place)
    return 100 * sum(outcomes) / len(outcomes)


def markdown(record: Mapping[str, Any]) -> str:
    """The table of explanations, then for each surrogate one of accuracies, targets by attacks."""
    lines = [*timing.head(record), *_reduced(record["budget"]), "## With and without each explanation", ""]
    grid = [["explanation", "target", "attack", "without, %", "with, %", "points (95 %)", "paper, %"]]
    grid += [_line(record, *explanation) for explanation in explanations(record["found"])]
    lines += [grid_markdown(grid), ""]
    lines += [
        "- (95 %): image by image (Agresti and Min 2005), so of other images, not of other training runs",
        f"- Surrogates and ways to train are told by {SOURCES_TRIED_BY} here, by the other attacks below",
        "",
    ]
    found = record["found"]
    for surrogate in dict.fromkeys(name for of_target in found.values() for name in of_target):
        lines += [f"## Surrogate: {surrogate}", "", grid_markdown(_grid(record, surrogate), numbers=True), ""]
    return "\n".join(lines)


def paper_target(target: str) -> str:
    """The row of Table 2 that a target stands in: T_Ens for "T_Ens of 2 epochs with uniform budgets"."""
    return target.partition(" of ")[0]


def _reduced(budget: Mapping[str, Any]) -> list[str]:
    whole = SETUPS[budget["model"]].epochs
    shorter = min(budget["epochs"], budget["epochs here"]) < whole
    return [f"REDUCED: fewer epochs than the paper's {whole}", ""] if shorter else []


def _outcomes(record: Mapping[str, Any], place: Place) -> tuple[bool, ...]:
    target, surrogate, attack = place
    return unpacked(record["found"][target][surrogate][attack], record["budget"]["images"])


def _paper(record: Mapping[str, Any], target: str, attack: str) -> str:
    budget = record["budget"]
    epsilon = 0.0 if attack == "clean" else budget["epsilon"]
    name = attack.partition(WITH)[0]
    value = paper_accuracy(budget["model"], paper_target(target), name, epsilon)
    return "" if value is None else f"{value:.1f}"


def _line(record: Mapping[str, Any], explanation: str, with_it: Place, without: Place) -> list[str]:
    compared = paired(_outcomes(record, with_it), _outcomes(record, without))
    target, _, attack = without
    return [
        *(explanation, target, attack),
        *(f"{accuracy(record, place):.1f}" for place in (without, with_it)),
        f"{signed(compared.difference)} ({signed_range(compared.interval)})",
        _paper(record, target, attack),
    ]


def _grid(record: Mapping[str, Any], surrogate: str) -> list[list[str]]:
    shown = [target for target, of_target in record["found"].items() if surrogate in of_target]
    attacks = list(record["found"][shown[0]][surrogate])
    grid = [["accuracy, %", *attacks]]
    for target in shown:
        grid.append([target, *(f"{accuracy(record, (target, surrogate, attack)):.1f}" for attack in attacks)])
        if surrogate in ("none", AS_TRAINED) and WITH not in target and paper_target(target) in TARGETS:
            papers = [_paper(record, target, attack) for attack in attacks]
            grid.append([f"{paper_target(target)}, paper", *papers])
    return grid
