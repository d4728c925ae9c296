"""The checks of `lori doctor`: whether this machine is ready for a run, a line for each finding."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from flows import machine
from flows.doctor import services
from flows.doctor.finding import Check, Finding
from flows.environment import quiet_environment
from flows.versioning import git
from flows.versioning.dvc.dvc_repo import dead_locks, read_rwlock, rwlock_file
from lori_core.core.errors import LoriError
from lori_core.core.redaction import redact, redacted

#: The packages whose versions are shown.
CORE = ("torch", "transformers", "peft", "accelerate", "prefect", "dvc", "mlflow", "fastapi",
        "sqlalchemy")  # fmt: skip


def examine(workspace: Path) -> Iterator[Finding]:
    """Run all checks and yield their findings one by one; change nothing, never wait long.

    A check that raises an error yields that error as its finding; the other checks still run.
    """
    quiet_environment()
    params: Mapping[str, Any] = {}
    checks: list[Check] = [
        python, versions, settings, engine, gpus, sandbox, needs, repository,
        services.prefect, services.mlflow, services.remotes, services.ray, services.clock,
        locks,
    ]  # fmt: skip
    try:
        params = _params(workspace)
    except LoriError as error:
        yield Finding("params.yaml", False, str(error), "correct that key")
        checks.remove(settings)
    for check in checks:
        try:
            yield from check(workspace, params)
        except LoriError as error:
            yield Finding(check.__name__, False, str(error), "see above")
        except Exception as error:  # the findings of the next checks may explain it
            yield Finding(check.__name__, False, f"{type(error).__name__}: {error}", "see above")


def _params(workspace: Path) -> Mapping[str, Any]:
    from lori_core.pipeline import params_file

    values: Mapping[str, Any] = params_file.load(workspace / "params.yaml").model_dump()
    return values


def python(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that Python is 3.11 or newer."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    yield Finding("python", ok, version, "install Python 3.11 or newer, then make setup")


def versions(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check every requirement of the project against the installed packages."""
    wrong = list(_unmet(metadata.requires("lori") or []))
    if wrong:
        yield Finding("packages", False, "; ".join(wrong), "make setup")
    else:
        core = ", ".join(f"{name} {metadata.version(name)}" for name in CORE)
        yield Finding("packages", True, core)


def _unmet(requirements: list[str]) -> Iterator[str]:
    from packaging.requirements import Requirement

    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield f"{requirement.name} is not installed"
            continue
        if installed not in requirement.specifier:
            yield f"{requirement.name} {installed} is installed, {requirement.specifier} is needed"


