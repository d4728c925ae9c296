"""File locks between processes that share a workspace."""

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
    """Hold the workspace's pipeline lock; wait if another process holds it.

    The process that holds the lock may take it again, from any thread.

    Args:
        workspace: the workspace to lock.
        say: called with a line before waiting.
    """
    folder = private.folder(workspace / ".lori")
    # One lock object per path and process, so that a command and the flow in it do not block
    # each other.
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
    """Return whether another process runs a pipeline in this workspace now."""
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
    """Return the lock for sending rows to MLflow, so that no row is sent twice."""
    folder = private.folder(workspace / ".lori")
    return FileLock(folder / "shipping.lock")


def holder(workspace: Path) -> str:
    """Return the process id of the pipeline that holds the workspace's lock, or held it last."""
    try:
        path = workspace / ".lori" / "pipeline.pid"
        return path.read_text(encoding="utf-8").strip() or "unknown"
    except FileNotFoundError:
        return "unknown"
