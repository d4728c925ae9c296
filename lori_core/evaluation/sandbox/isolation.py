"""Isolation of a Python process on Linux: the command that starts it, for each kind of isolation.

All kinds have in common: no network; no files except the system's libraries and programs and the
interpreter, read-only; an empty `/tmp` in memory, of limited size; a process id namespace in which
the command is process 1, so that all its children end with it; no capabilities and no way to gain
any; no further user namespaces (but see `Isolation.container`).
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: The paths that a process needs to start. Not all of /usr: container images keep sources there.
SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib64", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
PACKAGES = ("site-packages", "dist-packages")
TMP_BYTES = 16 << 20
NOBODY = "65534"
STAGE = "/mnt"
FLAGS = ("-P", "-s", "-S", "-B")

#: The environment of an isolated process. The fixed hash seed makes verdicts repeatable.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
}

#: The mount point of the new root: a folder that every host has and no program needs.
ROOT = Path("/sys")

#: A shell script that runs as root of a new user namespace. It calls `mount` once, because each
#: call takes a millisecond.
SET_UP = """
set -eu
mount -t tmpfs -o mode=755,size=1m sandbox {root} && cd {root}
mkdir -p old {folders}
for file in {files}; do : > "$file"; done
echo {fstab} > fstab && mount --all --fstab fstab && : > fstab
pivot_root . old && cd /tmp && umount -l /old
mount -o remount,bind,ro /
echo 0 > /proc/sys/user/max_user_namespaces
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"""

#: A shell script that runs as the host's root: it binds $1 to $2, which ordinary users can read.
SHOW = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


class Isolation(StrEnum):
    """The kinds of isolation, strongest first."""

    bubblewrap = "bubblewrap"
    """`bwrap` 0.8 or later sets up the namespaces."""
    namespaces = "namespaces"
    """The same namespaces with `unshare`, `mount`, `pivot_root` and `setpriv` of util-linux."""
    container = "container"
    """`bwrap` inside a container, where /proc is masked and cannot be mounted again, so programs
    have no /proc. Only the filter of system calls prevents further namespaces."""
    none = "none"
    """Resource limits only."""


@dataclass(frozen=True)
class Interpreter:
    """The base interpreter.

    Attributes:
        program: the path of the executable.
        prefix: the folder of its installation.
    """

    program: Path
    prefix: Path

    @classmethod
    def base(cls) -> Interpreter:
        """Return the interpreter on which this process's virtual environment is based."""
        program = getattr(sys, "_base_executable", None) or sys.executable
        return cls(Path(program).resolve(), Path(sys.base_prefix).resolve())

    @property
    def staged(self) -> bool:
        """Whether to bind it to `STAGE`: only root can read it, and the sandbox drops root."""
        folders = (self.prefix, *self.prefix.parents)
        return os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in folders)

    def parts(self) -> list[Path]:
        """Return the paths of the interpreter that are outside the system's folders."""
        parts = [self.program, self.prefix / "lib", self.prefix / "lib64"]
        return [
            part
            for part in parts
            if part.exists() and not any(part.is_relative_to(folder) for folder in SYSTEM)
        ]

    def packages(self) -> list[Path]:
        """Return the folders of installed packages, which the sandbox hides."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return [
            folder
            for library in ("lib", "lib64")
            for name in PACKAGES
            if (folder := self.prefix / library / version / name).is_dir()
            and not (self.prefix / library).is_symlink()
        ]

    def source(self, part: Path) -> str:
        """Return the path of a part while the sandbox is being set up."""
        if self.staged and part.is_relative_to(self.prefix):
            return str(STAGE / part.relative_to(self.prefix))
        return str(part)


def command(isolation: Isolation, script: str) -> list[str]:
    """Return the command that runs `python -c script` in an isolation."""
    interpreter = Interpreter.base()
    python = [str(interpreter.program), *FLAGS, "-c", script]
    if isolation is Isolation.none:
        return python
    ways = {
        Isolation.bubblewrap: _bubblewrap,
        Isolation.namespaces: _namespaces,
        Isolation.container: _without_proc,
    }
    return [*_ordinary_user(interpreter), *ways[isolation](interpreter), *python]


def _ordinary_user(interpreter: Interpreter) -> list[str]:
    """Return a prefix that drops root, because root's processes have no limit on their number."""
    if os.geteuid() != 0:
        return []
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    if not interpreter.staged:
        return nobody
    show = ["unshare", "--mount", "--", "sh", "-c", SHOW, "show", str(interpreter.prefix), STAGE]
    return [*show, *nobody]


def _visible(interpreter: Interpreter) -> list[tuple[str, Path]]:
    """Return what programs may read: the current path and the path in the sandbox of each part."""
    system = [(str(path), path) for path in map(Path, SYSTEM) if path.exists()]
    return system + [(interpreter.source(part), part) for part in interpreter.parts()]


def _bubblewrap(interpreter: Interpreter) -> list[str]:
    return _bwrap(interpreter, ["--disable-userns"], ["--proc", "/proc"])


def _without_proc(interpreter: Interpreter) -> list[str]:
    return _bwrap(interpreter, [], [])


def _bwrap(interpreter: Interpreter, user: list[str], proc: list[str]) -> list[str]:
    words = ["bwrap", "--unshare-user", *user, "--unshare-pid", "--unshare-net"]
    words += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    words += ["--die-with-parent", "--new-session", "--as-pid-1"]
    for source, path in _visible(interpreter):
        words += ["--ro-bind", source, str(path)]
    for folder in interpreter.packages():
        words += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    words += [*proc, "--dev", "/dev", "--remount-ro", "/dev"]
    words += ["--size", str(TMP_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/"]  # noqa: S108
    return [*words, "--chdir", "/tmp", "--"]  # noqa: S108


def _namespaces(interpreter: Interpreter) -> list[str]:
    visible = _visible(interpreter)
    mounts = [(source, path, "none", "bind,ro,nosuid,nodev") for source, path in visible]
    mounts += [(device, Path(device), "none", "bind") for device in DEVICES]
    mounts += [("none", path, "tmpfs", "ro,size=4k") for path in interpreter.packages()]
    mounts += [("none", Path("/tmp"), "tmpfs", f"mode=1777,nosuid,nodev,size={TMP_BYTES}")]  # noqa: S108
    # The program has the user id that owns the test runner's files in /proc, so these are hidden.
    mounts += [("none", Path("/proc"), "proc", "nosuid,nodev,noexec,hidepid=2")]
    files = [Path(device) for device in DEVICES] + [path for _, path in visible if path.is_file()]
    folders = {path.parent if path in files else path for _, path, _, _ in mounts}
    script = SET_UP.format(
        root=ROOT,
        folders=shlex.join(sorted(_inside(path) for path in folders)),
        files=shlex.join(_inside(path) for path in files),
        fstab=shlex.quote("".join(_fstab_line(*mount) for mount in mounts)),
    )
    words = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts"]
    return [*words, "--fork", "--kill-child", "--", "sh", "-c", script, "set-up"]


def _fstab_line(source: str, path: Path, kind: str, options: str) -> str:
    places = (place.replace(" ", "\\040") for place in (source, _inside(path)))
    return " ".join((*places, kind, options, "0", "0\n"))


def _inside(path: Path) -> str:
    """Return where a path of the sandbox is while the sandbox is being set up."""
    return str(ROOT / path.relative_to("/"))
