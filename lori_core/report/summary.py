"""The summary of a run: scores of all models on all tasks, sizes, overlaps and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.core import escaping
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import read_json
from lori_core.evaluation.rows import ADAPTER, CALIBRATED, check
from lori_core.evaluation.scoring.scorers import meaning_of
from lori_core.methods.catalogue import METHODS
from lori_core.report import contrasts, searches, tables

SUMMARY = "summary.json"
#: Begins the name of a score by lm-evaluation-harness (`evaluate._by_harness`).
HARNESS = "lm-eval/"
#: The tables that the terminal shows; the page has all tables.
SHOWN = ("forgetting", "against_own", "excess", "search")
STAR = (
    "A star: the score differs from the base's on the same items at p < 0.05 (McNemar's exact "
    "test, or a paired permutation test where items were answered several times; each by itself). "
    "Intervals of differences are of 95 %, over the items"
)


def build(params: Params, metrics: Path, evaluations: Path) -> dict[str, Any]:
    """Collect the metrics of the stages, and compare the models on the same items.

    Args:
        params: the parameters of the run.
        metrics: the folder of the stages' metrics.
        evaluations: the folder of the verdicts; without it the models are not compared.

    Returns:
        `rows`: the models with their scores by task; `table`: the same as text; `tables`: further
        tables; `comparisons`: those of `contrasts.collect`; `metrics`: numbers for the tracker;
        `adapters`: sizes; `interference`: by pair; `excess`: by merge, if measured; `search`:
        by merge, if its weights were searched; `beats_base`: by task.

    Raises:
        InputError: metrics are missing.
        DataError: the models were not evaluated on the same items.
    """
    rows = _rows(params, metrics / "evaluate")
    over_refusal = tables.over_refusal_columns(rows)
    interference = _checked(metrics / "interference.json")
    summary: dict[str, Any] = {
        "tasks": list(params.tasks),
        "safety_task": params.continual.safety_task,
        "columns": ["model", *params.tasks, *(over_refusal.values() or ["over-refusal"])],
        "rows": rows,
        "comparisons": contrasts.collect(rows, evaluations),
        "metrics": _flat(rows, interference[ADAPTER]),
        "adapters": _adapters(params, metrics),
        "interference": interference,
        "excess": _excess(params, metrics / "excess"),
        "search": searches.collect(list(params.merge), metrics / "search"),
        "masks": _masks(params, metrics / "mask"),
        "own": own_name(params),
        "beats_base": _beats_base(rows, params),
    }
    summary["table"] = [tables.main_row(summary, row) for row in rows]
    summary["tables"] = tables.build(summary)
    return summary


def _rows(params: Params, folder: Path) -> list[dict[str, Any]]:
    """Return the models with their scores and the relative paths of their verdicts, by task."""
    base = read_json(folder / "base" / "base.json")["base"]
    rows = [_row("base", "base", base, "base/base")]
    name_of_own = own_name(params)
    for role, model in ((CALIBRATED, "LoRI-D"), (ADAPTER, name_of_own)):
        own = _row(role, f"{model}, each on its own", {}, "")
        for task in params.tasks:
            scores = _checked(folder / "adapters" / f"{task}.json").get(role, {})
            row = _row(role, model, _named_after(task, scores), f"adapters/{task}/{role}")
            own["scores"] |= row["scores"]
            own["files"] |= row["files"]
        # Other methods than LoRI have no calibrated adapters; tasks without a scorer no scores.
        if own["scores"] or role == ADAPTER:
            rows.append(own)
    for name in params.merge:
        scores = read_json(folder / "merged" / f"{name}.json")[name]
        rows.append(_row("merge", f"{name_of_own} merged, {name}", scores, f"merged/{name}/{name}"))
    for task in params.continual.tasks:
        scores = read_json(folder / "continual" / f"{task}.json")["continual"]
        path = f"continual/{task}/continual"
        rows.append(_row("continual", f"safety, then {task}", scores, path))
    return rows


def _named_after(task: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Return an adapter's scores; those of tasks of the harness as `lm-eval/<name>.<task>`.

    Each task's adapter is scored on the same tasks of the harness, and one row has them all.
    """
    return {name if name == task else f"{name}.{task}": score for name, score in scores.items()}


def _checked(path: Path) -> dict[str, Any]:
    rows: dict[str, Any] = read_json(path)
    check(rows, path)
    return rows


def own_name(params: Params) -> str:
    """Return the name of the tasks' own adapters: their method's if all have the same."""
    used = {params.method(task).name for task in params.tasks}
    return METHODS[used.pop()].label if len(used) == 1 else "adapters"


