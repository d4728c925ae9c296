"""The tables and verdicts in Markdown: a part for each experiment, and one document with all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lori_core.core import escaping
from lori_core.report import tables

HOW = (
    "Intervals are of 95 %: of a score, the wider of Student's over seeds and that over the test "
    "items; of a loss, Student's over seeds; of a single seed, that over its items. A difference "
    "with a number of items is paired by seed and item, and its interval is over both together. "
    "Where the rows have no outcomes of items, it is paired by seed alone, and its interval is the "
    "wider of Student's and what its items allow if they count anew with each seed. A claim of "
    "several comparisons held where all of them do, which needs no correction for their number; it "
    "did not hold where one did not with Bonferroni's correction for their number, and otherwise "
    "could not be told at this size. The margin of 'as good as' and of 'within' is 2 points, or "
    "2 % of a loss, unless the rule says otherwise. Verdicts by held-out losses, which vary less, "
    "are beside those by the tasks' scores where both were measured."
)

#: The first line of the document.
TITLE = "# The paper's experiments, run here"


def part(built: Mapping[str, Any], level: int = 1, pictures: str = "") -> str:
    """Return an experiment's part of the document.

    Args:
        built: an item of `experiments` in the result of `page.write`.
        level: the level of its heading.
        pictures: the folder of the pictures, with a slash at its end.
    """
    deeper = "#" * (level + 1)
    lines = [f"{'#' * level} {built['title']}", "", built["about"], ""]
    lines += [f"- {name}: {escaping.cell(text)}" for name, text in built["info"]]
    if built["claims"]:
        lines += ["", f"{deeper} What the paper says", ""]
        for claim in built["claims"]:
            lines += _claim(claim)
    for figure in built["figures"]:
        lines += ["", f"![{figure['title']}]({pictures}{figure['stem']}.png)"]
    lines += ["", built["reading"]] if built["reading"] else []
    for table in built["tables"]:
        lines += ["", f"{deeper} {table['title']}", "", *_table(table)]
        lines += ["", table["note"]] if table["note"] else []
    lines += [""] if built["gaps"] else []
    lines += [f"- {gap}" for gap in built["gaps"]]
    return "\n".join(lines) + "\n"


def evidence(built: Mapping[str, Any], pictures: str = "") -> str:
    """Return the document: a table of all verdicts, then each experiment's part."""
    lines = [TITLE, "", built["summary"], ""]
    lines += tables.markdown(
        ["claim", "verdict", "by held-out losses"],
        [
            [claim["claim"], claim["verdict"], claim["losses"] or tables.NOTHING]
            for claim in built["claims"]
        ],
    )
    lines += ["", HOW, ""]
    parts = [part(experiment, 2, pictures) for experiment in built["experiments"].values()]
    return "\n".join(lines) + "\n" + "\n".join(parts)


def _claim(claim: Mapping[str, Any]) -> list[str]:
    lines = [f"- **{claim['claim']}** ({claim['source']}) By {claim['by']}: {claim['verdict']}."]
    lines += [f"  - Rule: {claim['rule']}."]
    lines += [f"  - {because['text']}: {because['verdict']}" for because in claim["because"]]
    if claim["losses"]:
        lines += [f"  - By held-out losses: {claim['losses']}."]
        lines += [f"    - {b['text']}: {b['verdict']}" for b in claim["losses_because"]]
    return lines


def _table(table: Mapping[str, Any]) -> list[str]:
    return tables.markdown(table["columns"], table["rows"])
