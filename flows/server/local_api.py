"""Prefect's API for one `lori run`, on loopback, in a process that ends with the run.

The server that Prefect itself would start keeps running when the run is killed, and the next run
may wait for it.
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

START_SECONDS = 300.0
#: How long a running server may take to answer.
ANSWER_SECONDS = 10.0
#: How much of a log's end is searched for an error.
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Log:
    """A process's log file.

    Attributes:
        path: the file.
        start: the byte at which the process began to write.
        database: the process's SQLite database, for messages about it.
    """

    path: Path
    start: int = 0
    database: Path | None = None

    def last_error(self) -> str:
        """Return the last line that names an error, else the last line."""
        with self.path.open("rb") as file:
            file.seek(max(self.start, self.path.stat().st_size - TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
        written = [line for line in lines if line]
        errors = [line for line in written if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return redact((errors or written or ["the log is empty"])[-1])[:300]


@dataclass(frozen=True)
class LocalApi:
    """A Prefect API that was started: its address, its process, its log, its password."""

    url: str
    process: subprocess.Popen[bytes]
    log: Log
    password: str = field(repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables for Prefect's clients; set them before importing Prefect."""
        return {"PREFECT_API_URL": self.url, **access.prefect_variables(self.password)}

    def wait(self) -> None:
        """Wait until the API answers.

        Raises:
            LoriError: the API's process ended, or the API did not answer in time.
        """
        wait_until_healthy(
            f"{self.url}/health",
            "Prefect's API",
            self.log,
            lambda: self.process.poll() is None,
        )


def start_local_api(workspace: Path) -> LocalApi:
    """Start the API and return at once; `LocalApi.wait` waits until it answers.

    The API stops when this process ends, after Prefect's threads have sent their last logs.
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
            # Block types are for Prefect's UI, and importing them takes a second.
            "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=workspace,
            env=dict(child_environment(**variables)),
            stdin=listener.fileno(),
            stdout=output,
            stderr=subprocess.STDOUT,
            umask=private.UMASK,
            # Ctrl-C must reach the flow only, which then reports its end to this API.
            start_new_session=True,
        )
    atexit.register(_stop, process)
    return LocalApi(
        f"http://{HOST}:{port}/api", process, Log(log, database=_database(home)), password
    )


def _database(home: Mapping[str, str]) -> Path | None:
    """Return Prefect's SQLite database in its folder; None if the user has set another one."""
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
    """Return a TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(url: str, timeout: float = 2.0) -> bool:
    """Return whether an HTTP address answers with status 200."""
    return not unhealthy(url, timeout)


def unhealthy(url: str, timeout: float = ANSWER_SECONDS) -> str:
    """Return why an HTTP address does not answer with status 200; empty if it does."""
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
        url: the address to request.
        name: the server's name in messages.
        log: the server's log, if it is known.
        alive: returns whether the server's process is running.
        seconds: how long to wait.
        answers: returns whether the server answers at `url`.

    Raises:
        LoriError: the process ended (with the last error of its log), or the server did not answer
            in time.
    """
    limit = time.monotonic() + seconds
    while not answers(url):
        if not alive():
            reason = f": {_explained(log)} ({log.path})" if log else ""
            raise LoriError(f"{name} ended while it started{reason}")
        if time.monotonic() > limit:
            where = f"; its log is {log.path}" if log else ""
            raise LoriError(f"{name} did not answer at {url} in {seconds:.0f} s{where}")
        time.sleep(0.2)


def _explained(log: Log) -> str:
    """Return the last error of a server's log and, if it is known, how to solve it."""
    text = log.last_error()
    error = RuntimeError(text)
    if log.database:
        faults.note(error, log.database)
    known = faults.explained(error)
    return f"{text}; {known}" if known else text
