"""Prefect's API for one `lori run`, on loopback, in a process that ends with it.

Prefect would start such a server by itself, but that one is left behind when the run is killed, and
the next run may wait on it.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows import access, private
from flows.access import HOST
from flows.environment import child_environment, prefect_home
from flows.server.guard import own_origins
from flows.server.listening import listen
from lori_core.core import faults
from lori_core.core.errors import LoriError
from lori_core.core.redaction import redact

START_SECONDS = 120.0
#: How long a server that is there may take to answer.
ANSWER_SECONDS = 10.0
#: Of a log that says why a process ended.
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Log:
    """What a process writes: a file, and the byte in it where that process began."""

    path: Path
    start: int = 0
    database: Path | None = None
    """The SQLite database that it keeps, for messages about that."""

    def last_words(self) -> str:
        """Return the last line that names an error, else the last line."""
        with self.path.open("rb") as file:
            file.seek(max(self.start, self.path.stat().st_size - TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
        said = [line for line in lines if line]
        errors = [line for line in said if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return redact((errors or said or ["it said nothing"])[-1])[:300]


@dataclass(frozen=True)
class LocalApi:
    """An API that was started: its address, its process, what that one writes, its password."""

    url: str
    process: subprocess.Popen[bytes]
    log: Log
    password: str = field(repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """What leads Prefect's clients to it; to be set before Prefect is imported."""
        return {"PREFECT_API_URL": self.url, **access.prefect_variables(self.password)}

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            LoriError: it ended, or does not answer.
        """
        wait_until_healthy(
            f"{self.url}/health",
            "Prefect's API",
            self.log,
            lambda: self.process.poll() is None,
        )


def start_local_api(workspace: Path) -> LocalApi:
    """Start the API, and return at once; `LocalApi.wait` says when it answers.

    It stops when this process ends, after Prefect's own threads have sent their last logs to it.
    """
    private.tighten(workspace)
    log = private.folder(workspace / ".lori" / "logs") / "api.log"
    home, password = prefect_home(workspace), access.new_password()
    if "PREFECT_HOME" in home:
        private.folder(Path(home["PREFECT_HOME"]))
    module = ["lori_core.core.processes.child", "flows.server.prefect_server", "--ephemeral"]
    with open(log, "wb", opener=private.opener) as output, listen() as listener:
        port = listener.getsockname()[1]
        variables = {
            **home,
            **access.prefect_variables(password),
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own_origins(port)),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=workspace,
            env=dict(child_environment(**variables)),
            stdin=listener.fileno(),
            stdout=output,
            stderr=subprocess.STDOUT,
            umask=private.UMASK,
            # Ctrl-C is for the flow, which still has to report its end here.
            start_new_session=True,
        )
    atexit.register(_stop, process)
    return LocalApi(
        f"http://{HOST}:{port}/api", process, Log(log, database=_database(home)), password
    )


def _database(home: Mapping[str, str]) -> Path | None:
    """Return Prefect's database in its folder; None where the user has named another."""
    named = [
        name for name in os.environ if re.fullmatch(r"PREFECT_(API|SERVER)_DATABASE_\w+", name)
    ]
    folder = home.get("PREFECT_HOME") or os.environ.get("PREFECT_HOME")
    return Path(folder) / "prefect.db" if folder and not named else None


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
    return not unhealthy(url, timeout)


def unhealthy(url: str, timeout: float = ANSWER_SECONDS) -> str:
    """Return why an HTTP address does not answer with success; empty where it does."""
    import httpx

    try:
        answer = httpx.get(url, timeout=timeout)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return "" if answer.status_code == httpx.codes.OK else f"it answers {answer.status_code}"


def wait_until_healthy(
    url: str,
    name: str = "the server",
    log: Log | None = None,
    alive: Callable[[], bool] = lambda: True,
    seconds: float = START_SECONDS,
    answers: Callable[[str], bool] = healthy,
) -> None:
    """Wait until a server that was started answers.

    Args:
        url: what to ask.
        name: what to call it in messages.
        log: where it writes, if that is known.
        alive: whether its process is still there.
        seconds: how long to wait.
        answers: asks it.

    Raises:
        LoriError: it ended, with the last words of its log; or it did not answer in time.
    """
    limit = time.monotonic() + seconds
    while not answers(url):
        if not alive():
            said = f": {_with_way_out(log)} ({log.path})" if log else ""
            raise LoriError(f"{name} ended while it started{said}")
        if time.monotonic() > limit:
            said = f"; its log is {log.path}" if log else ""
            raise LoriError(f"{name} did not answer at {url} in {seconds:.0f} s{said}")
        time.sleep(0.2)


def _with_way_out(log: Log) -> str:
    """Return what a server said last, and what there is to do, where that is known."""
    words = log.last_words()
    error = RuntimeError(words)
    if log.database:
        faults.note(error, log.database)
    known = faults.explained(error)
    return f"{words}; {known}" if known else words
