"""The tables and verdicts in Markdown: a part for each experiment, and one document with all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lori_core.core import escaping
from lori_core.report import tables
from studies.analysis.verdicts import UNCLEAR

INTRO = (
    "The paper is 'LoRI: Reducing Cross-Task Interference in Multi-Task Low-Rank Adaptation' "
    "(arXiv:2504.07448). LoRI is LoRA with a frozen random A: LoRI-D trains all of B, LoRI-S only "
    "the entries of B inside a mask, 10 % of them unless said otherwise. Its claims, and some of "
    "this project, are tested here on the base and the data that are named below; the paper's "
    "bases have 7 and 8 billion parameters. 'Could not be told' means undecided, not refuted."
)
READING = (
    "How to read it: an effect is the difference that the claim is about, with its 95 % interval. "
    "In points of a score, above 0 supports the claim; in percent of a loss, below 0 does. A "
    "verdict needs the whole interval on one side of the claim's threshold, which is 0 unless its "
    "rule says otherwise; where the interval is too wide, the claim could not be told. These "
    "claims were decided by at least one measure:"
)
HOW = (
    "Intervals are of 95 %: of a score, the wider of Student's over seeds and that over the test "
    "items; of a loss, Student's over seeds; of a single seed, or of the base model, which is not "
    "trained, that over its items. A difference "
    "with a number of items is paired by seed and item, and its interval is over both together. "
    "Where the rows have no outcomes of items, it is paired by seed alone, and its interval is the "
    "wider of Student's and what its items allow if they count anew with each seed. A claim of "
    "several comparisons held where all of them do, which needs no correction for their number; it "
    "did not hold where one did not with Bonferroni's correction for their number, and otherwise "
    "could not be told at this size. With one seed, no claim about training is told: its intervals "
    "do not say how much another seed differs. The margin of 'as good as' and of 'within' is "
    "2 points, or 2 % of a loss, unless the rule says otherwise. Verdicts by held-out losses, "
    "which vary less, are beside those by the tasks' scores where both were measured."
)

#: The measures by which a claim on scores is judged as well, by the key of their verdict.
BESIDE = {"likelihood": "log-likelihood of choices", "losses": "held-out losses"}
HOW_LIKELIHOOD = (
    " By log-likelihood, the option that the model finds most likely per token is its answer, on "
    "the multiple-choice tasks alone; these verdicts are beside those by generated answers."
)
UNTOLD = (
    "Each line has the comparison that is nearest to refuting the claim, by scores and by held-out "
    "losses, with its 95 % interval. `lori experiment --plan-power` prints the seeds and test "
    "items that it takes to decide a claim."
)
#: The first line of the document.
TITLE = "# The paper's experiments, run here"


def beside(claims: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the measures of `BESIDE` by which at least one claim was judged, or held-out losses.

    Rows of older versions have no log-likelihoods; then no column is shown for them.
    """
    judged = {key for claim in claims for key in BESIDE if claim[key]}
    return {key: label for key, label in BESIDE.items() if key in judged or key == "losses"}


def how(claims: Iterable[Mapping[str, Any]]) -> str:
    """Return how the numbers of these claims are computed."""
    return HOW + HOW_LIKELIHOOD if "likelihood" in beside(claims) else HOW


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
    lines = [TITLE, "", INTRO, "", built["summary"], "", *_bases(built), "## What was found", ""]
    told = [claim for claim in built["claims"] if claim["told"]]
    measures = beside(built["claims"])
    rows = [
        [
            claim["claim"],
            _found(claim["verdict"], claim["effect"]),
            *(_found(claim[key], claim[f"{key}_effect"]) for key in measures),
            links[claim["experiment"]],
        ]
        for claim in told
    ]
    columns = [
        "claim",
        "by scores or measurements",
        *(f"by {label}" for label in measures.values()),
        "where",
    ]
    lines += [READING, "", *tables.markdown(columns, rows)] if rows else []
    lines += ["", built["holm"], "", "## What could not be told", ""]
    for claim in built["claims"]:
        if not claim["told"]:
            where = links[claim["experiment"]]
            effects = "; ".join(_effects(claim))
            lines.append(f"- {claim['claim']} {effects[0].upper()}{effects[1:]}. {where}")
    lines += ["", UNTOLD, "", "## Pictures", ""]
    for experiment in experiments.values():
        lines += _pictures(experiment, pictures)
    lines += ["## How the numbers are computed", "", how(built["claims"]), ""]
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


def _effects(claim: Mapping[str, Any]) -> list[str]:
    """Return a claim's effects by scores and by the measures beside them.

    The text of a loss names the loss itself.
    """
    effects = [claim["effect"]]
    if claim["likelihood"]:
        effects.append(f"{claim['likelihood_effect']} by {BESIDE['likelihood']}")
    if claim["losses"]:
        effects.append(claim["losses_effect"])
    return effects


def _claim(claim: Mapping[str, Any]) -> list[str]:
    """Return a claim's lines; one line where it could not be told by any measure."""
    named = f"- **{claim['claim']}** ({claim['source']})"
    if not claim["told"]:
        texts = [claim["deciding"]]
        texts += [
            f"by {label}: {claim[f'{key}_deciding']}" for key, label in BESIDE.items() if claim[key]
        ]
        return [f"{named} Could not be told: {'; '.join(texts)}"]
    lines = [named, f"  - Rule: {claim['rule']}."]
    for by, key, prefix in (
        (claim["by"], "verdict", ""),
        *((label, key, f"{key}_") for key, label in BESIDE.items()),
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
