"""Access to the services of `make up`: their addresses and their password.

Each `make up` creates a new password in `.lori/password`, which only the user can read. It has the
form `lori:PASSWORD`: Prefect's authentication string, and MLflow's user and password.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows import private
from lori_core.core.errors import InputError
from lori_core.core.redaction import redact

HOST = "127.0.0.1"
#: The host names of the services, which listen on loopback only.
NAMES = (HOST, "localhost")
PASSWORD = Path(".lori/password")
STATE = Path(".lori/services.json")
AUTH_STRING = "PREFECT_API_AUTH_STRING"


def new_password() -> str:
    """Return a random `lori:PASSWORD` with 256 bits of entropy."""
    return f"lori:{secrets.token_urlsafe(32)}"


def write_password(workspace: Path, password: str) -> None:
    """Write the services' password to a file that only the user can read.

    Raises:
        InputError: the file system does not store file modes, so other users could read it.
    """
    path = workspace / PASSWORD
    private.write_text(path, f"{password}\n")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        path.unlink()
        raise InputError(
            f"{path}: its file system gives it the mode {mode:o}, with which other users can read "
            "the services' password; move the workspace to a file system that stores modes"
        )


def password(workspace: Path) -> str | None:
    """Return the password of the services started here, `user:password`; None if there is none."""
    try:
        return (workspace / PASSWORD).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def state(workspace: Path) -> dict[str, Any]:
    """Return the saved state of the services: ports and processes; empty if none was started."""
    try:
        saved = json.loads((workspace / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, dict) else {}


def is_own(workspace: Path, service: str, url: str) -> bool:
    """Return whether an address is that of the service `prefect` or `mlflow` started here."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return False
    known = state(workspace).get("ports", {}).get(service)
    return parts.scheme == "http" and parts.hostname in NAMES and port == known is not None


def prefect_variables(password: str) -> dict[str, str]:
    """Return the environment variables with which Prefect's clients send a password."""
    return {AUTH_STRING: password}


def mlflow_variables(password: str) -> dict[str, str]:
    """Return the environment variables with which MLflow's clients send a password."""
    user, _, secret = password.partition(":")
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": secret}


def prefect_access(workspace: Path, url: str) -> dict[str, str]:
    """Return the environment variables that Prefect's clients need for an address.

    For another server's address they clear the password that `prefect.toml` would send to it.
    """
    own = password(workspace)
    if own is None:
        return {}
    if is_own(workspace, "prefect", url):
        return prefect_variables(own)
    return {} if os.environ.get(AUTH_STRING) else prefect_variables("")


def check_password(workspace: Path, url: str) -> None:
    """Refuse to send the password of the services here to another Prefect server.

    Raises:
        InputError: the environment holds this password, and `url` is another server.
    """
    if is_sent_elsewhere(workspace, url, os.environ.get(AUTH_STRING)):
        raise InputError(
            f"{AUTH_STRING}: is the password of the server of `make up`, and PREFECT_API_URL names "
            f"another server, {redact(url)}; unset one of the two"
        )


def is_sent_elsewhere(workspace: Path, url: str, given: str | None) -> bool:
    """Return whether a password belongs to the services here, but an address does not."""
    own = bool(given) and given == password(workspace)
    return own and not is_own(workspace, "prefect", url)


def mlflow_access(workspace: Path, url: str) -> dict[str, str]:
    """Return the environment variables for MLflow's clients; empty for another server's address."""
    own = password(workspace) if is_own(workspace, "mlflow", url) else None
    return mlflow_variables(own) if own else {}


def basic(password: str) -> dict[str, str]:
    """Return the header of HTTP basic authentication for `user:password`."""
    return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
