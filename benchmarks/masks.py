"""Masks at the size of Llama-3-8B, r = 32: selecting the top tenth, and entropy coding of the mask.

Selection: `mask.top` over the B of all 224 modules (N = 44,040,192 float32 values) against
`torch.topk` and a comparison over the same values as one vector, each in a process of its own, with
one thread and with torch's default. Besides the time it measures the peak memory beyond the values,
as a share of their bytes (1 is a copy of them). The limit is memory bandwidth: the values must be
read once, as for finding their maximum; `mask.top` reads them three times, for the histograms of
the upper and of the lower digits, and for setting the mask.

Coding, one thread: bits per entry of random masks against their entropy, the minimum on average,
and MB/s of packed bits. The limit is again memory bandwidth: a copy of the bits.

    python -m benchmarks.masks
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.adapters import show, timed
from benchmarks.shapes import llama3_8b
from lori_core.adapters.masks import mask_codec
from lori_core.adapters.masks.mask import Shapes, kept_count, top

SPARSITY = Decimal("0.9")
SHAPES: Shapes = {name: (d_out, 32) for name, (_, d_out) in llama3_8b().items()}
SIZES = [rows * columns for rows, columns in SHAPES.values()]
TOTAL = sum(SIZES)
CODED = ("0", "0.5", "0.9", "0.99", "0.999")
GOALS = {"0.9": "<= 0.50"}


def rows() -> list[dict[str, Any]]:
    """Measure everything; return a row for each measurement."""
    return [*_choosing(1), *_choosing(None), *(row for s in CODED for row in _coding(s))]


def _choosing(threads: int | None) -> list[dict[str, Any]]:
    results = {way: _in_a_process(way, threads) for way in WAYS}
    with_threads = (
        f"{next(iter(results.values()))['threads']} threads" if threads != 1 else "1 thread"
    )
    seconds = {way: row["seconds"] for way, row in results.items()}
    return [
        *({"what": f"{w}, {with_threads}", "value": s, "unit": "s"} for w, s in seconds.items()),
        {
            "what": "torch.topk / mask.top",
            "value": seconds["torch.topk"] / seconds["mask.top"],
            "unit": "x",
            "goal": ">= 3",
        },
        {
            "what": "torch.topk: memory / values",
            "value": results["torch.topk"]["memory"],
            "unit": "x",
        },
        {
            "what": "mask.top: memory / values",
            "value": results["mask.top"]["memory"],
            "unit": "x",
            "goal": "<= 0.5",
        },
    ]


def _coding(sparsity: str) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    bits = np.packbits(random.random(TOTAL, dtype=np.float32) >= float(sparsity))
    coded = mask_codec.encode(bits)
    if mask_codec.decode(coded, TOTAL).tobytes() != bits.tobytes():
        raise RuntimeError(f"the codec lost a mask of sparsity {sparsity}")
    count = int(np.bitwise_count(bits).sum(dtype=np.int64))
    entropy = 8 * mask_codec.entropy_bytes(TOTAL, count) / TOTAL
    speeds = {
        "encode": timed(lambda: mask_codec.encode(bits)),
        "decode": timed(lambda: mask_codec.decode(coded, TOTAL)),
        "copy": timed(bits.copy),
    }
    return [
        {
            "what": f"mask at {sparsity}: bits an entry",
            "value": 8 * coded.size / TOTAL,
            "unit": "bits",
            "goal": GOALS.get(sparsity, ""),
        },
        {"what": f"mask at {sparsity}: entropy", "value": entropy, "unit": "bits"},
        *(
            {
                "what": f"mask at {sparsity}: {what}",
                "value": bits.nbytes / 1e6 / seconds,
                "unit": "MB/s",
                "goal": ">= 300" if what == "decode" else "",
            }
            for what, seconds in speeds.items()
        ),
    ]


def _top(values: torch.Tensor) -> object:
    parts = zip(SHAPES.items(), torch.split(values, SIZES), strict=True)
    return top({name: part.view(shape) for (name, shape), part in parts}, SPARSITY, "model")


def _topk(values: torch.Tensor) -> object:
    return values >= torch.topk(values, kept_count(TOTAL, SPARSITY)).values[-1]


WAYS: dict[str, Callable[[torch.Tensor], object]] = {
    "mask.top": _top,
    "torch.topk": _topk,
    "values read once": torch.max,
}


def _in_a_process(way: str, threads: int | None) -> dict[str, Any]:
    """Measure one way in a process of its own, because peak memory is measured per process."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.masks", way],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _measure(way: str) -> dict[str, Any]:
    values = torch.rand(TOTAL, generator=torch.Generator().manual_seed(0))
    before = psutil.Process().memory_info().rss
    WAYS[way](values)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "threads": torch.get_num_threads(),
        "seconds": timed(lambda: WAYS[way](values)),
        "memory": max(most - before, 0) / values.nbytes,
    }


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(_measure(sys.argv[1])))
    else:
        show(rows())
