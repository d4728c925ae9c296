"""Time and memory of the merge methods in shared subspaces: 4 adapters of Llama-3-8B at rank 32.

Measured on the seven modules of one layer, each module's factors random and made when it is merged;
a model has 32 such layers. The peer is the dense definition of one module: the singular value
decomposition of the four updates side by side that KnOTS is defined by.

    python -m benchmarks.merging [threads] [method ...]

How the cost grows with the number of adapters, on one module of 1024 x 1024 at rank 8:

    python -m benchmarks.merging growth [method ...]
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import torch

from benchmarks.shapes import LAYERS, llama3_8b
from lori_core.merging.catalogue import MERGE_METHODS
from lori_core.merging.merge_methods import Factors, Options

METHODS = ("knots_linear", "knots_ties", "knots_dare_ties", "tsv", "iso_c", "core_space_linear",
           "core_space_ties", "core_space_dare_ties")  # fmt: skip
ADAPTERS, RANK = 4, 32
#: Seconds for the whole model on two cores, and GB.
GOAL, MEMORY = 60, 2
#: Of the measurement of growth: the module's size, the adapters' rank, and how many there are.
SIDE, SMALL_RANK, COUNTS = 1024, 8, (5, 10, 20, 50)


def factors(size: tuple[int, int], count: int = ADAPTERS, rank: int = RANK) -> list[Factors]:
    """Return random adapters of one module."""
    d_in, d_out = size
    generator = torch.Generator().manual_seed(1)
    return [
        Factors(
            torch.randn(rank, d_in, generator=generator) / d_in**0.5,
            torch.randn(d_out, rank, generator=generator) / 100,
            weight=0.3,
            scaling=2.0,
            index=index,
        )
        for index in range(count)
    ]


def layer_seconds(method: str, options: Options) -> float:
    """Return the processor seconds of one layer's seven merges, without making the factors."""
    seconds = 0.0
    for name, size in llama3_8b(1).items():
        parents = factors(size)
        start = time.process_time()
        MERGE_METHODS[method].combine(parents, options, name)
        seconds += time.process_time() - start
    return seconds


def rows(methods: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Yield each method with the seconds of a whole model and the peak RSS so far, GB."""
    options = Options(density=0.7)
    for method in methods:
        layer_seconds(method, options)  # the first merge loads what it needs
        seconds = sorted(layer_seconds(method, options) for _ in range(3))[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        yield method, seconds * LAYERS, peak


def dense_seconds(size: tuple[int, int]) -> float:
    """Return the processor seconds of the dense decomposition of one module, [d_out, 4 d_in]."""
    updates = torch.cat([p.B @ p.A * p.factor for p in factors(size)], dim=1)
    start = time.process_time()
    torch.linalg.svd(updates, full_matrices=False)
    return time.process_time() - start


def growth(
    method: str, side: int = SIDE, rank: int = SMALL_RANK, counts: Sequence[int] = COUNTS
) -> dict[int, float]:
    """Return the processor seconds of one merge by the number of adapters; the best of three."""
    options = Options(density=0.7 if "density" in MERGE_METHODS[method].uses else None)
    seconds = {}
    for count in counts:
        parents = factors((side, side), count, rank)
        each = []
        for _ in range(3):
            start = time.process_time()
            MERGE_METHODS[method].combine(parents, options, "module")
            each.append(time.process_time() - start)
        seconds[count] = min(each)
    return seconds


def steepness(seconds: Mapping[int, float]) -> float:
    """Return by how much the last step's cost exceeds a linear one's: 1 for linear growth.

    The step is that from the second to last to the last number of adapters.
    """
    before, last = list(seconds)[-2:]
    return (seconds[last] / seconds[before]) / (last / before)


def print_growth(methods: Sequence[str]) -> None:
    """Print a table of `growth`."""
    torch.set_num_threads(1)
    several = [name for name, m in MERGE_METHODS.items() if not m.starts and name != "safemerge"]
    print(f"{SIDE} x {SIDE}, rank {SMALL_RANK}; processor seconds by the number of adapters")
    print(f"{'':24}" + "".join(f"{count:>9}" for count in COUNTS) + f"{'x linear':>10}")
    for method in methods or several:
        seconds = growth(method)
        cells = "".join(f"{value:9.3f}" for value in seconds.values())
        print(f"{method:24}{cells}{steepness(seconds):10.2f}", flush=True)


def main(words: Sequence[str]) -> None:
    """Print a table."""
    if words[:1] == ["growth"]:
        print_growth(words[1:])
        return
    threads = int(words[0]) if words else 1
    torch.set_num_threads(threads)
    print(f"{ADAPTERS} adapters, rank {RANK}, {LAYERS} layers; processor seconds, {threads} thread")
    for method, seconds, peak in rows(words[1:] or METHODS):
        print(f"{method:22} {seconds:7.1f} s (goal <= {GOAL})  {peak:5.2f} GB (goal <= {MEMORY})")
    small = llama3_8b(1)["model.layers.0.self_attn.k_proj"]
    print(f"dense definition of one k_proj alone {dense_seconds(small):7.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
