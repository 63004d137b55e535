"""Sphinx builds the site by this: `python -m sphinx -W --keep-going docs site`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generate import generate

from ssl_backbones import __version__

project = "ssl-backbones"
author = "The developers of ssl-backbones"
copyright = "the developers of ssl-backbones; Apache-2.0"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
nb_execution_mode = "off"
suppress_warnings = ["misc.highlighting_failure"]  # shell lines of notebooks
default_role = "code"
nitpicky = False
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
copybutton_prompt_text = "$ "

html_theme = "furo"
html_static_path = ["_static"]
html_js_files = ["accessible.js"]
html_title = f"ssl-backbones {__version__}"
html_theme_options = {
    "source_repository": "https://github.com/ssl-backbones/ssl-backbones/",
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": [],
}

CODE = re.compile(r"(`[^`]*`)")
MARKUP = re.compile(r"([\\*|_])")


def as_restructured_text(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Let a docstring, which is plain text with code in backticks, read as reStructuredText."""
    for number, line in enumerate(lines):
        parts = CODE.split(line)
        lines[number] = "".join(part if part.startswith("`") else MARKUP.sub(r"\\\1", part) for part in parts)


def setup(app: Any) -> None:
    """Write the generated pages before Sphinx looks for them."""
    generate()
    app.connect("autodoc-process-docstring", as_restructured_text)
