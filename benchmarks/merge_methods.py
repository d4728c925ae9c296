"""A table of all merge methods on the tasks of a finished run.

For each kind of adapter (LoRI-S, LoRI-D, and LoRA where a folder with `TASK` or `TASK/adapter` for
each task is given) and each merge method: the normalised retention on validation examples, the mean
over the tasks of (L(base) − L(merge)) / (L(base) − L(own)), and its least; the share of the harmful
validation requests that are refused; the processor seconds and the peak memory of merging and
saving; and the rank. Test sets are not read.

    python -m benchmarks.merge_methods WORKSPACE [--lora FOLDER] [--weight 0.5] [--density 0.7]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.core.files.atomic import write_json, write_text

#: By kind of adapter, the folder of a task's adapter.
KINDS = {"LoRI-S": "adapter", "LoRI-D": "calibrated"}
COLUMNS = ("kind", "method", "retained", "least", "refusal", "seconds", "memory, MB", "rank")


def merged_seconds(
    method: str, adapters: Sequence[Any], weight: float, density: float, folder: Path
) -> Any:
    """Return a merge that was saved and loaded, its processor seconds, and its peak memory, MB.

    The peak is that above the memory in use before; None where the system does not say. The merge
    is saved in `folder`.
    """
    from lori_core.adapters import adapter_file
    from lori_core.merging.catalogue import MERGE_METHODS
    from lori_core.merging.merge import merge
    from lori_core.merging.merge_methods import Options

    options = Options(density=density if "density" in MERGE_METHODS[method].uses else None)
    before, start = _memory_reset(), time.process_time()
    merged = merge(method, adapters, [weight] * len(adapters), options)
    adapter_file.save(merged, folder / "adapter")
    seconds, peak = time.process_time() - start, _status("VmHWM")
    memory = None if before is None or peak is None else (peak - before) / 1024
    return adapter_file.load(folder / "adapter"), seconds, memory


def _memory_reset() -> float | None:
    """Forget this process's peak memory; return what it uses, kB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> float | None:
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    values = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return next((float(value) for value in values), None)


def methods(count: int) -> list[str]:
    """Return the methods that merge `count` single-task adapters."""
    from lori_core.merging.catalogue import MERGE_METHODS

    two = {"safemerge"}  # exactly two adapters
    return [
        name
        for name, method in MERGE_METHODS.items()
        if not method.starts and (count == 2 or name not in two)
    ]


def rows(
    kind: str,
    measures: Any,
    adapters: Mapping[str, Any],
    names: Sequence[str],
    weight: float,
    density: float,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each method.

    Args:
        kind: the kind of the adapters.
        measures: `evaluation.search.candidates.Measures` of these adapters.
        adapters: the adapters by task.
        names: the merge methods.
        weight: the weight of each adapter.
        density: of the methods that have one.
    """
    from lori_core.merging.learned.weight_groups import MergeWeights

    weights = MergeWeights.by_task(dict.fromkeys(adapters, weight))
    for name in names:
        with tempfile.TemporaryDirectory(prefix="lori-merge-") as folder:
            merged, seconds, memory = merged_seconds(
                name, list(adapters.values()), weight, density, Path(folder)
            )
            found = measures.candidate(name, weights, merged)
        yield {
            "kind": kind, "method": name, "retained": fmean(found.retained.values()),
            "least": min(found.retained.values()), "refusal": found.rules.get("refusal"),
            "seconds": seconds, "memory, MB": memory, "rank": merged.rank,
            "by_task": dict(found.retained),
        }  # fmt: skip


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table; shares in percent."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in found:
        cells = [row["kind"], f"`{row['method']}`"]
        cells += ["-" if row[n] is None else f"{100 * row[n]:.0f}" for n in COLUMNS[2:5]]
        cells.append(f"{row['seconds']:.1f}")
        cells.append("-" if row["memory, MB"] is None else f"{row['memory, MB']:.0f}")
        lines.append("| " + " | ".join([*cells, str(row["rank"])]) + " |")
    return "\n".join(lines) + "\n"


def lora_path(folder: Path, task: str) -> Path:
    """Return the folder of a task's LoRA adapter: `TASK/adapter` if it is there, else `TASK`."""
    inner = folder / task / "adapter"
    return inner if inner.is_dir() else folder / task


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of all kinds in the current workspace."""
    from lori_core.config import Bound
    from lori_core.data.pulled import read_examples
    from lori_core.evaluation.search.candidates import Measures
    from lori_core.methods.finetuned_model import open_model
    from lori_core.pipeline import params_file
    from lori_core.pipeline.base import open_base

    params = params_file.load()
    session = open_base(params, training=False)
    examples = {task: read_examples(task, "validation") for task in params.tasks}
    rules = {} if args.no_safety else {"refusal": Bound(at_least=0.0)}
    paths = {k: {t: Path("artifacts") / t / name for t in examples} for k, name in KINDS.items()}
    if args.lora is not None:
        paths["LoRA"] = {task: lora_path(args.lora, task) for task in examples}
    for kind, folders in paths.items():
        if kind not in args.kinds:
            continue
        adapters = {task: open_model(folder) for task, folder in folders.items()}
        measures = Measures(session, adapters, examples, args.examples, {}, rules, None)
        names = args.methods or methods(len(adapters))
        yield from rows(kind, measures, adapters, names, args.weight, args.density)


def main() -> None:
    """Measure, print each row, and write `merge_methods.json` and `merge_methods.md`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge_methods")
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--lora", type=Path, help="a folder with a LoRA adapter for each task")
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--density", type=float, default=0.7)
    parser.add_argument("--examples", type=int, default=12)
    parser.add_argument("--methods", nargs="+", help="default: all that merge so many adapters")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, "LoRA"], choices=[*KINDS, "LoRA"])
    parser.add_argument("--no-safety", action="store_true", help="generate no answers to requests")
    parser.add_argument("--out", type=Path, default=Path(".lori"))
    args = parser.parse_args()
    out = args.out.absolute()
    args.lora = None if args.lora is None else args.lora.absolute()
    os.chdir(args.workspace)
    found = []
    for row in measure(args):
        found.append(row)
        print(table([row]).splitlines()[-1], flush=True)
        out.mkdir(parents=True, exist_ok=True)  # written after each row, so a stop loses nothing
        write_json(out / "merge_methods.json", {"rows": found})
        write_text(out / "merge_methods.md", table(found))
    print(out / "merge_methods.md")


if __name__ == "__main__":
    main()
