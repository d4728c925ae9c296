"""An MLflow plugin that sends the password of `make up` with MLflow's commands in a workspace.

MLflow loads this class by the package's entry point `mlflow.request_header_provider` and calls it
before each request.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from flows import access


class OwnServer(RequestHeaderProvider):
    """Adds the password if the tracking URI is the server that was started in this folder."""

    def in_context(self) -> bool:
        """Return whether there is a header to add."""
        return bool(self.request_headers())

    def request_headers(self) -> dict[str, str]:
        """Return the header `Authorization`, unless the environment names credentials."""
        from mlflow import get_registry_uri, get_tracking_uri

        url = get_tracking_uri()
        named = [f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "TOKEN")]
        # MLflow would send the same headers to another registry, too.
        if any(os.environ.get(name) for name in named) or get_registry_uri() != url:
            return {}
        password = access.password(Path()) if access.is_own(Path(), "mlflow", url) else None
        return access.basic(password) if password else {}
