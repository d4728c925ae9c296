"""Lists for people as tables, and for programs as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

#: A width at which no row of a pipe or file is wrapped or cut.
PIPE_WIDTH = 10_000


def show(rows: Iterable[Mapping[str, Any]], *, as_json: bool, columns: Mapping[str, str]) -> None:
    """Print rows as a table, or as a JSON list.

    Args:
        rows: the rows; JSON has all their keys.
        as_json: whether to print JSON.
        columns: the header of each key that the table shows, in order.
    """
    if as_json:
        print(json.dumps(list(rows), indent=2, default=list))
        return
    print("\n".join(lines(rows, columns)))


def lines(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Return rows as the lines of a table; columns of numbers are aligned to the right.

    On a terminal the table is as wide as the terminal and long cells wrap; otherwise each row is
    one line.

    Args:
        rows: the rows.
        columns: the header of each key that is shown, in order.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = list(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key, header in columns.items():
        values = [row.get(key) for row in listed]
        numbers = bool(values) and all(isinstance(value, int | float) for value in values)
        table.add_column(header, justify="right" if numbers else "left", overflow="fold")
    for row in listed:
        table.add_row(*(Text(cell(row.get(key))) for key in columns))
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else PIPE_WIDTH, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def cell(value: Any) -> str:
    """Return a value as text: whole numbers with separators, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
