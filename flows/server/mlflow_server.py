"""MLflow's tracking server behind a `Guard`: `python -m flows.server.mlflow_server`.

It serves the same application as `mlflow server --no-serve-artifacts`, in one process, on the
listening socket that is its standard input. Its settings come from the environment, which other
users cannot read: `MLFLOW_BACKEND_STORE_URI`, `MLFLOW_DEFAULT_ARTIFACT_ROOT`, and the credentials
that clients must send, `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
"""

from __future__ import annotations

import os
import sys

from flows.server.guard import Guard
from flows.server.listening import inherited_socket, serve


def main() -> None:
    """Serve until a signal stops the process."""
    user, secret = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if not user or not secret:
        sys.exit("MLFLOW_TRACKING_PASSWORD: a server without a password is not started")
    listener = inherited_socket()
    port = listener.getsockname()[1]
    store = os.environ["MLFLOW_BACKEND_STORE_URI"]
    artifacts = os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"]
    # `mlflow server` sets these for its server process; mlflow.server reads them at import.
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = os.environ["_MLFLOW_SERVER_REGISTRY_STORE"] = store
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = artifacts
    from mlflow import server
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, artifacts)
    from mlflow.server.fastapi_app import app

    guarded = Guard(app, port, f"{user}:{secret}")
    serve(guarded, listener, log_config=str(server._UVICORN_LOG_CONFIG))


if __name__ == "__main__":
    main()
