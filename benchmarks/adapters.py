"""Size of an adapter, time to load it, and time and memory to merge four: Llama-3-8B, r = 32.

The limits: a file needs at least its bf16 values and the mask's entropy (11.4 MB); a merge needs at
least the time to read and write its bytes. The peer is the adapters' dense PEFT format in float32,
and `cp` of its files.

    python -m benchmarks.adapters
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.shapes import sparse_adapter
from lori_core.adapters import adapter_file
from lori_core.adapters.masks import mask_codec
from lori_core.adapters.masks.mask import Mask
from lori_core.adapters.peft_format import peft_file

KEYS = ("nlu", "math", "code", "safety")


def timed(function: Callable[[], object], times: int = 3) -> float:
    """Return the median seconds of several runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[times // 2]


def rows(folder: Path) -> list[dict[str, Any]]:
    """Measure in a scratch folder, which needs 3 GB; return a row for each measurement."""
    for seed, key in enumerate(KEYS):
        adapter_file.save(sparse_adapter(key, seed), folder / key)
        peft_file.export_peft(adapter_file.load(folder / key), folder / f"{key}-dense")
    return [*_size(folder), *_load(folder), *_merge(folder)]


def _size(folder: Path) -> list[dict[str, Any]]:
    adapter = adapter_file.load(folder / "math", verify_projection=False)
    assert isinstance(adapter.mask, Mask)  # noqa: S101 - for the type checker
    size = sum(file.stat().st_size for file in (folder / "math").iterdir())
    dense = sum(file.stat().st_size for file in (folder / "math-dense").iterdir())
    limit = 2 * adapter.count + mask_codec.entropy_bytes(adapter.mask.total, adapter.count)
    return [
        {"what": "compact adapter", "value": size / 1e6, "unit": "MB", "goal": "<= 13.1"},
        {"what": "its limit: values, mask's entropy", "value": limit / 1e6, "unit": "MB"},
        {"what": "dense PEFT form", "value": dense / 1e6, "unit": "MB"},
        {"what": "dense / compact", "value": dense / size, "unit": "x"},
    ]


def _load(folder: Path) -> list[dict[str, Any]]:
    adapter = adapter_file.load(folder / "math", verify_projection=False)

    def draw() -> None:
        for name in adapter.modules:
            adapter.A(name)

    def load() -> None:
        loaded = adapter_file.load(folder / "math")
        for name in loaded.modules:
            loaded.A(name)
            loaded.B(name)

    drawing, loading = timed(draw), timed(load)
    return [
        {"what": "drawing A", "value": drawing, "unit": "s"},
        {"what": "load, verify, all A and B", "value": loading, "unit": "s"},
        {"what": "beyond drawing A", "value": loading - drawing, "unit": "s", "goal": "<= 2"},
    ]


def _merge(folder: Path) -> list[dict[str, Any]]:
    dense = [folder / f"{key}-dense" for key in KEYS]

    def copy() -> None:
        shutil.rmtree(folder / "copied", ignore_errors=True)
        (folder / "copied").mkdir()
        subprocess.run(["cp", "-r", *map(str, dense), str(folder / "copied")], check=True)

    command = [sys.executable, "-m", "benchmarks.adapters", "concat", str(folder)]
    copies, merges, memory = [], [], 0.0
    for _ in range(3):  # alternately, so that both see the same load of the machine
        copies.append(timed(copy, 1))
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, peak = map(float, done.stdout.split())
        merges.append(seconds)
        memory = max(memory, peak)
    ratio = sorted(merges)[1] / sorted(copies)[1]
    return [
        {"what": "cp of four dense adapters", "value": sorted(copies)[1], "unit": "s"},
        {"what": "concat of four", "value": sorted(merges)[1], "unit": "s"},
        {"what": "concat / cp", "value": ratio, "unit": "x", "goal": "<= 2"},
        {"what": "its peak RSS", "value": memory / 1e3, "unit": "GB", "goal": "<= 1"},
    ]


def _concat(folder: Path) -> None:
    """Merge, and print seconds and peak RSS in MB; runs in a process of its own."""
    from lori_core.merging.merge import merge

    start = time.perf_counter()
    parents = [adapter_file.load(folder / key, verify_projection=False) for key in KEYS]
    adapter_file.save(merge("concat", parents, [0.3] * 4), folder / "merged")
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def show(found: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    for row in found:
        print(f"{row['what']:42} {row['value']:10.3f} {row['unit']:6} {row.get('goal', '')}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["concat"]:
        _concat(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as name:
            show(rows(Path(name)))
