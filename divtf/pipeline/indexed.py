"""The index of the results below a directory, and their pages. No TensorFlow."""

from pathlib import Path
from urllib.parse import quote

from divtf.errors import first_line, require
from divtf.pipeline import results
from divtf.reporting.page.content import Result
from divtf.reporting.page.index import Entry, entry_of, write_index
from divtf.reporting.page.writing import write_page
from divtf.runtime.logs import get_logger

_LOG = get_logger(__name__)


def make_index(root: Path) -> Path:
    """Write the page of every result below a directory, and the index of them; returns the index's path.

    What cannot be read, or whose page cannot be written, is told in one line, and does without.

    Raises:
        InputError: if there is no result.
        OSError: if the index cannot be written.
    """
    found = list(results.below(root))
    entries = [entry for path in found if (entry := _entry(root, path))]
    require(bool(entries), f"results below {root}", f"{len(found)} that cannot be read" if found else "none")
    return write_index(root, entries)


def _entry(root: Path, path: Path) -> Entry | None:
    try:
        result = results.read(path)
        page = _page(path, result)
        href = quote(page.relative_to(root).as_posix()) if page else ""
        return entry_of(result, path.relative_to(root).as_posix(), href, _date(result))
    # Whatever it is: one result must not hide the others.
    except (ValueError, OSError, KeyError, TypeError) as error:
        _LOG.warning(f"{path} is left out: {first_line(error)}")
        return None


def _page(path: Path, result: Result) -> Path | None:
    try:
        return write_page(path, result)
    except OSError as error:
        _LOG.warning(f"no page in {path}: {first_line(error)}")
        return None


def _date(result: Result) -> str:
    """The day on which the last of its records was made, as 2026-11-26; "" where none says."""
    environments = [
        environment
        for group in result.records.values()
        for record in group
        for environment in (record.provenance, getattr(record, "analysis", {}))
    ]
    return max((environment.get("date", "") for environment in environments), default="")[:10]
