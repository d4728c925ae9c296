"""Where the time of a pass goes: the kernels of a profile, by kind."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch

#: Parts of kernels' names (lower case), by kind; the first kind that matches counts.
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attention", ("flash", "fmha", "sdpa", "attention", "mha_", "cudnn_generated")),
    ("matrix products", ("gemm", "nvjet", "cutlass", "cublas", "xmma", "wgmma", "splitk",
                         "::mm", "::addmm", "::bmm", "::baddbmm", "gemv", "mkl", "dot_kernel",
                         )),
    ("optimizer and clipping", ("multi_tensor", "adam", "foreach", "lpnorm")),
    ("loss", ("cross_entropy", "nll_loss", "softmax")),
    ("norms", ("rms_norm", "rmsnorm", "layer_norm", "layernorm")),
    ("gated activation", ("swiglu", "silu", "geglu")),
    ("rotary positions", ("rope", "rotary")),
    ("gathers and scatters", ("index", "gather", "scatter", "embedding", "segment")),
    ("copies and fills", ("memcpy", "memset", "copy", "catarray", "::cat", "fill", "zero_",
                          "clone", "contiguous")),
    ("sums", ("reduce", "::sum", "::mean", "norm")),
    ("other element-wise", ("elementwise", "triton", "::mul", "::add", "::div", "::sub", "::neg",
                            "::pow", "vectorized")),
)  # fmt: skip


def kind(name: str) -> str:
    """Return the kind of a kernel by its name."""
    low = name.lower()
    return next((kind for kind, parts in KINDS if any(part in low for part in parts)), "other")


@dataclass
class Profile:
    """The work of the device in one step.

    Attributes:
        wall: seconds of the profiled step, slower than without the profiler.
        busy: seconds in which the device computed.
        launches: the number of kernels, copies and fills.
        kinds: seconds by kind of kernel.
        names: the longest kernels: name, seconds, launches.
        host: the operators with the longest time on the host, if it was recorded.
    """

    wall: float
    busy: float
    launches: int
    kinds: dict[str, float]
    names: list[tuple[str, float, int]]
    host: list[tuple[str, float, int]] = field(default_factory=list)


def read(profiler: Any, wall: float, most: int = 25) -> Profile:
    """Return the summary of a stopped profiler; without a GPU, operators count as kernels."""
    device: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    host: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    spans = []
    for event in profiler.events():
        if event.device_type.name == "CUDA":
            # Ranges that annotate the device's timeline contain kernels and are none.
            if getattr(event, "is_user_annotation", False) or event.name.startswith("ProfilerStep"):
                continue
            seconds = event.time_range.elapsed_us() / 1e6
            spans.append((event.time_range.start, event.time_range.end))
            _count(device, event.name, seconds)
        else:
            _count(host, event.name, event.self_cpu_time_total / 1e6)
    if not torch.cuda.is_available():
        device, host = host, {}
    elif not spans:
        raise RuntimeError("the profiler saw no kernel on the device (is CUPTI permitted?)")
    kinds: dict[str, float] = defaultdict(float)
    for name, (seconds, _) in device.items():
        kinds[kind(name)] += seconds
    busy = _covered(spans) / 1e6 if spans else sum(kinds.values())
    launches = int(sum(count for _, count in device.values()))
    by_time = dict(sorted(kinds.items(), key=lambda item: -item[1]))
    return Profile(wall, busy, launches, by_time, _longest(device, most), _longest(host, most))


def _count(table: dict[str, list[float]], name: str, seconds: float) -> None:
    table[name][0] += seconds
    table[name][1] += 1


def _covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of spans: kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _longest(table: Any, most: int) -> list[tuple[str, float, int]]:
    rows = [(name[:90], seconds, int(count)) for name, (seconds, count) in table.items()]
    return sorted(rows, key=lambda row: -row[1])[:most]


def lines(profile: Profile) -> list[str]:
    """Return a profile as lines of text."""
    total = sum(profile.kinds.values()) or 1.0
    text = [
        f"{1e3 * profile.busy:.0f} ms on the device in {profile.launches} launches; the step took "
        f"{1e3 * profile.wall:.0f} ms under the profiler"
    ]
    for name, seconds in profile.kinds.items():
        text.append(f"  {100 * seconds / total:5.1f} %  {1e3 * seconds:8.1f} ms  {name}")
    for title, table in (("kernels", profile.names), ("operators on the host", profile.host)):
        if table:
            text.append(f"  the longest {title}:")
        text += [f"    {1e3 * s:8.1f} ms  {count:6d} x  {name}" for name, s, count in table]
    return text
