"""Locks between processes that share a workspace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows import private


@contextmanager
def pipeline_lock(
    workspace: Path, say: Callable[[str], None] = lambda line: None
) -> Iterator[None]:
    """Hold the workspace for one pipeline; a second one waits, and says for whom.

    The process that holds it may enter again, from any thread.
    """
    folder = private.folder(workspace / ".lori")
    # One object per path and process, so that the command and the flow in it do not block each
    # other.
    lock = FileLock(folder / "pipeline.lock", is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(
            f"another pipeline runs in this workspace (process {holder(workspace)}); waiting for it"
        )
        lock.acquire()
    try:
        (folder / "pipeline.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def pipeline_runs(workspace: Path) -> bool:
    """Return whether another process runs a pipeline in this workspace right now."""
    path = workspace / ".lori" / "pipeline.lock"
    if not path.exists():
        return False
    lock = FileLock(path, is_singleton=True, thread_local=False)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def shipping_lock(workspace: Path) -> FileLock:
    """Return the lock that whoever ships rows holds, so that no row is shipped twice."""
    folder = private.folder(workspace / ".lori")
    return FileLock(folder / "shipping.lock")


def holder(workspace: Path) -> str:
    """Return the process id of the pipeline that holds a workspace, or held it last."""
    try:
        path = workspace / ".lori" / "pipeline.pid"
        return path.read_text(encoding="utf-8").strip() or "unknown"
    except FileNotFoundError:
        return "unknown"
