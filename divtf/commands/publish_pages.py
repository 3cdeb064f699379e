"""What `divtf.publish` writes: records, all that is made of them, and the pages that show these."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divtf.commands import evaluate, figure5, transfer_matrix
from divtf.errors import require
from divtf.pipeline import finished
from divtf.pipeline.results import read_published
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
from divtf.storage import checked_json, files, pooling
from divtf.storage.locks import lock
from divtf.storage.records import Record

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
    paths = finished.required(root)
    comparison = finished.read_comparison(root)
    # A comparison has its evaluations' figures, without detection: they are not kept twice.
    compared = {(record.subject, record.tried_by) for record in comparison}
    evaluations = evaluate.collect(root, _PROTOCOL)
    collected: dict[str, Sequence[Any]] = {
        "table": [finished.read_record(path) for path in paths],
        "evaluation": [each for each in evaluations if (each.subject, each.tried_by) not in compared],
        "comparison": comparison,
        "gaas": figure5.collect(root),
        "transfer_matrix": transfer_matrix.collect(root),
        "sparsity": finished.ablation(paths),
    }
    for records in collected.values():
        finished.require_distinct(records, root)
    return {kind: list(map(_public, records)) for kind, records in collected.items() if records}


def _public(record: Record) -> Record:
    """The record without what concerns nobody elsewhere: the machine's kernel."""
    environments: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        if field.name in ("provenance", "analysis"):
            environment = getattr(record, field.name)
            environments[field.name] = {key: environment[key] for key in environment if key != "platform"}
    return dataclasses.replace(record, **environments)


def load_all() -> dict[str, Published]:
    """Every name that has a directory among the results -> its published records.

    Raises:
        InputError: if some are not of this version.
    """
    return {path.name: read_published(path) for path in sorted(RESULTS.glob("*/"))}


def publish_runs(root: Path, name: str, *, added: bool) -> None:
    """Publish the finished runs below a directory.

    Args:
        root: the directory.
        name: of the result.
        added: whether what is published under the name of other targets, seeds and kinds stays.

    Raises:
        InputError: as `collect`, `pooling.require_alike` and `publish` do.
    """
    # Whoever publishes meanwhile would not know of these.
    with lock(RESULTS.parent / ".publishing", wait=True):
        published = load_all()
        kept = published.get(name, {})
        found = pooling.pooled(kept if added else {}, collect(root))
        for records in found.values():
            pooling.require_alike(records)
        if added:
            _tell_what_is_left_out(kept, found)
        published[name] = {kind: found[kind] for kind in KINDS if kind in found}
        publish(name, dict(sorted(published.items())))


def _tell_what_is_left_out(kept: Published, found: Published) -> None:
    for kind, records in kept.items():
        still = {record.run for record in found.get(kind, ())}
        gone = [record.run for record in records if record.run not in still]
        if gone:
            print(f"left out: {kind} of {'; '.join(gone)}, of weights that were trained anew")


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


def redraw_all() -> None:
    """Write what is made of the records of every name; errors as in `render`."""
    results = load_all()
    for name, published in results.items():
        if published:
            _write(name, render(name, results))
        else:
            print(f"{name}: nothing published yet")


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
