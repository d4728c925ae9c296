"""Prefect's server behind a `Guard`.

`python -m flows.server.prefect_server [--ephemeral | --container]` serves the same application as
`prefect server start`, on the listening socket that is its standard input, with the password of
`PREFECT_SERVER_API_AUTH_STRING`. With `--ephemeral` it has no UI and no background services, like
the API that Prefect starts for a single run. With `--container` it opens port 4200 on all
interfaces itself, and accepts requests only for these hosts and origins:

- `PREFECT_SERVER_CORS_ALLOWED_ORIGINS`: the origins of its pages, `https://team.example.org`;
- `LORI_PREFECT_HOSTS`: the host names by which programs reach it, `prefect:4200`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from flows import new_database
from flows.server.guard import Guard
from flows.server.listening import inherited_socket, listen, serve
from lori_core.core.errors import InputError

CONTAINER_PORT = 4200
EVERYWHERE = "0.0.0.0"  # noqa: S104 - the container's network restricts access
_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:\d{1,5})?")
_HOST = re.compile(r"[a-z0-9.\-]+(:\d{1,5})?")


def main(arguments: list[str]) -> None:
    """Serve until a signal stops the process."""
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    if settings.api.auth_string is None or not settings.api.auth_string.get_secret_value():
        sys.exit("PREFECT_SERVER_API_AUTH_STRING: a server without a password is not started")
    try:
        hosts, origins = names() if "--container" in arguments else ((), ())
        listener = _listener(arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    port = listener.getsockname()[1]
    create_database()
    # Prefect checks the password itself, on WebSockets in their first message.
    app = create_app(ephemeral="--ephemeral" in arguments, final=True)
    serve(
        Guard(app, port, hosts=hosts, origins=origins),
        listener,
        lifespan="on",
        log_level=settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
    )


def create_database() -> None:
    """Create Prefect's SQLite database if it does not exist, from the user's cache if possible.

    Prefect migrates an existing database when its server starts.
    """
    from prefect.server.database import provide_database_interface
    from prefect.settings import get_current_settings
    from sqlalchemy.engine import make_url

    if not get_current_settings().server.database.migrate_on_start:
        return
    url = make_url(provide_database_interface().database_config.connection_url)
    if url.get_backend_name() != "sqlite" or not Path(url.database or "").is_absolute():
        return
    database = Path(url.database or "")
    if not database.parent.is_dir() or database.exists():
        return
    if not new_database.copy(database, "prefect"):
        asyncio.run(_migrate())
        new_database.keep(database, "prefect")


async def _migrate() -> None:
    from prefect.server.database import provide_database_interface

    interface = provide_database_interface()
    await interface.create_db()
    await (await interface.engine()).dispose()


def names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the allowed hosts and origins from the environment.

    Raises:
        InputError: an entry is not a host or origin, such as `*`, which would admit every page.
    """
    origins = _listed("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", _ORIGIN, "http://127.0.0.1:4200")
    hosts = _listed("LORI_PREFECT_HOSTS", _HOST, "prefect:4200")
    return (*hosts, *(urlsplit(origin).netloc for origin in origins)), origins


def _listed(variable: str, form: re.Pattern[str], example: str) -> tuple[str, ...]:
    entries = [entry.strip().lower() for entry in os.environ.get(variable, "").split(",")]
    for entry in entries:
        if not form.fullmatch(entry):
            raise InputError(f"{variable}: {entry!r} is not allowed; list each as in {example}")
    return tuple(entries)


def _listener(arguments: list[str]) -> socket.socket:
    if "--container" in arguments:
        return listen(CONTAINER_PORT, host=EVERYWHERE)
    return inherited_socket()


if __name__ == "__main__":
    main(sys.argv[1:])
