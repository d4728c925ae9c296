"""Limits on all processes of a program together: memory and number, by a control group (cgroup v2).

The limits that a process sets on itself count for each process alone. The kernel counts a group's
together, with what they keep in `/tmp`, where this user was given control groups of their own: in a
session of systemd's, in a unit with `Delegate=yes`. Elsewhere there is none, and nothing changes.
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
#: Enters the group $1 and becomes the command behind it.
ENTER = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
#: How long a group's last processes may take to die, seconds.
END_SECONDS = 2.0


@dataclass(frozen=True)
class ControlGroup:
    """A group of its own for one program."""

    folder: Path

    def entered(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one in the group."""
        return ["sh", "-c", ENTER, "enter", str(self.folder), *command]

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process because the group had no more memory."""
        try:
            events = (self.folder / "memory.events").read_text(encoding="ascii").split()
        except OSError:
            return False
        counts = dict(zip(events[::2], events[1::2], strict=True))
        return counts.get("oom_kill", "0") != "0"


@functools.cache
def parent() -> Path | None:
    """Return the folder in which this process may make groups with limits, if there is any.

    It is the one that this process's own group lies in, else that group: one that holds processes
    cannot limit groups below it.
    """
    own = _own()
    if own is None:
        return None
    for folder in (own.parent, own):
        if _can_limit(folder):
            return folder
    return None


def _own(process: Path = Path("/proc/self")) -> Path | None:
    """Return the folder of this process's group in cgroup v2, wherever that is mounted."""
    try:
        groups = (process / "cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (process / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in groups if line.startswith("0::/")), None)
    mount = next((line.split() for line in mounts if " - cgroup2 " in line), None)
    if path is None or mount is None:
        return None
    shown, point = mount[3], mount[4]  # what of the hierarchy is mounted, and where
    if not f"{path}/".startswith(f"{shown.rstrip('/')}/"):
        return None
    return Path(point) / path[len(shown.rstrip("/")) :].lstrip("/")


def _can_limit(folder: Path) -> bool:
    """Say whether a group with limits can be made in a folder and entered, by doing so."""
    try:
        given = (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
        # A process is moved by whoever may write where it comes from and goes to have in common.
        if not set(given) >= CONTROLLERS or not os.access(folder / "cgroup.procs", os.W_OK):
            return False
        with _made(folder, memory_bytes=1 << 30, processes=16) as group:
            subprocess.run(group.entered(["true"]), check=True, capture_output=True)
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def limited(memory_bytes: int, processes: int) -> Iterator[ControlGroup | None]:
    """Make a group for one program, and end what is left in it; yield None where none can be made.

    Args:
        memory_bytes: what its processes may use together.
        processes: how many processes and threads it may have at once.
    """
    folder = parent()
    if folder is None:
        yield None
        return
    with _made(folder, memory_bytes, processes) as group:
        yield group


@contextmanager
def _made(folder: Path, memory_bytes: int, processes: int) -> Iterator[ControlGroup]:
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
    """Kill what is left in a group, and remove it once that is gone."""
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
