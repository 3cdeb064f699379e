"""Sphinx's settings: the guides of this directory, the API from docstrings, other pages. Nothing is fetched.

Sources are read from the root of the repository, so that a link leads here where it leads in a checkout,
and one that leads nowhere is an error.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.inspect import signature, stringify_signature

import divtf

project = "divtf"
author = copyright = "The divtf authors"
version = release = divtf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "flags/*.md", "runs/*.md", "runs/results/**", "benchmarks/**"]
exclude_patterns = [".*", "build", "dist", "divtf", "docs/_build", "tests"]
html_theme = "furo"
html_title = f"divtf {version}"
html_show_sourcelink = False
# The first page lies in docs/; whoever opens the top is led there.
templates_path = ["_templates"]
html_additional_pages = {"index": "to_docs.html"}

# Links to headings, as GitHub makes them.
myst_heading_anchors = 3
# Flags keep their two hyphens.
smartquotes = False
# Pages of results are reached from their index; tests/test_docs.py sees to the guides.
# And a comparison alone has its headings at the level that they have in the page of its result.
suppress_warnings = ["toc.not_included", "myst.header"]
# In docstrings `a name` is code.
default_role = "code"
autodoc_typehints = "none"
napoleon_use_rtype = False


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", _leave_directories)
    app.connect("autodoc-process-signature", _signature_of_constructor)


def _leave_directories(app: Any, doctree: nodes.document) -> None:
    """Leave links to directories, which are no pages, as their text."""
    here = Path(app.env.doc2path(app.env.docname)).parent
    for link in list(doctree.findall(pending_xref)):
        if link.get("reftype") == "myst" and link["reftarget"] and (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def _signature_of_constructor(
    app: Any, what: str, name: str, item: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show what a class takes; those of Keras have a `__new__` that takes anything."""
    if what == "class" and arguments == "(*args, **kwargs)":
        constructor = signature(item.__init__, bound_method=True)
        arguments = stringify_signature(constructor, show_annotation=False)
    return arguments, returns
