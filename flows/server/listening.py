"""Listening sockets that are opened before their server starts.

A server needs seconds until it listens. In that time another user could take its port and would
receive the password. So the socket is opened first, and the server gets it as its standard input:
`python -m flows.server.prefect_server`, `python -m flows.server.mlflow_server`.
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
    """Return a socket that listens on a port; by default on a free port of loopback.

    Args:
        port: the port; 0 for any free one.
        variable: the environment variable that sets the port, for the message.
        host: the address to listen on.

    Raises:
        InputError: the port is not free.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {port} is not free ({error.strerror}); set {variable} to another"
        ) from None
    return listener


def inherited_socket() -> socket.socket:
    """Return the listening socket that is this process's standard input, or exit."""
    try:
        listener = socket.socket(fileno=os.dup(0))
        listener.getsockname()[1]
    except (OSError, IndexError):
        sys.exit(f"{sys.argv[0]}: standard input must be a listening socket; use make up")
    return listener


def serve(app: App, listener: socket.socket, **settings: Any) -> None:
    """Run a server on a listening socket until a signal stops it."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listener])