def _row(role: str, model: str, scores: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return a row; the samples of the harness are no verdicts that could be compared."""
    files = {task: f"{folder}/{task}.jsonl" for task in scores if not task.startswith(HARNESS)}
    return {"role": role, "model": model, "scores": dict(scores), "files": files}


def _adapters(params: Params, metrics: Path) -> dict[str, Any]:
    names = ("trainable_parameters", "adapter_bytes", "trainable_share")
    adapters = {}
    for phase in ("calibrate", "train"):
        for task in params.tasks:
            facts = read_json(metrics / phase / f"{task}.json")
            if facts.get("unused"):  # the task's method has no calibration run
                continue
            adapters[f"{phase} {task}"] = {key: facts[key] for key in names}
    return adapters


def _masks(params: Params, folder: Path) -> dict[str, Any]:
    by_task = {task: read_json(folder / f"{task}.json") for task in params.tasks}
    return {task: facts for task, facts in by_task.items() if not facts.get("unused")}


def _excess(params: Params, folder: Path) -> dict[str, Any]:
    """Return each merge's excess losses (paper, equation 3), for merges that have them."""
    paths = {name: folder / f"{name}.json" for name in params.merge}
    by_merge = {name: read_json(path) for name, path in paths.items() if path.is_file()}
    return {name: facts for name, facts in by_merge.items() if facts["excess"]}


def _short_name(row: dict[str, Any]) -> str:
    """Return a model's name in metrics, such as `adapter`, `merge-concat` or `continual-nlu`."""
    item = row["model"].rpartition(", ")[2].removeprefix("then ")
    own = row["role"] in ("base", CALIBRATED, ADAPTER)
    return str(row["role"]) if own else f"{row['role']}-{item}".replace(" ", "-")


def _flat(rows: list[dict[str, Any]], pairs: dict[str, dict[str, float]]) -> dict[str, float]:
    flat = {}
    for row in rows:
        name = _short_name(row)
        for task, score in row["scores"].items():
            if score["n"]:
                flat[f"score.{name}.{task}"] = score["score"]
    for pair, facts in pairs.items():
        flat[f"cosine.{pair.replace('+', '-')}"] = facts["mean_abs_cosine"]
    return flat


def _beats_base(rows: list[dict[str, Any]], params: Params) -> dict[str, bool]:
    """Return for each task whether its adapter's interval is entirely above the base model's."""
    base, sparse = (next(r["scores"] for r in rows if r["role"] == n) for n in ("base", ADAPTER))
    return {
        task: bool(sparse[task]["low"] > base[task]["high"])
        for task in params.tasks
        if sparse.get(task, {}).get("n") and base.get(task, {}).get("n")
    }


def markdown(summary: dict[str, Any]) -> str:
    """Return the tables and the facts as Markdown."""
    columns = summary["columns"]
    lines = tables.markdown(columns, [[row[c] for c in columns] for row in summary["table"]])
    lines += ["", *(f"- {escaping.cell(fact)}" for fact in facts(summary))]
    for table in summary["tables"]:
        lines += ["", f"## {table['title']}", ""]
        lines += tables.markdown(table["columns"], table["rows"])
    return "\n".join(lines) + "\n"


def facts(summary: dict[str, Any]) -> list[str]:
    """Return the lines below the table: sizes, shares, mask overlap and interference."""
    own = summary["own"]
    dense = [v for name, v in summary["adapters"].items() if name.startswith("calibrate")]
    sparse = [v for name, v in summary["adapters"].items() if name.startswith("train")]
    named = {"LoRI-D": dense, own: sparse}
    sizes = [f"{name} {_size(adapters)}" for name, adapters in named.items() if adapters]
    first = summary["rows"][0]["scores"]
    n = ", ".join(f"{task} {score['n']}" for task, score in first.items())
    lines = [
        "Scores are percentages with 95 % intervals; test examples: " + n,
        *([STAR] if summary.get("comparisons") else []),
        *(
            f"{task}: {meaning_of(score['metric']) or score['metric']}"
            for task, score in first.items()
        ),
        f"{own}: interval entirely above the base model's on: {_named(summary['beats_base'])}",
        f"An adapter: {', '.join(sizes)}",
    ]
    lines += searches.sentences(summary.get("search", {}))
    pairs = summary["interference"][ADAPTER]
    if pairs:
        overlap = [p["mask_overlap"] for p in pairs.values() if "mask_overlap" in p]
        expected = [p["expected_overlap"] for p in pairs.values() if "expected_overlap" in p]
        cosine = [p["mean_abs_cosine"] for p in pairs.values()]
        if overlap:
            lines.append(
                f"Mask overlap {100 * _mean(overlap):.2f} % of all entries "
                f"({100 * _mean(expected):.2f} % if masks were independent)"
            )
        within = [p["within_bound"] for p in pairs.values() if "within_bound" in p]
        lines.append(
            f"Interference |cos(ΔW_s, ΔW_t)| {_mean(cosine):.4f} on average, "
            f"{max(p['max_abs_cosine'] for p in pairs.values()):.3f} at most"
        )
        if within:
            lines[-1] += f"; {100 * _mean(within):.0f} % of modules within Property 1's bound"
    return lines


def _named(flags: dict[str, bool]) -> str:
    return ", ".join(task for task, true in flags.items() if true) or "no task"


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
    """Print the table of the last run and the paths of its report.

    Raises:
        InputError: there is no finished run yet.
    """
    from rich.console import Console

    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder / SUMMARY}: no finished run here yet; start one with `lori run`")
    summary = read_json(folder / SUMMARY)
    # Wide enough for the whole table, also in a log or a narrow terminal.
    console = Console(soft_wrap=True)
    console.width = max(console.width, 24 + 17 * len(summary["columns"]))
    columns = summary["columns"]
    rows = [[row[column] for column in columns] for row in summary["table"]]
    _print(console, "Scores on the test sets, percent [95 % interval]", columns, rows)
    for fact in facts(summary):
        console.print(f"  {fact}", highlight=False)
    for table in summary.get("tables", []):  # reports of older versions have no tables
        if table["name"] in SHOWN:
            console.print()
            _print(console, table["title"], table["columns"], table["rows"])
    console.print("\nWhere to look next:", highlight=False)
    console.print(f"  the figures    {folder / 'index.html'}", highlight=False)
    console.print(
        "  the runs       mlflow ui --backend-store-uri sqlite:///mlflow.db", highlight=False
    )
    console.print("  the versions   dvc dag, dvc metrics show, git diff dvc.lock", highlight=False)


def _print(console: Any, title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        justify = "left" if column == columns[0] else "right"
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    console.print(table)
