"""The services of `make up` as their users see them: addresses, and the password they ask for.

The password is new with each `make up`. It lies in `.lori/password`, which only the user can read,
as `lori:PASSWORD`: Prefect's authentication string, and MLflow's user and password.
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
#: What the services are called by: they listen nowhere else.
NAMES = (HOST, "localhost")
PASSWORD = Path(".lori/password")
STATE = Path(".lori/services.json")
AUTH_STRING = "PREFECT_API_AUTH_STRING"


def new_password() -> str:
    """Return a random `lori:PASSWORD` that cannot be guessed."""
    return f"lori:{secrets.token_urlsafe(32)}"


def write_password(workspace: Path, password: str) -> None:
    """Keep the services' password for the user.

    Raises:
        InputError: other users of the machine could read it there.
    """
    path = workspace / PASSWORD
    private.write_text(path, f"{password}\n")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        path.unlink()
        raise InputError(
            f"{path}: its file system gives it the mode {mode:o}, with which other users can read "
            "the services' password; move the workspace to a file system that keeps modes"
        )


def password(workspace: Path) -> str | None:
    """Return the password of the services that were started here, `user:password`."""
    try:
        return (workspace / PASSWORD).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def state(workspace: Path) -> dict[str, Any]:
    """Return what is noted of the services: ports and processes; empty if none was started."""
    try:
        found = json.loads((workspace / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_own(workspace: Path, service: str, url: str) -> bool:
    """Say whether an address is that of a service, `prefect` or `mlflow`, started here."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return False
    known = state(workspace).get("ports", {}).get(service)
    return parts.scheme == "http" and parts.hostname in NAMES and port == known is not None


def prefect_variables(password: str) -> dict[str, str]:
    """Return the variables by which Prefect's clients give a password."""
    return {AUTH_STRING: password}


def mlflow_variables(password: str) -> dict[str, str]:
    """Return the variables by which MLflow's clients give a password."""
    user, _, secret = password.partition(":")
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": secret}


def prefect_access(workspace: Path, url: str) -> dict[str, str]:
    """Return the variables that Prefect's clients need at an address.

    At another server's they withhold the password that `prefect.toml` gives to all of them.
    """
    found = password(workspace)
    if found is None:
        return {}
    if is_own(workspace, "prefect", url):
        return prefect_variables(found)
    return {} if os.environ.get(AUTH_STRING) else prefect_variables("")


def check_password(workspace: Path, url: str) -> None:
    """Refuse to send the password of the services here to a Prefect server elsewhere.

    Raises:
        InputError: the environment pairs the one with the other.
    """
    if is_sent_elsewhere(workspace, url, os.environ.get(AUTH_STRING)):
        raise InputError(
            f"{AUTH_STRING}: is the password of the server of `make up`, and PREFECT_API_URL names "
            f"another server, {redact(url)}; unset one of the two"
        )


def is_sent_elsewhere(workspace: Path, url: str, given: str | None) -> bool:
    """Say whether a password is that of the services here and an address is not theirs."""
    own = bool(given) and given == password(workspace)
    return own and not is_own(workspace, "prefect", url)


def mlflow_access(workspace: Path, url: str) -> dict[str, str]:
    """Return the variables that MLflow's clients need at an address, if it is our service's."""
    found = password(workspace) if is_own(workspace, "mlflow", url) else None
    return mlflow_variables(found) if found else {}


def basic(password: str) -> dict[str, str]:
    """Return the header of HTTP's basic authentication."""
    return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
