"""Writing pages: what they say, in the templates' HTML, with style, scripts and figures in one file."""

import functools
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from divtf.reporting.page.bundle import charting_library, inside_script
from divtf.reporting.page.content import Result, reading, sections
from divtf.storage import files

PAGE = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
# Vega's shapes for a legend, about the origin.
_SHAPES = {
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
    "square": "M-5 -5H5V5H-5Z",
    "triangle-up": "M0 -6L6 5H-6Z",
    "diamond": "M0 -7L6 0L0 7L-6 0Z",
    "triangle-down": "M0 6L6 -5H-6Z",
    "cross": "M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "triangle-right": "M6 0L-5 6V-6Z",
}


def page(result: Result) -> str:
    """The page of a result, whole: it needs no other file and no network.

    Raises:
        ValueError: if there are no records, or two of the same thing.
    """
    return render(
        "report.html",
        title=result.title,
        sections=sections(result),
        reading=reading(result.records),
        library=Markup(charting_library()),
    )


def write_page(directory: Path, result: Result) -> Path:
    """Write a result's page into a directory, whole or not at all; returns its path.

    Raises:
        OSError: if it cannot be written.
        ValueError: if there are no records, or two of the same thing.
    """
    path = Path(directory) / PAGE
    files.write_file(path, page(result))
    return path


def render(template: str, **values: Any) -> str:
    """A template of this room with values, style and script; whatever text they hold stays text."""
    style = Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8"))
    script = Markup(inside_script((_TEMPLATES / "page.js").read_text(encoding="utf-8")))
    version = metadata.version("divtf")
    told = {"style": style, "script": script, "shapes": _SHAPES, "version": version}
    return _environment().get_template(template).render(**told, **values)


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
