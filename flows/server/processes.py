"""The processes that `make up` started: found again by what was noted of them, and ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

import psutil

GRACE_SECONDS = 10.0


def process_of(entry: Mapping[str, Any] | None) -> Any:
    """Return the process if it is still the one that was started, not another with its number."""
    if entry is None:
        return None
    try:
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["created"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def family(state: Mapping[str, Any]) -> list[Any]:
    """Return what was started and all that came from it, also what lost its parent on the way."""
    entries = [*state.get("processes", {}).values(), *state.get("former", [])]
    sessions = {entry["pid"] for entry in entries}
    started = [process for process in map(process_of, entries) if process is not None]
    found = {process.pid: process for process in started}
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.create_time() >= min(
                entry["created"] for entry in entries
            ):
                found[process.pid] = process
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    for process in list(found.values()):
        try:
            found.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def end(processes: list[Any]) -> int:
    """SIGTERM, and after ten seconds SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        _, left = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
        if not left:
            break
    return len(processes)
