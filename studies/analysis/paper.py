"""The paper's numbers (Tables 1-3 and 11-22), and its text about Figures 3-7.

The paper's figures show no numbers, so only its text about them is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lori_core.core.files.atomic import read_json
from studies.analysis.specs import MERGES, METHODS

Cell = str | float
#: The paper's column for each of our tasks.
COLUMNS = {"nlu": "NLU", "math": "GSM8K", "code": "Pass@1", "safety": "HEx-PHI"}
_BENCHMARKS = {
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "siqa": "SIQA",
    "arc_challenge": "ARC-c",
    "arc_easy": "ARC-e",
    "openbookqa": "OBQA",
    "hellaswag": "HellaS",
    "winogrande": "WinoG",
}
LLAMA = "Llama-3-8B"


@dataclass(frozen=True)
class Table:
    """One table of the paper.

    Attributes:
        number: its number in the paper.
        title: what it shows, in our words.
        section: its section in the paper.
        columns: the columns' names; the first is the base model.
        rows: the cells; numbers are percentages, as printed.
    """

    number: str
    title: str
    section: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def value(self, column: str, **wanted: str) -> float | None:
        """Return the number of a column in the row with the `wanted` cells; None if missing."""
        if column not in self.columns:
            return None
        for row in self.rows:
            cells = dict(zip(self.columns, row, strict=True))
            if all(cells[name] == text for name, text in wanted.items()):
                number = cells[column]
                return float(number) if isinstance(number, float) else None
        return None


@dataclass(frozen=True)
class Figure:
    """The paper's text about one of its figures.

    Attributes:
        number: its number in the paper.
        title: what it shows.
        section: its section in the paper.
        says: what the text says about it.
    """

    number: str
    title: str
    section: str
    says: tuple[str, ...]


@cache
def tables() -> dict[str, Table]:
    """Return the paper's tables by number."""
    return {
        number: Table(
            number,
            raw["title"],
            raw["section"],
            tuple(raw["columns"]),
            tuple(tuple(row) for row in raw["rows"]),
        )
        for number, raw in _content()["tables"].items()
    }


@cache
def figures() -> dict[str, Figure]:
    """Return the paper's text about its figures, by number."""
    return {
        number: Figure(number, raw["title"], raw["section"], tuple(raw["says"]))
        for number, raw in _content()["figures"].items()
    }


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = read_json(Path(__file__).with_name("paper.json"))
    return content


def single_task(method: str, task: str) -> float | None:
    """Return the paper's score of a method on a task, in percent, on Llama-3-8B at rank 32.

    Tables 11 and 12 have all methods; for NLU it is the mean over eight benchmarks.
    """
    wanted = {"Method": METHODS.get(method, method)}
    if task == "nlu" or task in _BENCHMARKS:
        return tables()["11"].value(_BENCHMARKS.get(task, "Avg."), **wanted)
    return tables()["12"].value(COLUMNS.get(task, task), **wanted)


def parameters(method: str) -> str:
    """Return a method's trainable parameters as printed in Table 11; empty if it is not there."""
    for row in tables()["11"].rows:
        if row[1] == METHODS.get(method, method):
            return str(row[2])
    return ""


def merged(count: int, merge: str, method: str, task: str) -> float | None:
    """Return the paper's score of a merge of three or four adapters on Llama-3-8B, in percent.

    Args:
        count: the number of merged adapters, 3 or 4.
        merge: our name of the merge method; `single-task` is each task's own LoRI-D adapter.
        method: our name of the adapters' training method.
        task: our name of the task.
    """
    names = ("3", "20", "16") if count == 4 else ("18", "22", "19")
    wanted = {"Merging": MERGES.get(merge, merge), "Adaptation": METHODS.get(method, method)}
    column = _BENCHMARKS.get(task) or COLUMNS.get(task, task)
    for name in names:
        score = tables()[name].value(column, **wanted)
        if score is not None:
            return score
    return None
