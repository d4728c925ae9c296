"""The forecasts of the excess loss of two adapters against the measured one, in a finished run.

For each kind of adapter, weight w and ordered pair of tasks t, u, with the adapters merged exactly:

* measured: L_t(W0 + w·ΔW_t + w·ΔW_u) − L_t(W0 + w·ΔW_t), on validation examples of t;
* by gradient: w·⟨∇L_t(W0 + w·ΔW_t), ΔW_u⟩ on the same examples;
* by files: the share of ‖ΔW_u‖² in the directions of ΔW_t, the mean over modules.

The rank correlations are Spearman's over the pairs of one kind and weight, with the 95 % percentile
interval of a bootstrap over the pairs. Pairs with a task in common are not independent, so the
intervals are rather too short.

    python -m benchmarks.excess_forecast WORKSPACE [--examples N] [--weights 0.5 ...]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.adapters.adapter import Adapter
from lori_core.core.files.atomic import write_json

#: By kind of adapter, the folder of a task's adapter.
KINDS = {"LoRI-S": "adapter", "LoRI-D": "calibrated"}
#: Resamples of the bootstrap.
RESAMPLES = 2000


def adapters_of(kind: str, tasks: Sequence[str]) -> dict[str, Adapter]:
    """Return the adapters of one kind in this workspace, by task."""
    from lori_core.adapters import adapter_file

    return {task: adapter_file.load(Path("artifacts") / task / KINDS[kind]) for task in tasks}


def pairs(
    model: Any,
    adapters: Mapping[str, Adapter],
    rows: Mapping[str, Sequence[Any]],
    weights: Sequence[float],
    pad_token_id: int,
) -> Iterator[dict[str, Any]]:
    """Yield the forecasts and the measured excess (nats per example) of each weight and pair."""
    from lori_core.evaluation.preflight.excess_forecast import Probe
    from lori_core.merging.advice import overlap
    from lori_core.merging.learned import branches as parallel

    shares = {
        (t, u): fmean(overlap(adapters[t], adapters[u], name) for name in adapters[t].modules)
        for t, u in permutations(adapters, 2)
    }
    none = dict.fromkeys(adapters, 0.0)
    with parallel.applied(model, adapters, None, "task", none) as branches:
        probe = Probe(model, branches, pad_token_id)
        for weight in weights:
            for t in adapters:
                losses, slopes = probe.slopes(t, rows[t], {t: weight})
                for u, slope in zip(adapters, slopes.T, strict=True):
                    if u == t:
                        continue
                    both = probe.losses(t, rows[t], {t: weight, u: weight})
                    yield {
                        "weight": weight, "task": t, "other": u,
                        "measured": fmean(both) - fmean(losses),
                        "by_gradient": weight * float(slope.mean()),
                        "by_files": shares[t, u],
                    }  # fmt: skip


def correlation(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return Spearman's rank correlation with the 95 % interval of a bootstrap over the pairs."""
    import numpy as np
    from scipy.stats import spearmanr

    x, y = np.asarray(one), np.asarray(other)
    random = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        places = random.integers(0, len(x), len(x))
        if len(set(x[places])) > 1 and len(set(y[places])) > 1:
            found.append(float(spearmanr(x[places], y[places]).statistic))
    low, high = np.percentile(found, [2.5, 97.5]) if found else (float("nan"), float("nan"))
    rho = float(spearmanr(x, y).statistic)
    return {"rho": rho, "low": float(low), "high": float(high), "n": len(x)}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the correlations of both forecasts, and how much of the excess was forecast."""
    measured = [row["measured"] for row in rows]
    return {
        "by_gradient": correlation([row["by_gradient"] for row in rows], measured),
        "by_files": correlation([row["by_files"] for row in rows], measured),
        "mean_measured": fmean(measured),
        "mean_by_gradient": fmean(row["by_gradient"] for row in rows),
    }


def compare(
    count: int, weights: Sequence[float], kinds: Sequence[str], save: Callable[[Any], None]
) -> dict[str, Any]:
    """Compare forecasts with measurements in the current workspace.

    Args:
        count: the examples of each task.
        weights: the weights of the adapters.
        kinds: the kinds of adapters.
        save: called with the result so far after each kind, so that a stop loses one at most.
    """
    from lori_core.data.prompts import encode_all
    from lori_core.data.pulled import read_examples
    from lori_core.evaluation.held_out import training_length
    from lori_core.pipeline import params_file
    from lori_core.pipeline.base import open_base

    params = params_file.load()
    session = open_base(params, training=False)
    rows = {}
    for task in params.tasks:
        some = [example for example in read_examples(task, "validation") if example.target][:count]
        rows[task] = encode_all(
            some, params.prompt, session.tokenizer, training_length(params, task)
        )
    pad = session.tokenizer.pad_token_id or 0
    result: dict[str, Any] = {"examples": count, "pairs": {}, "summary": {}}
    for kind in kinds:
        found = []
        for row in pairs(session.model, adapters_of(kind, list(rows)), rows, weights, pad):
            found.append(row)
            print(f"{kind} {row}", flush=True)
        result["pairs"][kind] = found
        for weight in weights:
            of_weight = summary([row for row in found if row["weight"] == weight])
            result["summary"][f"{kind}, {weight:g}"] = of_weight
            print(f"{kind}, weight {weight:g}: {of_weight}", flush=True)
        save(result)
    return result


def main() -> None:
    """Compare, print, and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.excess_forecast")
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path(".lori/excess_forecast.json"))
    args = parser.parse_args()
    out = args.out.absolute()
    os.chdir(args.workspace)
    out.parent.mkdir(parents=True, exist_ok=True)
    compare(args.examples, args.weights, args.kinds, lambda result: write_json(out, result))
    print(out)


if __name__ == "__main__":
    main()
