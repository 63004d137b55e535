"""Texts of others in Markdown: they show as they are and make nothing, neither HTML nor links nor code."""

from __future__ import annotations

import re
from typing import Any

MAKES = re.compile(r"[<\[`\\]")
"""Letters that begin HTML, a link or an image, and code, and the one that takes their meaning, or that of its like."""
BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
"""Ends of lines and other letters without a form."""


COMMANDS = {"command"}
"""The fields that stand in a block of code, where every text shows as it is."""


def plain_text(text: str) -> str:
    """A text on one line, in Unicode, whose letters make nothing in Markdown or in the HTML that it may hold."""
    return MAKES.sub(lambda found: "'" if found[0] == "`" else f"\\{found[0]}", one_line(text))


def one_line(text: str) -> str:
    """A text on one line, in Unicode."""
    return BREAKS.sub(" ", text).encode("utf-8", "backslashreplace").decode()


def in_code(text: str) -> str:
    """A text on a line of a block of code, which it does not end."""
    return one_line(text).replace("```", "'''")


def plain_texts(value: Any) -> Any:
    """A JSON value of which every text, and every name of a field, is plain; commands are on one line."""
    if isinstance(value, dict):
        return {
            plain_text(name): one_line(str(part)) if name in COMMANDS else plain_texts(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_texts(part) for part in value]
    return plain_text(value) if isinstance(value, str) else value


def cell(value: Any) -> str:
    """A value in a Markdown table, whose texts are plain already."""
    return "not recorded" if value is None else str(value).replace("|", r"\|")
