"""Sockets on loopback that are opened before the server is started which answers on them.

A server takes seconds until it listens by itself. In that time another user could take its port,
and would be told the password. A server that is started here finds the open socket as its standard
input: `python -m flows.server.prefect_server`, `python -m flows.server.mlflow_server`.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from flows.access import HOST
from flows.server.guard import App
from lori_core.core.errors import InputError


def listen(port: int = 0, variable: str = "", host: str = HOST) -> socket.socket:
    """Return a socket that listens on a port; on any free one of loopback by default.

    Args:
        port: which.
        variable: what sets the port, for the message.
        host: the address to listen on.

    Raises:
        InputError: it is not free.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise InputError(
            f"port {port} is not free ({error.strerror}); set {variable} to another"
        ) from None
    return found


def handed_over() -> socket.socket:
    """Return the socket that this process was given as its standard input."""
    try:
        found = socket.socket(fileno=os.dup(0))
        found.getsockname()[1]
    except (OSError, IndexError):
        sys.exit(f"{sys.argv[0]}: standard input must be a socket that listens; see make up")
    return found


def serve(app: App, listener: socket.socket, **settings: Any) -> None:
    """Run a server on an open socket until it is told to stop."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listener])
