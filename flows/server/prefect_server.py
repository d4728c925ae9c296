"""Prefect's server, guarded: `python -m flows.server.prefect_server [--ephemeral | --container]`.

What `prefect server start` runs, on the socket that is its standard input, with the password of
`PREFECT_SERVER_API_AUTH_STRING`. With `--ephemeral` it has no pages and no services, as the API
that Prefect starts for a single run. With `--container` it opens port 4200 to its network itself,
and takes requests only under the names that it is told:

- `PREFECT_SERVER_CORS_ALLOWED_ORIGINS`: the origins of its pages, `https://team.example.org`;
- `LORI_PREFECT_HOSTS`: the names by which programs reach it, `prefect:4200`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from urllib.parse import urlsplit

from flows.server.guard import Guard
from flows.server.listening import handed_over, listen, serve
from lori_core.core.errors import InputError

CONTAINER_PORT = 4200
EVERYWHERE = "0.0.0.0"  # noqa: S104 - the container's network, which says who reaches it
_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:\d{1,5})?")
_HOST = re.compile(r"[a-z0-9.\-]+(:\d{1,5})?")


def main(arguments: list[str]) -> None:
    """Serve until told to stop."""
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
    # Prefect checks the password by itself, on WebSockets by their first message.
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


def names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the hosts and origins that the environment names.

    Raises:
        InputError: one is none, such as `*`, which would admit every page.
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
    return handed_over()


if __name__ == "__main__":
    main(sys.argv[1:])
