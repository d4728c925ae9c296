"""Text from outside (names, licences, answers of models) as Markdown, so that it stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_MARKUP = re.compile(r"([\\`*_\[\]|~#$!])")


def one_line(text: object) -> str:
    """Return a text in one line, without characters that print nothing."""
    return "".join(c if c.isprintable() else " " for c in " ".join(str(text).split()))


def plain(text: object) -> str:
    """Return a text that Markdown and HTML show as it is."""
    escaped = _MARKUP.sub(r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cell(text: object) -> str:
    """Return a cell of a table: it may hold markup of ours, but ends no cell and begins no tag."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", one_line(text)).replace("|", "\\|")


def code(text: object) -> str:
    """Return a text as code inside a line."""
    inside = one_line(text)
    ticks = _fence(inside, 1)
    pad = " " if inside.startswith("`") or inside.endswith("`") or not inside else ""
    return f"{ticks}{pad}{inside}{pad}{ticks}"


def block(lines: Iterable[str], language: str = "") -> list[str]:
    """Return the lines of a code block, whose end no line of it can be."""
    inside = ["".join(c if c.isprintable() else " " for c in line) for line in lines]
    fence = _fence("\n".join(inside), 3)
    return [f"{fence}{language}", *inside, fence]


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def yaml(text: object) -> str:
    """Return a text as a value of YAML: bare where that means the same, else in quotes."""
    import yaml as parser

    bare = str(text)
    try:
        same = bool(re.fullmatch(r"[\w./:@+-]+", bare)) and parser.safe_load(bare) == bare
    except parser.YAMLError:
        same = False
    return bare if same else json.dumps(bare)
