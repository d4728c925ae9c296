"""The comparison of `lori compare`: tasks by models, each model tested against the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lori_core.core.files.atomic import write_json, write_text
from lori_core.core.redaction import redact, redacted
from lori_core.evaluation import bounded_mean
from lori_core.evaluation.paired_comparison import (
    Rows,
    compare,
    flipped,
    outcomes,
    read_verdicts,
    without_template_tokens,
)
from lori_core.report import tables

#: The number of examples on the page for each pair of models.
EXAMPLES = 10
TITLE = "Scores by task and model, percent with 95 % intervals"
NOTE = (
    "Differences are to {first}, in points, on the items that both were asked, with 95 % "
    "intervals; a star marks p < 0.05 (McNemar's exact test, with which the interval agrees, or a "
    "paired permutation test where items were answered several times; each by itself)."
)


def build(models: Mapping[str, Mapping[str, Path]]) -> dict[str, Any]:
    """Score models on their verdicts and compare each with the first.

    Args:
        models: by model name, the files of verdicts by task.

    Returns:
        `models`: the names in order; `scores`: by task and model; `differences`: by task and
        model, except the first; `columns` and `rows`: the same as a table of text; `flips`:
        examples on which models differ.

    Raises:
        DataError: two models have no common item of a task, or a file of verdicts is malformed.
    """
    names = list(models)
    measures = list(_measures(models))
    scores: dict[str, dict[str, Any]] = {}
    differences: dict[str, dict[str, Any]] = {}
    flips: list[dict[str, str]] = []
    for label, task, rows in measures:
        present = {name: models[name][task] for name in names if task in models[name]}
        scores[label] = {name: _score(path, rows) for name, path in present.items()}
        first = present.get(names[0])
        differences[label] = {}
        for name, path in present.items():
            if first is not None and name != names[0]:
                differences[label][name] = asdict(compare(path, first, rows, shared=True))
                flips += _flips(label, name, path, first, rows)
    built = {"models": names, "scores": scores, "differences": differences, "flips": flips}
    return built | {"columns": ["task", *names], "rows": list(_cells(built))}


def _measures(models: Mapping[str, Mapping[str, Path]]) -> Iterator[tuple[str, str, Rows]]:
    """Yield label, task and rows of each measure; a safety task has refusals and over-refusals."""
    for task in dict.fromkeys(task for files in models.values() for task in files):
        path = next(files[task] for files in models.values() if task in files)
        answers = {row.get("answer") for row in read_verdicts(path)}
        if answers <= {"refuse", "comply"}:
            if "refuse" in answers:
                yield f"{task}, refusals", task, "refuse"
            if "comply" in answers:
                yield f"{task}, over-refusals", task, "comply"
        else:
            yield task, task, "all"


def _score(path: Path, rows: Rows) -> dict[str, Any]:
    shares = list(outcomes(path, rows).values())
    low, high = bounded_mean.interval([float(share) for share in shares], 0, 1)
    score = float(sum(shares) / len(shares))
    return {"score": score, "low": low, "high": high, "n": len(shares)}


def _flips(label: str, name: str, path: Path, first: Path, rows: Rows) -> Iterator[dict[str, str]]:
    for ours, theirs in list(flipped(path, first, rows))[:EXAMPLES]:
        yield {
            "task": label,
            "model": name,
            "prompt": without_template_tokens(str(ours.get("prompt", ""))),
            "answer": str(ours["answer"]),
            "first": str(theirs.get("output", "")),
            "then": str(ours.get("output", "")),
        }


def _cells(built: Mapping[str, Any]) -> Iterator[list[str]]:
    for label, by_model in built["scores"].items():
        n = max(score["n"] for score in by_model.values())
        cells = [f"{label} ({n})"]
        for name in built["models"]:
            score, compared = by_model.get(name), built["differences"][label].get(name)
            text = tables.percent(score)
            if score is not None and score["n"] != n:
                text += f" of {score['n']}"
            if compared is not None:
                text += f"; Δ {tables.difference(compared)}{tables.star(compared)}"
                text += f" on {compared['n']}" if compared["n"] != n else ""
            cells.append(text)
        yield cells


def text(built: Mapping[str, Any]) -> list[str]:
    """Return the lines of the table for a terminal."""
    grid = [built["columns"], *built["rows"]]
    widths = [max(len(row[i]) for row in grid) for i in range(len(built["columns"]))]
    lines = [TITLE, ""]
    for row in grid:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return [*lines, "", NOTE.format(first=built["models"][0])]


def write(built: Mapping[str, Any], folder: Path, about: Sequence[str] = ()) -> None:
    """Write `index.html`, `compare.json` and `compare.md` into a folder.

    Args:
        built: the return value of `build`.
        folder: the folder; created if it does not exist.
        about: a line about the origin of each model.
    """
    from jinja2 import Environment, FileSystemLoader

    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    note = NOTE.format(first=built["models"][0])
    html = pages.get_template("compare.html").render(built=built, note=note, about=list(about))
    markdown = tables.markdown(built["columns"], built["rows"])
    write_text(folder / "index.html", redact(html))
    page = "\n".join([f"# {TITLE}", "", *markdown, "", note]) + "\n"
    write_text(folder / "compare.md", redact(page))
    write_json(folder / "compare.json", redacted({k: v for k, v in built.items() if k != "flips"}))
