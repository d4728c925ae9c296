"""System metrics while a stage runs, written as rows under MLflow's names for them."""

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
    """Append system metrics every `interval` seconds once the stage has written a row itself."""
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

    psutil.cpu_percent()  # the first value is meaningless: it measures since the previous call
    step = 0
    while not done.wait(interval):
        if rows.exists():  # a stage that has nothing to do writes no rows
            rows_files.append(rows, "metrics", values=sample(), step=step)
            step += 1


def sample() -> dict[str, float]:
    """Return the current use of CPU, memory, disk and each GPU."""
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    metrics = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/disk_usage_percentage": disk.percent,
    }
    return metrics | _gpus()


def _gpus() -> dict[str, float]:
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> dict[str, float]:
    """Parse `nvidia-smi`'s lines such as `0, 87, 20480, 301.5`; leave out missing values."""
    names = ("utilization_percentage", "memory_usage_megabytes", "power_usage_watts")
    metrics = {}
    for line in text.strip().splitlines():
        index, *values = (part.strip() for part in line.split(","))
        for name, value in zip(names, values, strict=False):
            try:
                metrics[f"system/gpu_{index}_{name}"] = float(value)
            except ValueError:
                continue
    return metrics
