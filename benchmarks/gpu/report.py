"""What was measured, as text, as checks and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.peers import CHECKED_STEPS, OURS
from benchmarks.gpu.work import KINDS

Runs = Sequence[dict[str, Any]]
#: Relative differences of losses and gradient norms that are accepted, in bfloat16.
LOSSES_APART, NORMS_APART = 0.01, 0.05
#: The GPU waits for Python if it computes for less than this share of a step.
BUSY = 0.9
#: The goals by kind of rows: share of the matrix peak, and times the fastest other implementation.
GOALS = {"gsm8k": (0.60, 1.8), "long": (0.62, 1.05), "short": (None, 3.0)}
MEMORY_GOAL = 0.6


def groups(runs: Runs) -> list[tuple[str, str]]:
    """Return the pairs of shape and kind of rows, in the order in which they were measured."""
    return list(dict.fromkeys((run["shape"], run["kind"]) for run in runs))


def best(runs: Runs, shape: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return each implementation's fastest run on a kind of rows."""
    fastest: dict[str, dict[str, Any]] = {}
    for run in runs:
        if (run["shape"], run["kind"]) == (shape, kind) and "tokens_per_second" in run:
            other = fastest.get(run["peer"])
            if other is None or run["tokens_per_second"] > other["tokens_per_second"]:
                fastest[run["peer"]] = run
    return fastest


def line(run: dict[str, Any], peak: float) -> str:
    """Return one run as a line of text."""
    start = f"{run['peer']:24} {run['at_once']:3} rows at once "
    if "error" in run:
        return start + ("failed: " + run["error"] if run["fits"] else " do not fit into memory")
    busy = run.get("busy")
    share = "" if busy is None else f"  device {100 * busy:.0f} % busy"
    return (
        f"{start}{run['tokens_per_second']:9.0f} tokens/s {100 * run['flops'] / peak:5.1f} % of "
        f"the peak {run['memory_gb']:6.1f} GB{share}"
    )


def table(runs: Runs) -> Iterator[str]:
    """Yield each implementation's best run by kind of rows, as Markdown."""
    peak = max(run["matrix_peak"] for run in runs)
    for shape, kind in groups(runs):
        chosen = best(runs, shape, kind)
        others = [run["tokens_per_second"] for name, run in chosen.items() if name not in OURS]
        yield ""
        yield f"### {shape}, {KINDS[kind].what}, on {runs[0]['card']}"
        yield ""
        yield (
            f"| best of each | rows at once | tokens/s | x the fastest other | of the matrix peak "
            f"({peak / 1e12:.0f} TFLOP/s) | peak memory | device busy | bound by |"
        )
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        for name, run in chosen.items():
            busy = run.get("busy")
            ratio = run["tokens_per_second"] / max(others) if others else math.nan
            yield (
                f"| {name} | {_rows(run)} | {run['tokens_per_second']:,.0f} | {ratio:.2f} | "
                f"{100 * run['flops'] / peak:.0f} % | {run['memory_gb']:.1f} GB | "
                + ("- | - |" if busy is None else f"{100 * busy:.0f} % | {bound(busy)} |")
            )


def _rows(run: dict[str, Any]) -> str:
    """Return the mean rows of a pass as counted: the engine may have chosen them itself."""
    counted = run.get("rows_a_pass")
    return f"{counted:.0f}" if counted else str(run["at_once"])


def bound(busy: float) -> str:
    """Return what limits a step: the device, or the host that launches its kernels."""
    return "the device" if busy >= BUSY else "the host"


def checks(runs: Runs) -> Iterator[tuple[bool, str]]:
    """Yield whether each check holds, and what was checked.

    Every implementation starts from B = 0 on the same rows, so the first losses agree; with the
    same A, so do the first gradients of B (A's are zero) and the second losses.
    """
    for run in runs:
        if "error" in run:
            continue
        name = f"{run['shape']}, {run['kind']}, {run['peer']}, {run['at_once']} rows at once"
        norms = run["gradient_norms"]
        positive = bool(norms) and all(n is not None and n > 0 for n in norms)
        yield positive, f"{name}: gradient norms are positive"
        yield not run["untrained"], f"{name}: every B has changed and is finite"
    for shape, kind in groups(runs):
        first = [run for run in runs if _is_first(run, shape, kind)]
        own = next((run for run in first if run["peer"] == "LoRI-D"), None)
        for run in first if own else []:
            yield from _agree(run, own or run, f"{shape}, {kind}, {run['peer']} and LoRI-D")


