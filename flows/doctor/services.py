"""The checks of `lori doctor` that use servers: reachable, authenticated, clocks in step."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.doctor.finding import Finding
from flows.versioning.workspace import check
from lori_core.core.errors import LoriError
from lori_core.core.redaction import redact

TIMEOUT_SECONDS = 5.0
#: The largest difference between two clocks; beyond it tokens expire early and files seem too new.
CLOCK_SECONDS = 60.0


def prefect_address(workspace: Path) -> str | None:
    """Return the Prefect API that flows would use; None if each run starts its own."""
    from flows.server.services import prefect_url

    return os.environ.get("PREFECT_API_URL") or prefect_url(workspace)


def prefect(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that the Prefect server answers and accepts our credentials."""
    url = prefect_address(workspace)
    if url is None:
        yield Finding("prefect", True, "no server is set: each run starts its own")
        return
    from flows.server.services import credentials

    yield _http("prefect", f"{url}/admin/version", credentials(workspace),
                "set PREFECT_API_URL, and PREFECT_API_AUTH_STRING as user:password")  # fmt: skip


def mlflow(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that MLflow's tracking store can be used."""
    from flows.tracking.mlflow_store import sqlite_file, store_of

    uri = store_of(workspace, params).uri
    database = sqlite_file(uri)
    if database is not None:
        ok = os.access(database.parent, os.W_OK)
        text = f"{database}" + ("" if database.exists() else " (the first run creates it)")
        yield Finding("mlflow", ok, text, "make the folder writable, or set tracking.uri")
    elif uri.startswith("http"):
        from flows import access

        values = {**os.environ, **access.mlflow_access(workspace, uri)}
        user, secret, token = (
            values.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD", "TOKEN")
        )
        headers: dict[str, str] = {}
        if user:
            headers = access.basic(f"{user}:{secret or ''}")
        elif token:
            headers["Authorization"] = f"Bearer {token}"
        yield _http("mlflow", f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", headers,
                    "set tracking.uri, MLFLOW_TRACKING_USERNAME and _PASSWORD")  # fmt: skip
    else:
        yield from _tcp("mlflow", uri, 5432, "start the database, or set tracking.uri")


def _http(name: str, url: str, headers: Mapping[str, str], todo: str) -> Finding:
    """Request an HTTP address; return whether it answers with status 200."""
    import httpx

    address = redact(url.partition("?")[0])
    try:
        answer = httpx.get(url, headers=dict(headers), timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        return Finding(name, False, f"{address}: not reachable ({error})", todo)
    if answer.status_code in (401, 403):
        return Finding(
            name, False, f"{address}: refuses our credentials ({answer.status_code})", todo
        )
    if answer.status_code != 200:
        return Finding(name, False, f"{address}: answers {answer.status_code}", todo)
    return Finding(name, True, f"{address}: reachable, and accepts our credentials")


def _tcp(name: str, address: str, port: int, todo: str) -> Iterator[Finding]:
    """Open and close a TCP connection to an address, by default on `port`."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    host, port = parts.hostname or "localhost", parts.port or port
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        yield Finding(
            name, False, f"{host}:{port}: not reachable ({error.strerror or error})", todo
        )
    else:
        yield Finding(name, True, f"{host}:{port}: reachable")


def ray(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that the Ray cluster answers, if the engine is `ray`."""
    execution = params.get("execution", {})
    if execution.get("engine") != "ray":
        return
    address = execution.get("ray_address")
    if address is None:
        yield Finding("ray", True, "no address: each run starts a cluster on its own machine")
        return
    default = 10001 if address.startswith("ray://") else 6379
    todo = "run ray start on that machine, or correct execution.ray_address"
    yield from _tcp("ray", address, default, todo)


def remotes(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that each DVC remote can be listed with the credentials here."""
    from dvc.repo import Repo

    with contextlib.suppress(LoriError):  # reported by the check `workspace`
        check(workspace)
        with Repo(str(workspace)) as repo:
            names = list(repo.config.get("remote", {}))
            if not names:
                yield Finding("dvc remote", True, "none: artifacts stay on this machine")
            for name in names:
                yield listed(repo, name)


def listed(repo: Any, name: str) -> Finding:
    """Return the finding whether one DVC remote can be listed."""
    url = repo.config["remote"][name]["url"]
    try:
        remote = repo.cloud.get_remote(name=name)
        if remote.fs.protocol == "local":
            there = next(p for p in (Path(remote.path), *Path(remote.path).parents) if p.exists())
            if not os.access(there, os.W_OK):
                raise PermissionError(f"{there} is not writable")
        elif url.startswith("http"):
            import httpx

            httpx.get(url, timeout=TIMEOUT_SECONDS)
        else:
            _list_store(remote)
    except Exception as error:  # whatever a storage's client raises
        first = (" ".join(str(error).split()) or type(error).__name__)[:200]
        todo = f"check the address, the network and the credentials (dvc remote modify {name})"
        return Finding("dvc remote", False, f"{name} at {url}: {first}", todo)
    return Finding("dvc remote", True, f"{name} at {url}: reachable")


def _list_store(remote: Any) -> None:
    """List a remote's folder; list the bucket if nothing was pushed to the folder yet."""
    try:
        remote.fs.ls(remote.path, detail=False)
    except FileNotFoundError:
        remote.fs.ls(remote.path.split("/")[0], detail=False)


def clock(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check this machine's clock against the servers' and against the workspace's files."""
    for name, url in _clocks(workspace, params).items():
        apart = _apart(url)
        if apart is not None:
            text = f"{apart:+.0f} s off from {name}"
            yield Finding("clock", abs(apart) <= CLOCK_SECONDS, text, "set the clock (NTP)")
    newest = max(path.stat().st_mtime for path in workspace.iterdir())
    future = newest - time.time()
    text = "no file is newer than now" if future <= 1 else f"a file is {future:.0f} s ahead"
    yield Finding("clock", future <= CLOCK_SECONDS, text, "set the clock (NTP) on all machines")


def _clocks(workspace: Path, params: Mapping[str, Any]) -> dict[str, str]:
    from flows.tracking.mlflow_store import store_of

    uri = store_of(workspace, params).uri
    prefect_url = prefect_address(workspace)
    urls = {"prefect": f"{prefect_url}/health"} if prefect_url else {}
    return urls | ({"mlflow": f"{uri}/health"} if uri.startswith("http") else {})


def _apart(url: str) -> float | None:
    """Return how many seconds a server's clock is ahead of ours; None if it is not known."""
    import httpx

    try:
        date = httpx.get(url, timeout=TIMEOUT_SECONDS).headers.get("date")
    except httpx.HTTPError:
        return None
    return parsedate_to_datetime(date).timestamp() - time.time() if date else None
