"""The table that ends a run: every model by every task, with intervals, sizes and overlaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.errors import InputError
from lori_core.files import read_json

SUMMARY = "summary.json"
#: What a score of each metric means, for people.
METRICS = {
    "accuracy": "share answered right",
    "exact_match": "share with the right final number",
    "pass_at_1": "share of functions that pass their tests",
    "refusal_rate": "share of harmful requests refused",
}


def build(params: Params, metrics: Path) -> dict[str, Any]:
    """Collect what the stages measured.

    Returns:
        `rows`: the models with their scores by task; `table`: the same as text; `metrics`: flat
        numbers for tracking; `adapters`: sizes; `interference`: by pair; `beats_base`: by task.
    """
    rows = _rows(params, metrics / "evaluate")
    adapters = {
        f"{phase} {task}": read_json(metrics / phase / f"{task}.json")
        for phase in ("calibrate", "train")
        for task in params.tasks
    }
    interference = read_json(metrics / "interference.json")
    masks = {task: read_json(metrics / "mask" / f"{task}.json") for task in params.tasks}
    return {
        "tasks": list(params.tasks),
        "columns": ["model", *params.tasks, "over-refusal"],
        "rows": rows,
        "table": [_text_row(row, params) for row in rows],
        "metrics": _flat(rows, interference["lori-s"]),
        "adapters": {
            name: {key: facts[key] for key in ("trainable_parameters", "adapter_bytes")}
            | {"trainable_share": facts["trainable_share"]}
            for name, facts in adapters.items()
        },
        "interference": interference,
        "masks": masks,
        "beats_base": _beats_base(rows, params),
    }


def _rows(params: Params, folder: Path) -> list[dict[str, Any]]:
    own: dict[str, dict[str, Any]] = {"lori-d": {}, "lori-s": {}}
    for task in params.tasks:
        scored = read_json(folder / "adapters" / f"{task}.json")
        for method, tasks in scored.items():
            own[method] |= tasks
    rows = [{"model": "base", "scores": read_json(folder / "base" / "base.json")["base"]}]
    rows.append({"model": "LoRI-D, each on its own", "scores": own["lori-d"]})
    rows.append({"model": "LoRI-S, each on its own", "scores": own["lori-s"]})
    for name in params.merge:
        scored = read_json(folder / "merged" / f"{name}.json")
        rows.append({"model": f"LoRI-S merged, {name}", "scores": scored[name]})
    for task in params.continual.tasks:
        scored = read_json(folder / "continual" / f"{task}.json")
        rows.append({"model": f"safety, then {task}", "scores": scored["continual"]})
    return rows


def _text_row(row: dict[str, Any], params: Params) -> dict[str, str]:
    cells = {"model": row["model"]}
    for task in params.tasks:
        score = row["scores"].get(task)
        cells[task] = "" if score is None else _percent(score)
    over = [s["over_refusal"] for s in row["scores"].values() if "over_refusal" in s]
    cells["over-refusal"] = _percent(over[0]) if over else ""
    return cells


def _percent(score: dict[str, Any]) -> str:
    return f"{100 * score['score']:.0f} [{100 * score['low']:.0f}-{100 * score['high']:.0f}]"


def _flat(rows: list[dict[str, Any]], pairs: dict[str, dict[str, float]]) -> dict[str, float]:
    flat = {}
    for row in rows:
        name = row["model"].replace(", ", ".").replace(" ", "-")
        for task, score in row["scores"].items():
            flat[f"{name}.{task}"] = score["score"]
    for pair, facts in pairs.items():
        flat[f"cosine.{pair.replace('+', '-')}"] = facts["mean_abs_cosine"]
    return flat


def _beats_base(rows: list[dict[str, Any]], params: Params) -> dict[str, bool]:
    """Whether LoRI-S's interval lies wholly above the base model's, for each task."""
    base, sparse = rows[0]["scores"], rows[2]["scores"]
    return {
        task: bool(sparse[task]["low"] > base[task]["high"])
        for task in params.tasks
        if task in sparse and task in base
    }


def markdown(summary: dict[str, Any]) -> str:
    """Return the table and the facts under it as Markdown."""
    columns = summary["columns"]
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    lines += [f"| {' | '.join(row[c] for c in columns)} |" for row in summary["table"]]
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts(summary))]) + "\n"


def facts(summary: dict[str, Any]) -> list[str]:
    """Return the lines under the table: sizes, share, overlap, interference."""
    dense = [v for name, v in summary["adapters"].items() if name.startswith("calibrate")]
    sparse = [v for name, v in summary["adapters"].items() if name.startswith("train")]
    first = summary["rows"][0]["scores"]
    n = ", ".join(f"{task} {score['n']}" for task, score in first.items())
    lines = [
        "Scores are percentages with 95 % intervals; test examples: " + n,
        *(
            f"{task}: {METRICS.get(score['metric'], score['metric'])}"
            for task, score in first.items()
        ),
        f"LoRI-S beats the base by more than both intervals on: {_named(summary['beats_base'])}",
        f"An adapter: LoRI-D {_size(dense)}, LoRI-S {_size(sparse)}",
    ]
    pairs = summary["interference"]["lori-s"]
    if pairs:
        overlap = [p["mask_overlap"] for p in pairs.values() if "mask_overlap" in p]
        expected = [p["expected_overlap"] for p in pairs.values() if "expected_overlap" in p]
        cosine = [p["mean_abs_cosine"] for p in pairs.values()]
        if overlap:
            lines.append(
                f"Mask overlap {100 * _mean(overlap):.2f} % of all entries "
                f"({100 * _mean(expected):.2f} % if masks were independent)"
            )
        lines.append(
            f"Interference |cos(ΔW_s, ΔW_t)| {_mean(cosine):.4f} on average, "
            f"{max(p['max_abs_cosine'] for p in pairs.values()):.3f} at most; "
            f"{100 * _mean([p['within_bound'] for p in pairs.values()]):.0f} % of modules within "
            "Property 1's bound"
        )
    return lines


def _named(found: dict[str, bool]) -> str:
    return ", ".join(task for task, true in found.items() if true) or "no task"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _size(adapters: list[dict[str, Any]]) -> str:
    count = _mean([a["trainable_parameters"] for a in adapters])
    share = _mean([a["trainable_share"] for a in adapters])
    size = _mean([a["adapter_bytes"] for a in adapters])
    return (
        f"{size / 1e6:.1f} MB, {count / 1e6:.2f} M trained values ({100 * share:.2f} % of the base)"
    )


def show(folder: Path) -> None:
    """Print the last run's table, and where to look next.

    Raises:
        InputError: if there is no finished run yet.
    """
    from rich.console import Console
    from rich.table import Table

    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder / SUMMARY}: no finished run here yet; start one with `lori run`")
    summary = read_json(folder / SUMMARY)
    table = Table(title="Scores on the test sets, percent [95 % interval]")
    for column in summary["columns"]:
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in summary["table"]:
        table.add_row(*(row[column] for column in summary["columns"]))
    # Wide enough for the table even where nobody can scroll: a log, a narrow window.
    console = Console(soft_wrap=True)
    console.width = max(console.width, 24 + 16 * len(summary["columns"]))
    console.print(table)
    for fact in facts(summary):
        console.print(f"  {fact}", highlight=False)
    console.print("\nWhere to look next:", highlight=False)
    console.print(f"  the pictures   {folder / 'index.html'}", highlight=False)
    console.print(
        "  the runs       mlflow ui --backend-store-uri sqlite:///mlflow.db", highlight=False
    )
    console.print("  the versions   dvc dag, dvc metrics show, git diff dvc.lock", highlight=False)
