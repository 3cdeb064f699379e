"""What `divtf.publish` writes: records, all that is made of them, and the pages that show these."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divtf.commands import evaluate, figure5, transfer_matrix
from divtf.errors import require
from divtf.pipeline import finished
from divtf.reporting.published import (
    KINDS,
    OUTPUTS,
    Published,
    blank_page,
    contents,
    demo_section,
    index_section,
    insert,
    page_title,
    section,
)
from divtf.storage import checked_json, files
from divtf.storage.records import Record, TargetRecord

RESULTS = Path("runs/results")
PAGE = "README.md"
# The evaluation that is published beside the paper's.
_PROTOCOL = "strong"
# The result that the main page shows.
DEMO = "demo"


def collect(root: Path) -> Published:
    """What the finished runs below a directory have recorded, in the order of their training.

    Raises:
        InputError: if there are none, or if two of them are of one target, model, data set and seed.
    """
    comparison = finished.read_comparison(root)
    # A comparison has its evaluations' figures, without detection: they are not kept twice.
    compared = {(record.subject, record.tried_by) for record in comparison}
    evaluations = evaluate.collect(root, _PROTOCOL)
    collected: dict[str, list[Any]] = {
        "table": _collect_targets(root),
        "evaluation": [each for each in evaluations if (each.subject, each.tried_by) not in compared],
        "comparison": comparison,
        "gaas": figure5.collect(root),
        "transfer_matrix": transfer_matrix.collect(root),
        "sparsity": finished.ablation(finished.directories(root)),
    }
    require(bool(collected["table"]), f"finished runs below {root}", "none")
    for records in collected.values():
        finished.require_distinct(records, root)
    return {kind: list(map(_public, records)) for kind, records in collected.items() if records}


def _collect_targets(root: Path) -> list[TargetRecord]:
    return [finished.read_record(path) for path in finished.directories(root)]


def _public(record: Record) -> Record:
    """The record without what concerns nobody elsewhere: the machine's kernel."""
    environments: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        if field.name in ("provenance", "analysis"):
            environment = getattr(record, field.name)
            environments[field.name] = {key: environment[key] for key in environment if key != "platform"}
    return dataclasses.replace(record, **environments)


def load(name: str) -> Published:
    """The published records of a name; empty if there are none."""
    paths = {kind: RESULTS / name / KINDS[kind].file for kind in KINDS}
    return {
        kind: [KINDS[kind].record.from_json(record) for record in checked_json.read_json(path)]
        for kind, path in paths.items()
        if path.exists()
    }


def load_all() -> dict[str, Published]:
    """Every name that has a directory among the results -> its published records."""
    names = sorted(path.name for path in RESULTS.glob("*/"))
    return {name: load(name) for name in names}


def publish(name: str, results: Mapping[str, Published]) -> None:
    """Write a name's records and all that is made of them; remove those of other kinds.

    Args:
        name: of the result.
        results: every name -> its records.

    Raises:
        InputError: if the name cannot be one, or a page has no marks for it.
    """
    require(re.fullmatch(r"[\w-]+", name) is not None, "--name of letters, digits, - and _", name)
    # What is refused, or cannot be drawn, is so before anything is written.
    rendered = render(name, results)
    for kind in KINDS:
        path = RESULTS / name / KINDS[kind].file
        if kind in results[name]:
            checked_json.write_json(path, [record.to_json() for record in results[name][kind]])
        else:
            path.unlink(missing_ok=True)
    _write(name, rendered)


def redraw(name: str, results: Mapping[str, Published]) -> None:
    """Write what is made of a name's records; arguments and errors as in `publish`."""
    _write(name, render(name, results))


def render(name: str, results: Mapping[str, Published]) -> dict[Path, str | bytes]:
    """All that is made of a name's records: its pictures and CSV, then the pages that show them.

    Raises:
        InputError: if a page has no marks for the name.
    """
    directory = RESULTS / name
    rendered: dict[Path, str | bytes] = {
        directory / file: content for file, content in contents(results[name]).items()
    }
    path = directory / PAGE
    page = _read_page(path, blank_page(name, name))
    rendered[path] = insert(page, name, section(results[name]), path)
    rendered[RESULTS / PAGE] = _index(results, {name: page_title(page)})
    if name == DEMO:
        path = Path(PAGE)
        rendered[path] = insert(path.read_text(), name, demo_section(results[name], str(directory)), path)
    return rendered


def _index(results: Mapping[str, Published], titles: Mapping[str, str]) -> str:
    """The page of all results; titles that are not given are read from the results' pages."""
    known = {
        name: titles[name] if name in titles else page_title((RESULTS / name / PAGE).read_text())
        for name, published in results.items()
        if published
    }
    path = RESULTS / PAGE
    page = _read_page(path, blank_page("results", "Results"))
    return insert(page, "results", index_section(results, known), path)


def _read_page(path: Path, otherwise: str) -> str:
    return path.read_text() if path.exists() else otherwise


def _write(name: str, rendered: Mapping[Path, str | bytes]) -> None:
    """Write the files, and remove those of the name that are not made any more."""
    for file in OUTPUTS:
        if RESULTS / name / file not in rendered:
            (RESULTS / name / file).unlink(missing_ok=True)
    for path, content in rendered.items():
        files.write_file(path, content)
