"""The tables and verdicts in Markdown: a part for each experiment, and one document with all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lori_core.core import escaping
from lori_core.report import tables
from studies.analysis.verdicts import UNCLEAR

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

UNTOLD = (
    "Each number is the comparison nearest to deciding against the claim, by scores and by "
    "held-out losses, with its 95 % interval. `lori experiment --plan-power` prints what it takes "
    "to tell."
)
#: The first line of the document.
TITLE = "# The paper's experiments, run here"


def part(built: Mapping[str, Any], level: int = 1, *, pictures: bool = True) -> str:
    """Return an experiment's part of the document.

    Args:
        built: an item of `experiments` in the result of `page.write`.
        level: the level of its heading.
        pictures: whether to show its pictures.
    """
    deeper = "#" * (level + 1)
    lines = [f"{'#' * level} {built['title']}", "", built["about"], ""]
    lines += _pictures(built, "") if pictures else []
    if built["claims"]:
        lines += [f"{deeper} What the paper says", ""]
        for claim in built["claims"]:
            lines += _claim(claim)
    for table in built["tables"]:
        lines += ["", f"{deeper} {table['title']}", "", *_table(table)]
        lines += ["", table["note"]] if table["note"] else []
    lines += [""] if built["gaps"] else []
    lines += [f"- {gap}" for gap in built["gaps"]]
    lines += ["", f"{deeper} How it was run", ""]
    lines += [f"- {name}: {escaping.cell(text)}" for name, text in built["info"]]
    return "\n".join(lines) + "\n"


def _pictures(built: Mapping[str, Any], folder: str) -> list[str]:
    """Return an experiment's pictures and how to read them.

    Args:
        built: as in `part`.
        folder: the folder of the pictures, with a slash at its end.
    """
    lines = []
    for figure in built["figures"]:
        lines += [f"![{figure['title']}]({folder}{figure['stem']}.png)", ""]
    return [*lines, built["reading"], ""] if built["reading"] else lines


def evidence(built: Mapping[str, Any], pictures: str = "") -> str:
    """Return the document: what was found, the pictures, then each experiment's part.

    Args:
        built: the result of `page.write`.
        pictures: the folder of the pictures, with a slash at its end.
    """
    experiments = built["experiments"]
    links = {name: f"[{e['title']}](#{_anchor(e['title'])})" for name, e in experiments.items()}
    lines = [TITLE, "", built["summary"], "", *_bases(built), "## What was found", ""]
    told = [claim for claim in built["claims"] if claim["told"]]
    rows = [
        [
            claim["claim"],
            _found(claim["verdict"], claim["effect"]),
            _found(claim["losses"], claim["losses_effect"]),
            links[claim["experiment"]],
        ]
        for claim in told
    ]
    lines += tables.markdown(["claim", "verdict", "by held-out losses", "where"], rows)
    lines += ["", built["holm"], "", "## What could not be told", ""]
    for claim in built["claims"]:
        if not claim["told"]:
            losses = f"; {claim['losses_effect']}" if claim["losses_effect"] else ""
            where = links[claim["experiment"]]
            lines.append(f"- {claim['claim']} {claim['effect']}{losses}. {where}")
    lines += ["", UNTOLD, "", "## Pictures", ""]
    for experiment in experiments.values():
        lines += _pictures(experiment, pictures)
    lines += ["## How the numbers are computed", "", HOW, ""]
    parts = [part(experiment, 2, pictures=False) for experiment in experiments.values()]
    return "\n".join(lines) + "\n" + "\n".join(parts)


def _bases(built: Mapping[str, Any]) -> list[str]:
    """Return the verdicts by base model; no lines if there is one base only."""
    if not built["by_base"]:
        return []
    lines = ["## On several base models", ""]
    lines += ["The tables below are of the first base. Rows of different bases are never combined."]
    lines += ["", *(f"- {base['base']}: {base['summary']}" for base in built["bases"]), ""]
    return [*lines, *_table(built["by_base"]), ""]


def _anchor(title: str) -> str:
    """Return the anchor of a heading, as GitHub and MkDocs form it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _found(verdict: str | None, effect: str) -> str:
    return tables.NOTHING if verdict is None else f"{verdict}: {effect}"


def _claim(claim: Mapping[str, Any]) -> list[str]:
    """Return a claim's lines; one line where it could not be told by any measure."""
    named = f"- **{claim['claim']}** ({claim['source']})"
    if not claim["told"]:
        losses = f"; by held-out losses: {claim['losses_deciding']}" if claim["losses"] else ""
        return [f"{named} Could not be told: {claim['deciding']}{losses}"]
    lines = [named, f"  - Rule: {claim['rule']}."]
    for by, key, prefix in (
        (claim["by"], "verdict", ""),
        ("held-out losses", "losses", "losses_"),
    ):
        if claim[key] == UNCLEAR:
            lines.append(f"  - By {by}: {UNCLEAR}: {claim[prefix + 'deciding']}")
        elif claim[key]:
            lines.append(f"  - By {by}: {claim[key]}.")
            because = claim[prefix + "because"]
            lines += [f"    - {one['text']}: {one['verdict']}" for one in because]
    return lines


def _table(table: Mapping[str, Any]) -> list[str]:
    return tables.markdown(table["columns"], table["rows"])
