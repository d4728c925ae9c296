"""Prefect's API for one `lori run`, on loopback, in a process that ends with it.

Prefect would start such a server by itself, but that one is left behind when the run is killed, and
the next run may wait on it.
"""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from flows.environment import child_environment
from lori_core.errors import LoriError

START_SECONDS = 120.0


def start_local_api() -> str:
    """Start the API and return its URL at once; `wait_until_healthy` says when it answers.

    It stops when this process ends, after Prefect's own threads have sent their last logs to it.
    """
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "lori_core.process", "flows.server.local_api", str(port)],
        env=dict(child_environment()),
        stdin=subprocess.DEVNULL,
        # Ctrl-C is for the flow, which still has to report its end here.
        start_new_session=True,
    )
    atexit.register(_stop, process)
    return f"http://127.0.0.1:{port}/api"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a TCP port that nobody uses on loopback right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(url: str, timeout: float = 2.0) -> bool:
    """Return whether an HTTP address answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - http, our own
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until_healthy(url: str, seconds: float = START_SECONDS) -> None:
    """Wait until an address answers.

    Raises:
        LoriError: it did not within `seconds`.
    """
    limit = time.monotonic() + seconds
    while not healthy(url):
        if time.monotonic() > limit:
            raise LoriError(f"{url}: no answer within {seconds:.0f} s")
        time.sleep(0.2)


def main(arguments: list[str]) -> None:
    """Serve the API on the port given."""
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    uvicorn.run(app, host="127.0.0.1", port=int(arguments[0]), log_level="error", lifespan="on")


if __name__ == "__main__":
    main(sys.argv[1:])
