"""Limits of memory and number for all processes of a program together (cgroup v2).

Resource limits (`setrlimit`) apply to each process alone. A control group limits all processes
together, including their files in `/tmp`. It needs control groups that are delegated to this user:
in a systemd session, or a unit with `Delegate=yes`. Without them, only the resource limits apply.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = frozenset({"memory", "pids"})
#: A shell script that enters the group $1 and executes the remaining arguments.
ENTER = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
#: How long the last processes of a group may take to end (seconds).
END_SECONDS = 2.0


@dataclass(frozen=True)
class ControlGroup:
    """The control group of one program.

    Attributes:
        folder: the group's folder in cgroup v2.
    """

    folder: Path

    def entered(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one in the group."""
        return ["sh", "-c", ENTER, "enter", str(self.folder), *command]

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process because the group reached its memory limit."""
        try:
            events = (self.folder / "memory.events").read_text(encoding="ascii").split()
        except OSError:
            return False
        counts = dict(zip(events[::2], events[1::2], strict=True))
        return counts.get("oom_kill", "0") != "0"


@functools.cache
def parent() -> Path | None:
    """Return the folder in which this process may create groups with limits; None without any.

    It is the parent of this process's own group, otherwise that group itself, which can limit
    groups below it only if it has no processes.
    """
    own = _own()
    if own is None:
        return None
    for folder in (own.parent, own):
        if _can_limit(folder):
            return folder
    return None


def _own(process: Path = Path("/proc/self")) -> Path | None:
    """Return the folder of this process's group in cgroup v2, at any mount point."""
    try:
        groups = (process / "cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (process / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in groups if line.startswith("0::/")), None)
    mount = next((line.split() for line in mounts if " - cgroup2 " in line), None)
    if path is None or mount is None:
        return None
    root, mount_point = mount[3], mount[4]  # the mounted part of the hierarchy
    if not f"{path}/".startswith(f"{root.rstrip('/')}/"):
        return None
    return Path(mount_point) / path[len(root.rstrip("/")) :].lstrip("/")


def _can_limit(folder: Path) -> bool:
    """Return whether a group with limits can be created in a folder and entered, by trying it."""
    try:
        controllers = (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
        # Moving a process needs write access to the common ancestor of both groups.
        if not set(controllers) >= CONTROLLERS or not os.access(folder / "cgroup.procs", os.W_OK):
            return False
        with _created(folder, memory_bytes=1 << 30, processes=16) as group:
            subprocess.run(group.entered(["true"]), check=True, capture_output=True)
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def limited(memory_bytes: int, processes: int) -> Iterator[ControlGroup | None]:
    """Create a group for one program and yield it; afterwards kill its processes and remove it.

    Args:
        memory_bytes: the memory limit of all processes together.
        processes: the limit of processes and threads.

    Yields:
        The group; None if this user cannot create one.
    """
    folder = parent()
    if folder is None:
        yield None
        return
    with _created(folder, memory_bytes, processes) as group:
        yield group


@contextmanager
def _created(folder: Path, memory_bytes: int, processes: int) -> Iterator[ControlGroup]:
    group = ControlGroup(folder / f"lori-{os.getpid()}-{secrets.token_hex(6)}")
    group.folder.mkdir()
    try:
        (group.folder / "memory.max").write_text(str(memory_bytes), encoding="ascii")
        (group.folder / "pids.max").write_text(str(processes), encoding="ascii")
        with contextlib.suppress(OSError):  # a kernel without swap has no such limit
            (group.folder / "memory.swap.max").write_text("0", encoding="ascii")
        yield group
    finally:
        _end(group.folder)


def _end(folder: Path) -> None:
    """Kill all processes of a group, and remove the group when they have ended."""
    with contextlib.suppress(OSError):  # kernels before 5.14 have no such file
        (folder / "cgroup.kill").write_text("1", encoding="ascii")
    limit = time.monotonic() + END_SECONDS
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > limit:
                return
            time.sleep(0.001)
        else:
            return
