"""How a result was made: budgets, surrogates, attacks, commands, versions and hashes, as tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from divtf.reporting.entries import attack_settings, entry
from divtf.reporting.page.elements import Cell, Grid, Line
from divtf.storage.evaluations import EvaluationRecord
from divtf.storage.records import CLEAN, Record, ScoredRecord, TransferResult

_HASHES = ("weights",)


def origin_grids(
    records: Mapping[str, Sequence[Any]], configs: Mapping[str, Mapping[str, Any]]
) -> list[Grid]:
    """All that is known of how the records of one model and data set came about.

    Args:
        records: by kind.
        configs: name of a run, target and seed -> its configuration, as JSON values; may be empty.
    """
    everything = [record for group in records.values() for record in group]
    results = [result for each in everything if isinstance(each, ScoredRecord) for result in each.results]
    evaluations = [each for each in everything if isinstance(each, EvaluationRecord)]
    trained = {
        name: {**record.budget, **_rest(record.provenance, _HASHES)} for name, record in _named(everything)
    }
    analysed = {
        f"{name}, {_kind(record)}": record.analysis  # type: ignore[attr-defined]
        for record in everything
        for name in [_name(record)]
        if getattr(record, "analysis", None)
    }
    grids = [
        _shared("Targets: budget, command and versions", trained),
        _settings("Surrogates: how each was trained", _surrogates(results, evaluations)),
        _attacks(results, evaluations),
        _shared("Analyses: command and versions", analysed),
        _shared("Configuration of each run, every field", configs),
        _hashes(everything, results, evaluations),
    ]
    return [grid for grid in grids if grid.lines]


def _name(record: Record) -> str:
    return f"{record.target}, seed {record.seed}"


def _kind(record: Record) -> str:
    protocol = getattr(record, "protocol", "")
    return f"protocol {protocol}" if protocol else type(record).__name__.removesuffix("Record")


def _named(records: Iterable[Record]) -> list[tuple[str, Record]]:
    """(target and seed, its first record): all records of one tell of the same training."""
    found: dict[str, Record] = {}
    for record in records:
        found.setdefault(_name(record), record)
    return list(found.items())


def _rest(values: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in without}


def in_words(name: str, value: Any) -> str:
    """A value in words, as the captions write it, without its name before it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if name == "clean accuracy" and value is not None:
        return f"{100 * value:.1f} %"
    if value is None:
        return entry(name, value) if name == "reduced" else "not given"
    if value == "":
        return "-"
    return entry(name, value).removeprefix(f"{name} ")


def _shared(caption: str, of_each: Mapping[str, Mapping[str, Any]]) -> Grid:
    """A line for each name and value, and whose it is where they differ."""
    names = dict.fromkeys(name for values in of_each.values() for name in values)
    lines = []
    for name in names:
        owners: dict[str, list[str]] = {}
        for owner, values in of_each.items():
            if name in values:
                owners.setdefault(in_words(name, values[name]), []).append(owner)
        everyones = [owner for group in owners.values() for owner in group] == list(of_each) and len(
            owners
        ) == 1
        for text, group in owners.items():
            whose = "all" if everyones and len(of_each) > 1 else "; ".join(group)
            lines.append(Line((Cell(name), Cell(text), Cell(whose))))
    return Grid(caption, ("name", "value", "of"), tuple(lines))


def _surrogates(
    results: Sequence[TransferResult], evaluations: Sequence[EvaluationRecord]
) -> dict[str, Mapping[str, Any]]:
    found = {result.surrogate: result.surrogate_settings for result in results if result.surrogate_settings}
    for record in evaluations:
        for name, told in record.surrogates.items():
            title = f"{name} (protocol {record.protocol})"
            # Seeds may share a surrogate, or each have its own.
            found[title if found.get(title, told) == told else f"{title}, seed {record.seed}"] = told
    return found


def _settings(caption: str, of_each: Mapping[str, Mapping[str, Any]]) -> Grid:
    """A line for each name, a column for each setting."""
    columns = list(dict.fromkeys(name for values in of_each.values() for name in values))

    def cell(values: Mapping[str, Any], name: str) -> Cell:
        return Cell(in_words(name, values[name]) if name in values else "-")

    lines = [
        Line((Cell(name), *(cell(values, column) for column in columns))) for name, values in of_each.items()
    ]
    head = [
        f"{column} on the attacked images" if column == "clean accuracy" else column for column in columns
    ]
    return Grid(caption, ("surrogate", *head), tuple(lines))


def _attacks(results: Sequence[TransferResult], evaluations: Sequence[EvaluationRecord]) -> Grid:
    """Every attack with all its settings, once."""
    told = [
        (result.attack, result.surrogate, result.settings, result.stored_as)
        for result in results
        if result.attack != CLEAN and result.settings
    ]
    told += [
        (
            trial.attack,
            trial.surrogate or "the target",
            trial.settings,
            record.stored_as,
        )
        for record in evaluations
        for trial in record.trials
    ]
    on_what: dict[tuple[str, str, str], dict[str, None]] = {}
    for attack, on, settings, stored in told:
        on_what.setdefault((attack, attack_settings(settings) or "none", stored), {})[on] = None
    lines = [(attack, "; ".join(on), settings, stored) for (attack, settings, stored), on in on_what.items()]
    head = ("attack", "made on", "settings", "stored as")
    return Grid(
        "Attacks, with all settings; a step is a share of epsilon",
        head,
        tuple(Line(tuple(map(Cell, line))) for line in lines),
    )


def _hashes(
    everything: Sequence[Record], results: Sequence[TransferResult], evaluations: Sequence[EvaluationRecord]
) -> Grid:
    """Digests of weights, adversarial sets and images."""
    found = [
        ("weights", name, str(record.provenance["weights"]))
        for name, record in _named(everything)
        if record.provenance.get("weights")
    ]
    found += [
        (
            "adversarial images",
            f"{result.attack}, epsilon {result.epsilon:g}, on {result.surrogate}",
            result.adversarial_set,
        )
        for result in results
    ]
    found += [
        (
            "adversarial images",
            f"{trial.attack} {trial.version}, epsilon {trial.epsilon:g}, on "
            + (trial.surrogate or f"{record.target}, seed {record.seed}"),
            trial.adversarial_set,
        )
        for record in evaluations
        for trial in record.trials
    ]
    found += [
        ("clean images and labels", "attacked ones", result.images) for result in results if result.epsilon
    ]
    found += [("clean images and labels", "of the protocol", record.images_digest) for record in evaluations]
    lines = dict.fromkeys(line for line in found if line[2])
    return Grid("Hashes", ("of", "which", "digest"), tuple(Line(tuple(map(Cell, line))) for line in lines))
