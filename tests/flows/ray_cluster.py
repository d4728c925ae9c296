"""A Ray cluster of two pretend nodes in a network of its own: `with cluster(…) as nodes`.

Ray binds the host's address whatever it is told; alone in a network namespace, that is loopback.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Runs a command where nothing but loopback exists.
ALONE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
PORT = 6400


def environment(home: Path) -> dict[str, str]:
    """Return what each process of the cluster needs to know the others."""
    return {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_MEMORY_MONITOR": "1",
        # Its own 15 starves its processes beside others.
        "RAY_worker_niceness": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "PREFECT_HOME": str(home / "prefect"),
    }


@dataclass
class Nodes:
    """A cluster: its address, its raylets (the head's first), and how to add a node."""

    address: str
    raylets: list[psutil.Process]
    start: Callable[[str], psutil.Process]

    def add(self) -> None:
        """Start one more node; it takes the last one's place in the list."""
        self.raylets[-1] = self.start(f"--address={self.address}")


@contextlib.contextmanager
def cluster(env: dict[str, str], gpus: int = 2) -> Iterator[Nodes]:
    """Start a head and one more node; end all of it afterwards."""
    with contextlib.ExitStack() as stack:
        # A short path: sockets lie in it, and theirs may have 107 characters.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-", dir="/tmp"))
        common = ["--block", "--disable-usage-stats", f"--num-gpus={gpus}", "--num-cpus=4",
                  "--object-store-memory=80000000"]  # fmt: skip
        head = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
        address = f"127.0.0.1:{PORT}"

        def start(*where: str) -> psutil.Process:
            return stack.enter_context(_node([*where, *common], env))

        yield Nodes(address, [start(*head), start(f"--address={address}")], start)


@contextlib.contextmanager
def _node(arguments: list[str], env: dict[str, str]) -> Iterator[psutil.Process]:
    """Start a node in a session of its own, and end all of it."""
    ray = str(Path(sys.executable).parent / "ray")
    with subprocess.Popen(
        [ray, "start", *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ray runtime started" in line:
                    break
            family = psutil.Process(process.pid).children(recursive=True)
            yield next(child for child in family if child.name() == "raylet")
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            for each in [*family, process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, timeout=30)