def _is_first(run: dict[str, Any], shape: str, kind: str) -> bool:
    own = (run["shape"], run["kind"]) == (shape, kind) and "error" not in run
    return own and run["number"] == 0


def _agree(run: dict[str, Any], own: dict[str, Any], pair: str) -> Iterator[tuple[bool, str]]:
    if run is own:
        return
    steps = CHECKED_STEPS.get(run["peer"], 2)
    logged = min(len(run["losses"]), len(own["losses"]))
    if logged < steps:
        yield False, f"{pair}: only {logged} losses were logged"
        return
    for step in range(steps):
        apart = abs(run["losses"][step] / own["losses"][step] - 1)
        yield apart <= LOSSES_APART, f"{pair}: losses of step {step + 1} are {apart:.1e} apart"
    if steps > 1:
        norms = [each["gradient_norms"][0] or math.nan for each in (run, own)]
        apart = abs(norms[0] / norms[1] - 1)
        yield apart <= NORMS_APART, f"{pair}: gradient norms of step 1 are {apart:.1e} apart"


def goals(runs: Runs) -> Iterator[tuple[bool, str]]:
    """Yield whether each goal is reached, and the measured value."""
    peak = max(run["matrix_peak"] for run in runs)
    for shape, kind in groups(runs):
        chosen = best(runs, shape, kind)
        others = {name: run for name, run in chosen.items() if name not in OURS}
        share, times = GOALS[kind]
        for name in OURS:
            if name not in chosen:
                continue
            run = chosen[name]
            reached = run["flops"] / peak
            if share:
                yield reached >= share, f"{shape}, {kind}, {name}: {reached:.2f} of peak, {share}"
            if others:
                fastest = max(others, key=lambda other: others[other]["tokens_per_second"])
                ratio = run["tokens_per_second"] / others[fastest]["tokens_per_second"]
                yield ratio >= times, f"{shape}, {kind}, {name}: {ratio:.2f} x {fastest}, {times}"
        if set(OURS) <= set(chosen):
            ratio = chosen["LoRI-S"]["tokens_per_second"] / chosen["LoRI-D"]["tokens_per_second"]
            yield ratio >= 1, f"{shape}, {kind}: LoRI-S is {ratio:.2f} x as fast as LoRI-D, 1"
        yield from _memory(runs, shape, kind)


def _memory(runs: Runs, shape: str, kind: str) -> Iterator[tuple[bool, str]]:
    at = {
        (run["peer"], run["at_once"]): run["memory_gb"]
        for run in runs
        if (run["shape"], run["kind"]) == (shape, kind) and "error" not in run
    }
    for name in OURS:
        for (peer, rows), memory in at.items():
            if peer == "PEFT" and (name, rows) in at:
                ratio = at[name, rows] / memory
                what = (
                    f"{shape}, {kind}, {name}: {ratio:.2f} x PEFT's memory at {rows} rows at once"
                )
                yield ratio <= MEMORY_GOAL, f"{what}, {MEMORY_GOAL}"


def draw(runs: Runs, path: Path) -> None:
    """Draw the tokens per second and the peak memory of each implementation's best run."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    pairs = groups(runs)
    size = (10, 2.6 * len(pairs))
    figure, axes = plt.subplots(len(pairs), 2, figsize=size, squeeze=False, layout="constrained")
    for row, (shape, kind) in zip(axes, pairs, strict=True):
        chosen = best(runs, shape, kind)
        names = list(chosen)[::-1]
        colours = ["#0b6e4f" if name in OURS else "#9aa5b1" for name in names]
        for axis, key, label, form in (
            (row[0], "tokens_per_second", "tokens/s", "%.0f"),
            (row[1], "memory_gb", "peak GB", "%.1f"),
        ):
            bars = axis.barh(names, [chosen[name][key] for name in names], color=colours)
            axis.bar_label(bars, fmt=form, padding=3)
            axis.set_title(f"{shape}, {KINDS[kind].what}: {label}", loc="left", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.15)
    figure.savefig(path, dpi=110)
    plt.close(figure)
