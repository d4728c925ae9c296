"""Escape untrusted text (names, licences, models' outputs) for Markdown, HTML and YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_MARKUP = re.compile(r"([\\`*_\[\]|~#$!])")


def one_line(text: object) -> str:
    """Return a text in one line, with non-printable characters replaced by spaces."""
    return "".join(c if c.isprintable() else " " for c in " ".join(str(text).split()))


def plain(text: object) -> str:
    """Return a text escaped so that Markdown and HTML show it literally."""
    escaped = _MARKUP.sub(r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cell(text: object) -> str:
    """Return a table cell: Markdown stays active, but no text can end the cell or open a tag."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", one_line(text)).replace("|", "\\|")


def code(text: object) -> str:
    """Return a text as an inline code span."""
    inside = one_line(text)
    ticks = _fence(inside, 1)
    pad = " " if inside.startswith("`") or inside.endswith("`") or not inside else ""
    return f"{ticks}{pad}{inside}{pad}{ticks}"


def block(lines: Iterable[str], language: str = "") -> list[str]:
    """Return the lines of a code block with a fence longer than any in the text."""
    inside = ["".join(c if c.isprintable() else " " for c in line) for line in lines]
    fence = _fence("\n".join(inside), 3)
    return [f"{fence}{language}", *inside, fence]


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def yaml(text: object) -> str:
    """Return a text as a YAML scalar: unquoted if that is read back as the same text."""
    import yaml as parser

    bare = str(text)
    try:
        same = bool(re.fullmatch(r"[\w./:@+-]+", bare)) and parser.safe_load(bare) == bare
    except parser.YAMLError:
        same = False
    return bare if same else json.dumps(bare)
