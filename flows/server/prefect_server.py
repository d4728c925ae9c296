"""Prefect's server, guarded: `python -m flows.server.prefect_server [--ephemeral]`.

What `prefect server start` runs, on the socket that is its standard input, with the password of
`PREFECT_SERVER_API_AUTH_STRING`. With `--ephemeral` it has no pages and no services, as the API
that Prefect starts for a single run.
"""

from __future__ import annotations

import sys

from flows.server.guard import Guard
from flows.server.listening import handed_over, serve


def main(arguments: list[str]) -> None:
    """Serve until told to stop."""
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    if settings.api.auth_string is None or not settings.api.auth_string.get_secret_value():
        sys.exit("PREFECT_SERVER_API_AUTH_STRING: a server without a password is not started")
    listener = handed_over()
    port = listener.getsockname()[1]
    # Prefect checks the password by itself, on WebSockets by their first message.
    app = Guard(create_app(ephemeral="--ephemeral" in arguments, final=True), port)
    serve(
        app,
        listener,
        lifespan="on",
        log_level=settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
