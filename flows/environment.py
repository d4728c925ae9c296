"""Switches that must be in the environment before Prefect, MLflow or DVC are imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lori_core.process import PARENT_VARIABLE

#: Nothing phones home.
TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

#: An absent server is noticed in seconds; MLflow's own defaults retry for minutes.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

#: A killed run is noticed within minutes (`server.automations`), a held slot after a restart, too.
SIGNS_OF_LIFE = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}

#: One console line reads `time | stage | message`.
CONSOLE = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s | lori | %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": (
        "%(asctime)s | %(task_run_name)s | %(message)s"
    ),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def quiet_environment() -> None:
    """Turn telemetry off and patience down, unless the user has set a variable already."""
    for name, value in {**TELEMETRY, **PATIENCE, **SIGNS_OF_LIFE}.items():
        os.environ.setdefault(name, value)


def console_environment() -> None:
    """Make Prefect's console lines short, unless the user has set a variable already."""
    for name, value in CONSOLE.items():
        os.environ.setdefault(name, value)


def child_environment(**variables: str) -> Mapping[str, str]:
    """Return the environment of a process we start: quiet, with this Python's tools on PATH."""
    quiet_environment()
    tools = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    return {
        **os.environ,
        "PATH": path if path.split(os.pathsep)[0] == tools else tools + os.pathsep + path,
        # Lines reach the log when they are printed, not when a buffer fills.
        "PYTHONUNBUFFERED": "1",
        PARENT_VARIABLE: str(os.getpid()),
        **variables,
    }
