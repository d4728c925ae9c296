"""MLflow's tracking server, guarded: `python -m flows.server.mlflow_server`.

What `mlflow server --no-serve-artifacts` runs, in one process, on the socket that is its standard
input. All else comes from the environment, where no other user sees it: `MLFLOW_BACKEND_STORE_URI`,
`MLFLOW_DEFAULT_ARTIFACT_ROOT`, and what its users are asked for, `MLFLOW_TRACKING_USERNAME` and
`MLFLOW_TRACKING_PASSWORD`.
"""

from __future__ import annotations

import os
import sys

from flows.server.guard import Guard
from flows.server.listening import handed_over, serve


def main() -> None:
    """Serve until told to stop."""
    user, secret = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if not user or not secret:
        sys.exit("MLFLOW_TRACKING_PASSWORD: a server without a password is not started")
    listener = handed_over()
    port = listener.getsockname()[1]
    store = os.environ["MLFLOW_BACKEND_STORE_URI"]
    artifacts = os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"]
    # As MLflow's own command tells the process that serves; it looks when it is imported.
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
