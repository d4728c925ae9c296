"""Measure one implementation on one kind of rows: `python -m benchmarks.gpu.part`, or in process.

As a program it imports everything, creates the file that its argument names, and waits for its
order, a JSON line on standard input (`benchmarks.gpu.processes`). Results are JSON lines in the
order's file, written as they are measured: a process that dies later loses none. Errors are printed
to standard error in full.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import peers, work
from benchmarks.gpu.clock import WARM, Clock, Profiled, synchronize
from benchmarks.training_peers import Work
from lori_core.data.prompts import Encoded
from lori_core.models import peft_names
from lori_core.training.memory import lacks_memory, memory_gb


@dataclass(frozen=True)
class Order:
    """What one process measures.

    Attributes:
        peer: one of `peers.PEERS`.
        kind: one of `work.KINDS`.
        shape: one of `work.SHAPES`.
        timed: the timed steps of each run.
        at_once: rows of the first run's passes; more are tried if this fits.
        profiled: what is profiled after the timed steps.
        results: the file for the results.
    """

    peer: str
    kind: str
    shape: str
    timed: int
    at_once: int
    profiled: Profiled
    results: str


def measure(order: Order) -> None:
    """Measure with more and more rows at once, while it is faster and fits into memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = Path(order.results)
    peak = matrix_peak(device)
    started = time.perf_counter()
    base = work.base(order.shape, device)
    A, mask = work.adapter(base)
    synchronize()
    built = time.perf_counter() - started
    batch = work.rows_of(order.kind, order.shape).batch
    fastest = 0.0
    for number, at_once in enumerate(_sizes(order, batch)):
        row: dict[str, Any] = {
            "peer": order.peer, "kind": order.kind, "shape": order.shape, "at_once": at_once,
            "number": number, "matrix_peak": peak, "build_seconds": built, **_card(),
        }  # fmt: skip
        try:
            if base.device.type == "meta":  # the last run loaded a copy of its own and freed this
                base = work.base(order.shape, device)
            given = work.of(base, A, mask, _batches(order, number), at_once)
            row |= _run(order, given)
        except Exception as error:
            fits = not lacks_memory(error)
            row |= {"error": f"{type(error).__name__}: {error}", "fits": fits}
            if fits:
                traceback.print_exc()
            _write(results, row)
            # What a failed run leaves on the device would distort the next one.
            return
        _write(results, row)
        if row["tokens_per_second"] < fastest:
            return
        fastest = row["tokens_per_second"]


def _card() -> dict[str, Any]:
    """Return the name and the memory of the device."""
    if not torch.cuda.is_available():
        return {"card": "CPU", "card_gb": 0.0}
    card = torch.cuda.get_device_properties(0)
    return {"card": card.name, "card_gb": card.total_memory / 1e9}


def _sizes(order: Order, batch: int) -> list[int]:
    """Return the rows at once to try, ascending."""
    if order.peer in peers.OURS:  # more rows at once are never slower; the first compares memory
        return sorted({order.at_once, batch})
    sizes = [order.at_once]
    while sizes[-1] * 2 <= batch:
        sizes.append(sizes[-1] * 2)
    return sizes


def _write(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(row) + "\n")  # the line before may be incomplete


def _batches(order: Order, number: int) -> list[list[Encoded]]:
    """Return batches that this process has not seen."""
    steps = Clock(order.timed, order.profiled).steps
    return work.batches(order.kind, order.shape, number, steps)


def _run(order: Order, given: Work) -> dict[str, Any]:
    """Train some steps; return what was measured."""
    clock, base, batches = Clock(order.timed, order.profiled), given.base, given.batches
    sizes, device = work.Sizes.of(base), base.device.type
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    hook = base.get_input_embeddings().register_forward_hook(clock.passed)
    with tempfile.TemporaryDirectory(prefix="lori-gpu-") as folder:
        model = peers.PEERS[order.peer](given, clock, Path(folder))
    hook.remove()
    timed = [row for batch in batches[WARM : WARM + order.timed] for row in batch]
    tokens, needed = sum(map(len, timed)), sizes.needed(timed)
    result: dict[str, Any] = {
        "rows_a_pass": len(timed) / clock.passes if clock.passes else None,
        "tokens": tokens,
        "seconds": clock.seconds,
        "tokens_per_second": tokens / clock.seconds,
        "flops": needed / clock.seconds,
        "memory_gb": memory_gb(),
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9 if torch.cuda.is_available() else 0.0,
        "losses": clock.losses,
        "gradient_norms": [n if math.isfinite(n) else None for n in clock.norms],
        "untrained": _untrained(model),
    }
    if isinstance(clock.profile, str):
        result["profile_error"] = clock.profile
    elif clock.profile is not None:
        result["profile"] = asdict(clock.profile)
        if device == "cuda":
            # The profiler slows the host, so the step's own time is taken from the timed steps.
            own = clock.seconds * sum(map(len, batches[-1])) / tokens
            result["busy"] = clock.profile.busy / own
    if base.device.type != "meta":  # otherwise the implementation loaded its own model
        model.unload()
        if hasattr(base, "peft_config"):
            del base.peft_config
    return result


def _untrained(model: Any) -> list[str]:
    """Return the adapted layers whose B is still zero or is not finite: they got no gradient."""
    layers = peft_names.lora_layers(model)
    wrong = [] if layers else ["no layer has an adapter"]
    for name, layer in layers.items():
        B = layer.lora_B[peft_names.ADAPTER].weight
        if not bool(B.isfinite().all()) or not bool(B.any()):
            wrong.append(name)
    return wrong


def matrix_peak(device: str) -> float:
    """Return the speed of a large matrix product in the computing dtype, FLOP/s: the best of 12."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (256, torch.float32)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind()
    best = 0.0
    for _ in range(12):
        synchronize()
        start = time.perf_counter()
        a @ b
        synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    """Wait for the order, and measure."""
    Path(sys.argv[1]).touch()
    line = sys.stdin.readline()
    if line.strip():
        measure(Order(**json.loads(line)))


if __name__ == "__main__":
    main()
