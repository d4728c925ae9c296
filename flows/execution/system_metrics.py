"""The machine while a stage runs, as rows under MLflow's own names for system metrics."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.tracking import rows as rows_files

INTERVAL_SECONDS = 10.0
_QUERY = "index,utilization.gpu,memory.used,power.draw"


@contextmanager
def sampled(rows: Path, interval: float = INTERVAL_SECONDS) -> Iterator[None]:
    """Add a row of system metrics every few seconds, once the stage itself has written one."""
    done = threading.Event()
    thread = threading.Thread(target=_work, args=(rows, interval, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _work(rows: Path, interval: float, done: threading.Event) -> None:
    import psutil

    psutil.cpu_percent()  # the first says nothing: it counts since the last
    step = 0
    while not done.wait(interval):
        if rows.exists():  # a stage that has nothing to do leaves no rows
            rows_files.append(rows, "metrics", values=sample(), step=step)
            step += 1


def sample() -> dict[str, float]:
    """Return CPU, memory and disk of the machine now, and of each GPU its load."""
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    found = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/disk_usage_percentage": disk.percent,
    }
    return found | _gpus()


def _gpus() -> dict[str, float]:
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(said)


def parse_gpus(said: str) -> dict[str, float]:
    """Read `nvidia-smi`'s lines `0, 87, 20480, 301.5`; what a card does not say is left out."""
    names = ("utilization_percentage", "memory_usage_megabytes", "power_usage_watts")
    found = {}
    for line in said.strip().splitlines():
        index, *values = (part.strip() for part in line.split(","))
        for name, value in zip(names, values, strict=False):
            try:
                found[f"system/gpu_{index}_{name}"] = float(value)
            except ValueError:
                continue
    return found
