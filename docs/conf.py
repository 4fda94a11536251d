"""Settings of Sphinx, which makes the site of the pages: `make docs`."""

import re
from itertools import pairwise
from typing import Any

import smalti

project = "smalti"
author = "the smalti authors"
project_copyright = author
version = release = smalti.__version__

# The source folder is the project's own, so that every link between pages is as it stands in the files.
include_patterns = ["docs/**", "experiments/*.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "dist", "runs", "smalti", "tests", "tools", "benchmarks", "experiments/results"]
root_doc = "docs/index"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "text"
smartquotes = False  # what is quoted is typed so

default_role = "code"  # `names` in docstrings
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "forward, training"}
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"smalti {version}"
html_static_path = ["site/static"]
html_extra_path = ["site/extra"]
html_css_files = ["pages.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:", "Warns:")  # which napoleon reads


def as_written(*event: Any) -> None:
    """Docstrings are plain text: stars and bars are themselves, and what is aligned in columns stays so."""
    lines: list[str] = event[-1]
    given, columns = [*lines], False
    lines.clear()
    for line, following in pairwise([*given, ""]):
        columns = columns and (not line or line.startswith(" "))
        if columns or line.lstrip().startswith(">>>"):
            lines.append(line)
            continue
        columns = line.endswith(":") and line[0] != " " and line not in SECTIONS
        columns = columns and (following or following_block(given, line)).startswith(" ")
        parts = re.split("(`[^`]*`)", line)
        text = "".join(part if part.startswith("`") else re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts)
        lines.extend([f"{text}:", ""] if columns else [text])


def following_block(lines: list[str], line: str) -> str:
    """The first line that is not empty after a line."""
    return next(filter(None, lines[lines.index(line) + 1 :]), "")


def setup(app: Any) -> None:
    """Register what is above, before napoleon."""
    app.connect("autodoc-process-docstring", as_written, priority=400)
