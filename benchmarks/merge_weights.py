"""Searched weights of a merge against uniform ones, on the test sets of finished runs.

For each merge of `params.yaml`, validation examples give two choices of weights: the best single
number for all tasks (of `--grid`; chosen as a search chooses among its candidates), and those of a
search with its default settings that starts from the merge's own weights. These and the uniform
weights are scored on the test sets, which no choice has seen. Then the searched weights are
compared with each of the others on the same items.

    python -m benchmarks.merge_weights WORKSPACE ... [--merges concat safe] [--weights 0.3 0.5 1.0]

Several workspaces are runs with different seeds: an item's outcome is then its mean over the runs,
and the intervals (95 %) are over the items. Scores that a folder of `--out` has are not measured
again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copytree
from typing import Any

from lori_core.core.files.atomic import read_json, write_json

#: The numbers that the best single one is chosen from.
GRID = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2]
SINGLE, SEARCHED = "best single number", "searched"


def chosen(
    merging: Any, first: Mapping[str, float], measures: Any, grid: Sequence[float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the weights chosen on validation examples by row, and all measured candidates."""
    from lori_core.config import SearchSection
    from lori_core.evaluation.search.choice import choose
    from lori_core.evaluation.search.search import search

    singles = []
    for weight in grid:
        weights = uniform(first, weight, merging.density)
        found = measures.candidate(f"uniform {weight:g}", weights, merging.with_weights(weights))
        singles.append(found)
        print(
            f"{found.name}: objective {found.objective:.3f}, misses {found.violations}", flush=True
        )
    result = search(
        merging, first, SearchSection(), measures, lambda number, candidate: None, print
    )
    print(result.sentence, flush=True)
    rows = {SINGLE: singles[choose(singles)].weights, SEARCHED: result.weights}
    return rows, [candidate.as_dict() for candidate in (*singles, *result.candidates)]


def uniform(tasks: Mapping[str, float], weight: float, density: float | None) -> Any:
    """Return one weight for all tasks."""
    from lori_core.merging.learned.weight_groups import MergeWeights

    return MergeWeights.by_task(dict.fromkeys(tasks, weight), density)


def score(name: str, weights: Sequence[float], grid: Sequence[float], out: Path) -> None:
    """Choose the weights of a merge of the current workspace, and score them on the test sets.

    Each row's outputs are in `out/<row>/<task>.jsonl`; weights, candidates and scores in
    `out/results.json`, written after each row. Rows that it has are kept.
    """
    from lori_core.config import SearchSection
    from lori_core.data.pulled import read_examples
    from lori_core.evaluation.evaluate import evaluate
    from lori_core.merging.learned.weight_groups import MergeWeights
    from lori_core.pipeline import params_file
    from lori_core.pipeline.base import open_base
    from lori_core.pipeline.merging import given_weights, parents_of
    from lori_core.pipeline.stages.search import measures_of

    params = params_file.load()
    merging, first = parents_of(params, name), given_weights(params, name)
    path = out / "results.json"
    result = read_json(path) if path.is_file() else {"weights": {}, "scores": {}}
    rows = {f"uniform {weight:g}": uniform(first, weight, merging.density) for weight in weights}
    if SEARCHED in result["weights"]:
        kept = {row: MergeWeights(**result["weights"][row]) for row in (SINGLE, SEARCHED)}
    else:
        measures = measures_of(params, name, SearchSection())
        kept, result["candidates"] = chosen(merging, first, measures, grid)
    rows |= kept
    result["weights"] = {row: asdict(found) for row, found in rows.items()}
    write_json(path, result)
    session = open_base(params, training=False)
    tests = {task: read_examples(task, "test") for task in params.tasks}
    for row, found in rows.items():
        if row not in result["scores"]:
            same = next((r for r in result["scores"] if rows.get(r) == found), None)
            if same is not None:  # the same weights by another way: the same outputs
                copytree(out / same, out / row, dirs_exist_ok=True)
                result["scores"][row] = result["scores"][same]
            else:
                merged = merging.with_weights(found)
                result["scores"][row] = evaluate(session, merged, tests, row, out)
            write_json(path, result)


def pooled(folders: Sequence[Path], row: str, task: str, place: Path) -> Path:
    """Write the verdicts of a row in several runs into one file: several outputs for an item."""
    path = place / f"{row}.{task}.jsonl"
    path.write_text(
        "".join((folder / row / f"{task}.jsonl").read_text("utf-8") for folder in folders), "utf-8"
    )
    return path


def differences(folders: Sequence[Path], rows: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the difference of the searched weights to each other row, by task, on all runs."""
    from lori_core.evaluation.paired_comparison import Rows, compare, score_rows

    tasks = sorted(path.stem for path in (folders[0] / SEARCHED).glob("*.jsonl"))
    with tempfile.TemporaryDirectory() as temporary:
        for task in tasks:
            ours = pooled(folders, SEARCHED, task, Path(temporary))
            kinds: list[Rows] = ["refuse", "comply"] if score_rows(ours) == "refuse" else ["all"]
            for other in rows:
                theirs = pooled(folders, other, task, Path(temporary))
                for kind in kinds:
                    found = compare(ours, theirs, kind)
                    yield {
                        "other": other, "task": task, "rows": kind, "difference": found.difference,
                        "low": found.low, "high": found.high, "p": found.p, "items": found.n,
                    }  # fmt: skip


def main() -> None:
    """Score, compare, print, and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge_weights")
    parser.add_argument("workspaces", type=Path, nargs="+")
    parser.add_argument("--merges", nargs="+", default=["concat", "safe"])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.3, 0.5, 1.0])
    parser.add_argument("--grid", type=float, nargs="+", default=GRID)
    parser.add_argument("--out", type=Path, default=Path(".lori/merge_weights"))
    args = parser.parse_args()
    out, start = args.out.absolute(), Path.cwd()
    for name in args.merges:
        folders = []
        for workspace in args.workspaces:
            folders.append(out / name / workspace.resolve().name)
            folders[-1].mkdir(parents=True, exist_ok=True)
            os.chdir(start / workspace)
            score(name, args.weights, args.grid, folders[-1])
            os.chdir(start)
        others = [*(f"uniform {weight:g}" for weight in args.weights), SINGLE]
        found = list(differences(folders, others))
        write_json(out / name / "differences.json", {"rows": found})
        for row in found:
            print(
                f"{name}: searched against {row['other']}, {row['task']} ({row['rows']}, "
                f"{row['items']} items): {100 * row['difference']:+.1f} points "
                f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}], p {row['p']:.3f}"
            )


if __name__ == "__main__":
    main()
