"""The tables of the report as text, for the page, Markdown and the terminal.

A table is `{"name", "title", "columns", "rows"}`, all text. Scores are percentages with 95 %
intervals, differences are percentage points; `-` means that there was nothing to score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from lori_core.config.evaluation import DEFAULT_SETUP
from lori_core.core import escaping
from lori_core.evaluation.rows import ADAPTER
from lori_core.evaluation.scoring.verdict_shares import VERDICTS
from lori_core.evaluation.statistics import is_share
from lori_core.report import contrasts, searches

NOTHING = "-"
#: Ways to score a task, in addition to the one of the main table.
WAYS = {
    "likelihood": "by log-likelihood",
    "paper_scoring": "scored as in the paper",
    "paper": "paper's protocol",
    "fixed": "fixed protocol",
}


def over_refusal_columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the main table's column of over-refusal for each safety task of the models."""
    tasks = dict.fromkeys(
        task
        for row in rows
        for task, score in row["scores"].items()
        if contrasts.OVER_REFUSAL in score
    )
    return {t: "over-refusal" if len(tasks) == 1 else f"over-refusal, {t}" for t in tasks}


def main_row(summary: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """Return a model's cells by column; a star marks a score that differs from the base's."""
    compared, base = summary["comparisons"], summary["rows"][0]["model"]
    cells = {"model": str(row["model"]), **dict.fromkeys(summary["columns"][1:], "")}
    over_refusal = over_refusal_columns(summary["rows"])
    for task, score in row["scores"].items():
        comparison = contrasts.find(compared, row["model"], base, task)
        cells[task] = percent(score) + star(comparison)
        if contrasts.OVER_REFUSAL in score:
            comparison = contrasts.find(compared, row["model"], base, task, over_refusal=True)
            cells[over_refusal[task]] = percent(score[contrasts.OVER_REFUSAL]) + star(comparison)
    return cells


def build(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables below the main one, without empty ones."""
    tables = [_forgetting(summary), _against_own(summary), _excess(summary)]
    tables += [searches.table(summary["search"]), _retained(summary)]
    tables += [_ways(summary), _verdicts(summary), _setups(summary), _kinds(summary)]
    return [table for table in tables if table["rows"]]


def _forgetting(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the safety score before and after each continual adapter's training."""
    task, before = summary["safety_task"], _row(summary, ADAPTER)
    rows = []
    for row in summary["rows"]:
        if row["role"] != "continual" or task not in row["scores"]:
            continue
        comparison = contrasts.find(summary["comparisons"], row["model"], before["model"], task)
        scores = [percent(side["scores"].get(task)) for side in (before, row)]
        p = NOTHING if comparison is None else p_value(comparison["p"])
        rows.append([row["model"], *scores, difference(comparison), p])
    columns = ["model", f"{task} before", f"{task} after", "difference", "p"]
    return _table("forgetting", "Forgetting: safety before and after", columns, rows)


def _against_own(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the differences of merged and continual adapters from each task's own adapter."""
    own, rows = _row(summary, ADAPTER), []
    for row in summary["rows"]:
        compared = [
            contrasts.find(summary["comparisons"], row["model"], own["model"], task)
            for task in summary["tasks"]
        ]
        if any(compared):
            rows.append([row["model"], *(difference(c) + star(c) if c else "" for c in compared)])
    name = own["model"].partition(",")[0]
    title = f"Difference from each task's own {name}, points (star: p < 0.05)"
    return _table("against_own", title, ["model", *summary["tasks"]], rows)


def _excess(summary: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for name, facts in summary["excess"].items():
        cells = [facts["excess"].get(task) for task in summary["tasks"]]
        rows.append([name, *("" if cell is None else excess(cell) for cell in cells)])
    title = "Interference (eq. 3): excess loss in the merge, nats per example"
    return _table("excess", title, ["merge", *summary["tasks"]], rows)


def _retained(summary: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for name, facts in summary["excess"].items():
        kept = [facts["excess"].get(task, {}).get("retained") for task in summary["tasks"]]
        if any(share is not None for share in kept):
            rows.append([name, *("" if share is None else f"{100 * share:.0f}" for share in kept)])
    title = (
        "Share of each adapter's gain in held-out loss over the base that a merge keeps, percent"
    )
    return _table("retained", title, ["merge", *summary["tasks"]], rows)


def _ways(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for each task and further way to score it, with a column for each model."""
    rows: dict[str, list[str]] = {}
    models = summary["rows"]
    for task in summary["tasks"]:
        scored = [_other_ways(row["scores"].get(task, {})) for row in models]
        for way in dict.fromkeys(way for ways in scored for way in ways):
            cells = [percent(ways[way]) if way in ways else "" for ways in scored]
            rows[f"{task}, {way}"] = cells
    return _by_model("ways", "Other ways of scoring", "task, scoring", summary, rows)


def _other_ways(score: Mapping[str, Any]) -> dict[str, Any]:
    named = {text: score[key] for key, text in WAYS.items() if key in score}
    return named | {f"pass@{k}": result for k, result in _by_number(score.get("pass_at", {}))}


def _by_number(by_k: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(by_k.items(), key=lambda item: int(item[0]))


def _verdicts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the share of each verdict of the safety tasks, with a column for each model."""
    rows: dict[str, list[str]] = {}
    for task in summary["tasks"]:
        scored = [row["scores"].get(task, {}).get("verdicts", {}) for row in summary["rows"]]
        for requests, verdict in product(sorted(scored[0]), VERDICTS):
            facts = scored[0][requests][verdict]
            if facts["n"]:
                cells = [percent(by[requests][verdict]) if by else "" for by in scored]
                rows[f"{task}, {requests}, {verdict} ({facts['n']})"] = cells
    title = "Answers to harmful and harmless requests (incoherent: neither refused nor answered)"
    return _by_model("verdicts", title, "task, requests, verdict", summary, rows)


def _setups(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rates in each set-up of a safety task, and their range over the set-ups."""
    rows: dict[str, list[str]] = {}
    for task in summary["tasks"]:
        scored = [row["scores"].get(task, {}) for row in summary["rows"]]
        names = dict.fromkeys(name for score in scored for name in score.get("setups", {}))
        for metric in ("refusal_rate", "over_refusal") if names else ():
            label = f"{task}, {metric.replace('_', '-')}"
            for name in (DEFAULT_SETUP, *names):
                cells = [_in_setup(score, name, metric) for score in scored]
                if any(cell not in ("", NOTHING) for cell in cells):
                    rows[f"{label}, {name}"] = cells
            rows[f"{label}, range"] = [_range(s.get("spread", {}).get(metric)) for s in scored]
    title = "Safety in other set-ups: seed and decoding, system turn, attack"
    return _by_model("setups", title, "task, rate, set-up", summary, rows)


def _in_setup(score: Mapping[str, Any], name: str, metric: str) -> str:
    result = score if name == DEFAULT_SETUP else score.get("setups", {}).get(name)
    if not result:
        return ""
    return percent(result if metric == "refusal_rate" else result[metric])


def _range(spread: Mapping[str, Any] | None) -> str:
    """Return `40 (system) to 90 (default)`: the smallest and largest rate in percent."""
    if spread is None:
        return ""
    low, high = (f"{100 * spread[end]:.0f}" for end in ("low", "high"))
    return f"{low} ({spread['lowest']}) to {high} ({spread['highest']})"


def _kinds(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for each kind of example of a task with several, and a column for each model."""
    rows: dict[str, list[str]] = {}
    for task in summary["tasks"]:
        scored = [row["scores"].get(task, {}).get("kinds", {}) for row in summary["rows"]]
        for kind, facts in scored[0].items() if len(scored[0]) > 1 else ():
            cells = [rounded(kinds[kind]) if kind in kinds else "" for kinds in scored]
            rows[f"{task}, {kind} ({facts['n']})"] = cells
    return _by_model("kinds", "By kind of example", "task, kind", summary, rows)


def _by_model(
    name: str, title: str, first: str, summary: Mapping[str, Any], rows: Mapping[str, list[str]]
) -> dict[str, Any]:
    columns = [first, *(row["model"] for row in summary["rows"])]
    return _table(name, title, columns, [[label, *cells] for label, cells in rows.items()])


def _table(name: str, title: str, columns: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"name": name, "title": title, "columns": columns, "rows": rows}


def _row(summary: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    row: Mapping[str, Any] = next(row for row in summary["rows"] if row["role"] == role)
    return row


def percent(score: Mapping[str, Any] | None) -> str:
    """Return `61 [54-68]`: a share in percent with its interval, if it has one.

    Other metrics, such as a perplexity, are shown as they are, with two decimals.
    """
    if score is None or score["score"] is None:
        return NOTHING
    scale, digits = (100, 0) if is_share(score) else (1, 2)
    middle, low, high = (
        "" if score[key] is None else f"{scale * score[key]:.{digits}f}"
        for key in ("score", "low", "high")
    )
    return f"{middle} [{low}-{high}]" if low else middle


def rounded(score: Mapping[str, Any]) -> str:
    """Return a share in whole percent."""
    return NOTHING if score["score"] is None else f"{100 * score['score']:.0f}"


def difference(comparison: Mapping[str, Any] | None) -> str:
    """Return `-4.5 [-9.0, -0.5]`: a difference in percentage points with its interval."""
    if comparison is None:
        return NOTHING
    middle, low, high = (signed(100 * comparison[key], 1) for key in ("difference", "low", "high"))
    return f"{middle} [{low}, {high}]"


def excess(cell: Mapping[str, Any]) -> str:
    """Return `+0.123 [+0.050, +0.200]`: a difference of losses with its interval, if it has one."""
    if cell["excess"] is None:
        return NOTHING
    if cell["low"] is None:
        return signed(cell["excess"], 3)
    middle, low, high = (signed(cell[key], 3) for key in ("excess", "low", "high"))
    return f"{middle} [{low}, {high}]"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign; without a sign if it rounds to zero."""
    rounded_value = round(value, digits)
    return f"{rounded_value:+.{digits}f}" if rounded_value else f"{0:.{digits}f}"


def p_value(p: float) -> str:
    """Return a p-value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def star(comparison: Mapping[str, Any] | None) -> str:
    """Return a star if the difference is significant (`contrasts.differs`)."""
    return "*" if contrasts.differs(comparison) else ""


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown, its cells escaped."""
    head, *body = (f"| {' | '.join(map(escaping.cell, row))} |" for row in (columns, *rows))
    return [head, "|" + " --- |" * len(columns), *body]
