"""The site: ``make site`` builds it from these pages, and fails on a broken link."""

import re

import dinkcli

project = "dink"
author = copyright = "The dink authors"
release = dinkcli.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
html_theme = "furo"
html_title = "dink"
copybutton_prompt_text = "$ "
autodoc_member_order = "bysource"
suppress_warnings = ["misc.highlighting_failure"]  # figures in outputs are no Python


def _tables_as_toctrees(app, name, source):
    """The tables of index.md are the navigation as well."""
    if name != "index":
        return
    for table in re.split(r"\n\n(?=\|)", source[0])[1:]:
        caption = table.split("|")[1].strip()
        pages = "\n".join(re.findall(r"\]\((.+?)\.md\)", table))
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n{pages}\n```\n"


def setup(app):
    app.connect("source-read", _tables_as_toctrees)
