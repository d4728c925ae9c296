"""`make bench`: run the benchmarks; print tables and write JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    adapters,
    baking,
    evaluation,
    likelihood,
    masks,
    pipeline,
    starting,
    tracking,
    training,
    training_growth,
    training_memory,
    training_pair,
)

#: The benchmarks by name: each takes a scratch folder and returns a row for each measurement.
BENCHMARKS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "masks": lambda _: masks.rows(),
    "adapters": adapters.rows,
    "baking": baking.rows,
    "evaluation": lambda _: evaluation.rows(),
    "likelihood": lambda _: likelihood.rows(),
    "tracking": tracking.rows,
    "training": lambda _: training.rows(),
    "training_growth": lambda _: training_growth.rows(),
    "training_memory": lambda _: training_memory.rows(),
    "training_pair": lambda _: training_pair.rows(),
    "pipeline": pipeline.rows,
    "starting": starting.rows,
}


def main() -> None:
    """Run the named benchmarks, by default all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all unless given")
    parser.add_argument("--out", type=Path, default=Path(".lori/bench.json"))
    args = parser.parse_args()
    unknown = set(args.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"{unknown.pop()!r} is none of {', '.join(BENCHMARKS)}")
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    results: dict[str, Any] = {"machine": machine}
    for name in args.names or BENCHMARKS:
        print(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="lori-bench-") as folder:
            results[name] = BENCHMARKS[name](Path(folder))
        adapters.show(results[name])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\n{args.out}")


main()
