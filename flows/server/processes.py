"""Find and end the processes that `make up` started, by their recorded ids and start times."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

import psutil

GRACE_SECONDS = 10.0


def process_of(entry: Mapping[str, Any] | None) -> Any:
    """Return the running process of an entry; None if it ended or its id belongs to another."""
    if entry is None:
        return None
    try:
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["created"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def family(state: Mapping[str, Any]) -> list[Any]:
    """Return the started processes and all their descendants, also those that were orphaned."""
    entries = [*state.get("processes", {}).values(), *state.get("former", [])]
    sessions = {entry["pid"] for entry in entries}
    started = [process for process in map(process_of, entries) if process is not None]
    members = {process.pid: process for process in started}
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.create_time() >= min(
                entry["created"] for entry in entries
            ):
                members[process.pid] = process
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    for process in list(members.values()):
        try:
            members.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.NoSuchProcess:
            continue
    return list(members.values())


def end(processes: list[Any]) -> int:
    """Send SIGTERM, and ten seconds later SIGKILL; return the number of processes."""
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
