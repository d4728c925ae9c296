"""MLflow's own commands, typed in a workspace, give the password of the server of `make up`.

MLflow finds this class by the package's entry point `mlflow.request_header_provider`, and asks it
before each request.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from flows import access


class OwnServer(RequestHeaderProvider):
    """The password, where the tracking URI is that of the server started in the current folder."""

    def in_context(self) -> bool:
        """Return whether there is anything to add."""
        return bool(self.request_headers())

    def request_headers(self) -> dict[str, str]:
        """Return the header `Authorization`, unless the environment names credentials."""
        from mlflow import get_registry_uri, get_tracking_uri

        url = get_tracking_uri()
        named = [f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "TOKEN")]
        # The same headers would go to another registry.
        if any(os.environ.get(name) for name in named) or get_registry_uri() != url:
            return {}
        password = access.password(Path()) if access.is_own(Path(), "mlflow", url) else None
        return access.basic(password) if password else {}
