"""Sphinx's settings: the guides of this directory, and the API from docstrings. Nothing is fetched."""

import divtf

project = "divtf"
author = copyright = "The divtf authors"
version = release = divtf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"divtf {version}"
html_show_sourcelink = False

# Links to headings, as GitHub makes them.
myst_heading_anchors = 3
# Pages outside of docs/ are linked for readers of the repository; tests/test_readme.py holds all links.
suppress_warnings = ["myst.xref_missing"]
# In docstrings `a name` is code.
default_role = "code"
autodoc_typehints = "none"
napoleon_use_rtype = False
