"""Environment variables that must be set before Prefect, MLflow or DVC are imported."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from lori_core.core.processes.child import PARENT_VARIABLE

#: Switches the telemetry of all dependencies off.
TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

#: Short timeouts, so that an absent server is noticed in seconds; MLflow's defaults take minutes.
TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

#: Heartbeats, so that a killed run is noticed in minutes (`server.automations`); and leases of
#: concurrency slots in files, so that they survive a restart of the server.
HEARTBEATS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}

#: Console lines of the form `time | stage | message`.
CONSOLE = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s | lori | %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": (
        "%(asctime)s | %(task_run_name)s | %(message)s"
    ),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


#: Hides notices of transformers and the progress bars of libraries.
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

#: Lets idle OpenMP threads sleep. By default they spin, and with more threads than cores they take
#: a core from the threads they wait for.
YIELDING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
#: Variables that set how idle threads wait; if a user has set any of them, none is changed.
WAITING = (*YIELDING, "GOMP_SPINCOUNT")

#: HOME if no home folder is known; writing below it fails with a message.
NO_HOME = "/nonexistent"

#: The host names of this machine's services.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: Variables for folders that libraries would create in the home folder.
HOME_FOLDERS = {
    "MPLCONFIGDIR": "matplotlib",
    "TRITON_HOME": "triton",
    "VLLM_CACHE_ROOT": "vllm",
}


def quiet_environment() -> None:
    """Switch telemetry off and shorten timeouts, unless the user has set a variable already.

    Also let idle OpenMP threads sleep, send requests to this machine past proxies, and move caches
    out of a home folder that cannot be written.
    """
    for name, value in {**TELEMETRY, **TIMEOUTS, **HEARTBEATS}.items():
        os.environ.setdefault(name, value)
    os.environ.update(yielding_threads(os.environ))
    os.environ.update(loopback_without_proxy(os.environ))
    os.environ.update(caches_without_home(os.environ))


def quiet_libraries() -> None:
    """Also silence the libraries that stages import; call it before they are imported."""
    import logging
    import warnings

    quiet_environment()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # FutureWarnings are for developers of the libraries' callers, not for users of a command.
    warnings.simplefilter("ignore", FutureWarning)
    # On CPUs with bf16 it recommends faster kernels as soon as PEFT imports it.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def yielding_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that let idle threads sleep; none if the user has set how they wait.

    OpenMP reads them once, when torch is imported. They change neither the number of threads nor
    any result.
    """
    return {} if any(name in environment for name in WAITING) else dict(YIELDING)


def loopback_without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `no_proxy` with this machine added, if a proxy is set; else nothing.

    The user's entries stay, in a form that all libraries accept: httpx fails on brackets and on
    IPv6 networks, and no Python library supports the latter.
    """
    proxies = [
        name for name, value in environment.items()
        if value and name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    ]  # fmt: skip
    if not proxies:
        return {}
    listed = f"{environment.get('no_proxy', '')},{environment.get('NO_PROXY', '')}"
    entries = [re.sub(r"^\[(.*)\](:\d+)?$", r"\1", entry) for entry in re.split(r"[,\s]+", listed)]
    hosts = [entry for entry in entries if entry and not _is_ipv6_network(entry)]
    value = "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    return {"no_proxy": value, "NO_PROXY": value}


def _is_ipv6_network(entry: str) -> bool:
    try:
        return "/" in entry and ipaddress.ip_network(entry, strict=False).version == 6
    except ValueError:
        return False


def caches_without_home(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that move caches out of a home folder that cannot be written.

    Caches then go below `LORI_CACHE`, else `XDG_CACHE_HOME`. A readable home folder is still read.
    """
    changes: dict[str, str] = {}
    user = _user()
    if user is None and not {"LOGNAME", "USER", "LNAME", "USERNAME"} & environment.keys():
        changes["USER"] = str(os.getuid())  # a container's user may have no name
    home = environment.get("HOME") or (user.pw_dir if user else "")
    cache = environment.get("LORI_CACHE") or environment.get("XDG_CACHE_HOME")
    there = bool(home) and os.path.isdir(home)  # noqa: PTH112 - never raises
    if not there or not os.access(home, os.R_OK | os.X_OK):
        if cache:
            changes["HOME"] = str(Path(cache).absolute() / "home")
        elif there or not home:  # libraries fail at import with such a home folder
            changes["HOME"] = NO_HOME
    elif cache and not os.access(home, os.W_OK):
        for name, folder in HOME_FOLDERS.items():
            if name not in environment:
                changes[name] = str(Path(cache).absolute() / folder)
    return changes


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        return None


def prefect_home(workspace: Path) -> dict[str, str]:
    """Return variables that put Prefect's database and files into a workspace.

    Empty if the user has set PREFECT_HOME. The user's profiles, with their API keys, are still
    read.
    """
    if os.environ.get("PREFECT_HOME"):
        return {}
    profiles = os.path.expanduser("~/.prefect/profiles.toml")  # noqa: PTH111 - never raises
    variables = {"PREFECT_HOME": str(workspace.resolve() / ".lori" / "prefect")}
    if os.access(profiles, os.R_OK) and "PREFECT_PROFILES_PATH" not in os.environ:
        variables["PREFECT_PROFILES_PATH"] = profiles
    return variables


def console_environment() -> None:
    """Shorten Prefect's console lines, unless the user has set a variable already."""
    for name, value in CONSOLE.items():
        os.environ.setdefault(name, value)


def child_environment(**variables: str) -> Mapping[str, str]:
    """Return the environment of a child process: quiet, with this Python's commands on PATH.

    Args:
        variables: variables to set in addition.
    """
    quiet_environment()
    tools = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    return {
        **os.environ,
        "PATH": path if path.split(os.pathsep)[0] == tools else tools + os.pathsep + path,
        # Lines reach the log at once.
        "PYTHONUNBUFFERED": "1",
        PARENT_VARIABLE: str(os.getpid()),
        **variables,
    }
