"""Switches that must be in the environment before Prefect, MLflow or DVC are imported."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from lori_core.core.processes.child import PARENT_VARIABLE

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


#: No notices of transformers, and no bars but ours.
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

#: A thread of OpenMP that has nothing to do sleeps. By default it spins, and takes a core from the
#: thread that it waits for wherever more threads than cores want to run.
YIELDING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
#: Variables by which users say how threads wait; one that is set makes all of it their own choice.
WAITING = (*YIELDING, "GOMP_SPINCOUNT")

#: Where no home folder is known; what is kept below it is refused with a message.
NO_HOME = "/nonexistent"

#: This machine, as its services are addressed.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: Folders that libraries would make in the home folder.
HOME_FOLDERS = {
    "MPLCONFIGDIR": "matplotlib",
    "TRITON_HOME": "triton",
    "VLLM_CACHE_ROOT": "vllm",
}


def quiet_environment() -> None:
    """Turn telemetry off and patience down, unless the user has set a variable already.

    Also let idle threads of OpenMP sleep, keep requests to this machine away from proxies, and
    libraries out of a home folder that they cannot use.
    """
    for name, value in {**TELEMETRY, **PATIENCE, **SIGNS_OF_LIFE}.items():
        os.environ.setdefault(name, value)
    os.environ.update(yielding_threads(os.environ))
    os.environ.update(loopback_without_proxy(os.environ))
    os.environ.update(caches_without_home(os.environ))


def quiet_libraries() -> None:
    """Make what stages import quiet, too; before any of it is imported."""
    import logging
    import warnings

    quiet_environment()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # Libraries announce changes of libraries to whoever writes code, not to who runs this command.
    warnings.simplefilter("ignore", FutureWarning)
    # On CPUs with bf16 it says, as soon as PEFT imports it, which faster kernels it would like.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def yielding_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that let idle threads sleep; none where the user has said how they wait.

    OpenMP reads them once, when torch is imported. How many threads there are stays as it is, and
    so do all results.
    """
    return {} if any(name in environment for name in WAITING) else dict(YIELDING)


def loopback_without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `no_proxy` with this machine in it, where a proxy is named; else nothing.

    The user's entries stay, written so that all libraries take them: httpx fails on brackets and
    on networks of IPv6, and no library in Python honours the latter.
    """
    proxies = [
        name for name, value in environment.items()
        if value and name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    ]  # fmt: skip
    if not proxies:
        return {}
    said = f"{environment.get('no_proxy', '')},{environment.get('NO_PROXY', '')}"
    entries = [re.sub(r"^\[(.*)\](:\d+)?$", r"\1", entry) for entry in re.split(r"[,\s]+", said)]
    kept = [entry for entry in entries if entry and not _is_ipv6_network(entry)]
    value = "*" if "*" in kept else ",".join(dict.fromkeys([*kept, *LOOPBACK]))
    return {"no_proxy": value, "NO_PROXY": value}


def _is_ipv6_network(entry: str) -> bool:
    try:
        return "/" in entry and ipaddress.ip_network(entry, strict=False).version == 6
    except ValueError:
        return False


def caches_without_home(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that make a home folder unnecessary, where there is none to write to.

    Caches then go below `LORI_CACHE`, else `XDG_CACHE_HOME`. A home folder that can be read is
    still read.
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
        elif there or not home:  # libraries fail on these when they are imported
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
    """Return variables that keep Prefect's database and files in a workspace.

    None where the user has named a place. The user's profiles, with their keys to servers, are
    still read.
    """
    if os.environ.get("PREFECT_HOME"):
        return {}
    profiles = os.path.expanduser("~/.prefect/profiles.toml")  # noqa: PTH111 - never raises
    found = {"PREFECT_HOME": str(workspace.resolve() / ".lori" / "prefect")}
    if os.access(profiles, os.R_OK) and "PREFECT_PROFILES_PATH" not in os.environ:
        found["PREFECT_PROFILES_PATH"] = profiles
    return found


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