def settings(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Report that `params.yaml` is valid."""
    yield Finding("params.yaml", True, f"{len(params['tasks'])} tasks, every key checked")


def engine(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that the extras which the settings need are installed."""
    from flows.extras import missing

    wanted = {
        "execution.engine: ray": ("ray", params.get("execution", {}).get("engine") == "ray"),
        "model.quantization": ("quantization", bool(params.get("model", {}).get("quantization"))),
    }
    needed = {setting: extra for setting, (extra, applies) in wanted.items() if applies}
    for what, extra in needed.items():
        lacking = missing(extra)
        text = f"{what} needs {', '.join(lacking)}" if lacking else f"{what}: installed"
        yield Finding("extras", not lacking, text, f"pip install 'lori[{extra}]'")
    if not needed:
        yield Finding("extras", True, "the settings need none")


def gpus(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the driver's GPUs, whether PyTorch can use them, and their free memory."""
    listed = nvidia_smi()
    wanted = params.get("execution", {}).get("gpus", "auto")
    if listed is None or not listed:
        seen = "no NVIDIA driver" if listed is None else "a driver, but no GPU"
        required = isinstance(wanted, int)
        need = f"{seen}; execution.gpus is {wanted}"
        yield Finding(
            "gpu",
            not required,
            need if required else f"{seen}: stages use the CPU",
            "install the driver, or set execution.gpus to auto",
        )
        return
    yield Finding("gpu", True, "; ".join(listed))
    import torch

    built = torch.version.cuda
    yield Finding(
        "torch",
        torch.cuda.is_available(),
        f"torch {torch.__version__} for CUDA {built}"
        + ("" if torch.cuda.is_available() else " cannot use these GPUs"),
        "install a torch for this driver (nvidia-smi shows the newest CUDA that it supports)",
    )
    free = [_free_share(index) for index in range(torch.cuda.device_count())]
    busy = [str(index) for index, share in enumerate(free) if share < 0.9]
    yield Finding(
        "gpu memory",
        not busy,
        f"GPU {', '.join(busy)}: in use by other processes" if busy else "free",
        "end the processes that use them (nvidia-smi), or exclude them by CUDA_VISIBLE_DEVICES",
    )


def _free_share(index: int) -> float:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    return float(free) / float(total)


def nvidia_smi() -> list[str] | None:
    """Return `name, memory, driver` of each GPU; None if there is no working driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines() if done.returncode == 0 else None


def sandbox(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that generated code can run isolated, by running a trivial program."""
    from lori_core.evaluation.sandbox.sandbox import Isolation, detect, why_not

    way = detect()
    if way is not Isolation.none:
        yield Finding("sandbox", True, f"generated code runs isolated, by {way}")
        return
    unsafe = bool(params.get("evaluation", {}).get("unsafe_code"))
    why = why_not(Isolation.bubblewrap)
    yield Finding(
        "sandbox",
        unsafe,
        "generated code runs with all rights of this user (evaluation.unsafe_code)"
        if unsafe
        else f"generated code cannot be run isolated, and is refused: {why}",
        "apt-get install bubblewrap; in a container allow it user namespaces and mounts "
        "(infra/seccomp.json, docs/cluster.md)",
    )


def needs(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Run the checks that every run makes before it starts (`flows.machine`)."""
    for name, requirement in machine.CHECKS.items():
        try:
            yield Finding(name, True, requirement(workspace, params))
        except LoriError as error:
            yield Finding(name, False, str(error))


def repository(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Report the commit that a run records."""
    try:
        head = git.head(workspace)
    except LoriError as error:
        yield Finding("git", False, str(error))
        return
    if head is None or head.commit is None:
        yield Finding("git", True, "no commit yet" if head else "no repository")
    else:
        changed = " with changes" if head.changed else ""
        yield Finding("git", True, f"commit {head.commit[:10]}{changed}")


def locks(workspace: Path, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Find a running pipeline, and locks of dead processes."""
    from flows.lock import holder, pipeline_runs

    if pipeline_runs(workspace):
        text = f"a pipeline runs here now (process {holder(workspace)})"
        yield Finding("pipeline", True, text)
    left = [*_dvc_locks(workspace), *_git_locks(workspace), *_services(workspace)]
    for what, todo in left:
        yield Finding("locks", False, what, todo)
    if not left:
        yield Finding("locks", True, "none left behind")


def _dvc_locks(workspace: Path) -> Iterator[tuple[str, str]]:
    """Yield the path locks of killed DVC processes, which the next pipeline here drops."""
    path = rwlock_file(workspace)
    entries = read_rwlock(path)
    if entries is None:
        todo = f"lori run repairs it; for DVC alone, delete {path}"
        yield f"{path} is damaged: its writer was killed", todo
        return
    gone = {entry["pid"]: locked for _, locked, entry in dead_locks(entries)}
    for pid, locked in sorted(gone.items()):
        text = f"DVC's lock on {locked} by process {pid}, which is gone"
        yield text, f"lori run drops it; for DVC alone, delete {path}"


def _git_locks(workspace: Path) -> Iterator[tuple[str, str]]:
    path = git.index_lock(workspace)
    if (
        path is not None
        and path.exists()
        and time.time() - path.stat().st_mtime > services.CLOCK_SECONDS
    ):
        yield f"{path} was left by a git command", f"delete {path} if no git command runs"


def _services(workspace: Path) -> Iterator[tuple[str, str]]:
    from flows.server.services import status

    gone = [name for name, alive in status(workspace).items() if not alive]
    if gone:
        yield f"{', '.join(gone)} of `make up` ended by itself (.lori/logs)", "make down; make up"


def as_rows(findings: Iterator[Finding]) -> list[dict[str, Any]]:
    """Return the findings as rows: `name`, `ok`, `text` and `todo`, without secrets."""
    return [dict(redacted(asdict(finding))) for finding in findings]


def show(findings: Iterator[Finding], *, colour: bool) -> int:
    """Print the findings; return 0 if all are good, else 1."""
    bad = 0
    for finding in findings:
        mark, code = ("ok ", 32) if finding.ok else ("BAD", 31)
        mark = f"\033[{code}m{mark}\033[0m" if colour else mark
        todo = "" if finding.ok or not finding.todo else f" → {finding.todo}"
        print(redact(f"{mark}  {finding.name:12} {finding.text}{todo}"), flush=True)
        bad += not finding.ok
    return 1 if bad else 0
