"""A fork server: a process that has imported the stages' libraries and forks once for each stage.

A stage's imports take many times longer than a fork. The server uses no device and starts no Python
thread; the libraries stop their own threads in their fork handlers. A request holds the command's
arguments, folder, environment, resource limits and streams (`lori_core.core.processes.forked`). For
each request the server forks a warden process, which starts and watches the command
(`lori_core.core.processes.forked_command`). When the server dies, wardens and commands go on, and
later commands start as ordinary processes.

The server listens before it imports, so that commands which start meanwhile wait for its imports
instead of importing the same libraries themselves.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.environment import QUIET, child_environment, quiet_libraries
from flows.versioning.dvc import dvc_repo
from lori_core.core.processes import forked, forked_command
from lori_core.core.processes.forked import (
    VARIABLE,
    import_variables,
    interpreter,
    receive,
    send,
)

PREFIX = "lori-fork-"
#: The groups of commands of `lori_cli`, all of which its parser imports.
COMMANDS = (
    "adapters", "evaluation", "experiments", "extraction", "lineage", "listings", "pipeline",
    "planning", "preflight.interference", "serving", "starting",
)  # fmt: skip
#: Modules that take long to import. A model's own module is imported when a stage loads the model.
MODULES = (
    "torch", "transformers.models.llama.modeling_llama", "transformers.trainer", "peft",
    "peft.utils.transformers_weight_conversion", "ruamel.yaml.mergevalue",
    "scipy.linalg", "scipy.stats", *dvc_repo.MODULES, "flows.machine",
    "flows.versioning.dvc.code_files", "flows.versioning.dvc.definition",
    *(f"lori_cli.{name}" for name in COMMANDS),
    "lori_core.adapters.masks.mask_file", "lori_core.core.processes.allotment",
    "lori_core.data.sources.pulling", "lori_core.evaluation.excess",
    "lori_core.methods.lori.calibration", "lori_core.methods.lori.continual",
    "lori_core.evaluation.evaluate", "lori_core.merging.merge", "lori_core.merging.interference",
    "lori_core.pipeline.running", "lori_core.pipeline.params_file", "lori_core.methods.tuning",
)  # fmt: skip
#: Lets torch count GPUs without initializing CUDA, which does not survive a fork.
NVML_CHECK = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


@contextmanager
def serving(workspace: Path, modules: Sequence[str] = MODULES) -> Iterator[None]:
    """Run a fork server while a pipeline runs; put its address into `LORI_FORK_SERVER`.

    No server is started if `LORI_FORK_SERVER` is set already: another flow runs one, or the
    empty value switches it off. The socket lies in a folder that only this user can read; output
    goes to `.lori/logs/fork.log`. The server ends with this process, even if this one is killed.
    """
    if VARIABLE in os.environ or not sys.platform.startswith("linux"):
        yield
        return
    _remove_left_over()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    process = _start(workspace, [str(folder / "socket"), *modules])
    try:
        with variables({VARIABLE: str(folder / "socket")}):
            yield
    finally:
        process.stdin.close()  # type: ignore[union-attr]  # the server stops at end of file
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(workspace: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    log = workspace / ".lori" / "logs" / "fork.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.execution.fork_server", *arguments],
            cwd=workspace,
            env=dict(child_environment()),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _remove_left_over() -> None:
    """Remove the folders of flows that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        left = number.isdecimal() and not Path("/proc", number).exists()
        with contextlib.suppress(OSError):
            if left and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


class Server:
    """The listening socket, and the conditions under which a request is forked."""

    def __init__(
        self, listening: socket.socket, environment: Mapping[str, str], started: int
    ) -> None:
        self.listening, self.environment, self.started = listening, environment, started
        self.files = _stamps(_sources())

    def serve(self) -> None:
        """Fork for each request until standard input ends."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are reaped by the kernel
        while True:
            ready, _, _ = select.select([self.listening.fileno(), sys.stdin.fileno()], [], [])
            if sys.stdin.fileno() in ready:
                return
            connection, _ = self.listening.accept()
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(forked.CONNECT_SECONDS)
        try:
            request, streams = receive(connection, 3)
            reason = "the request is incomplete" if request is None else self._refusal(request)
            if request is None or reason:
                print("not forked:", reason, flush=True)
                send(connection, {"refused": reason})
            elif _has_gone(connection):
                print("not forked: the client has gone", flush=True)
            elif os.fork() == 0:
                self.listening.close()
                connection.settimeout(None)
                forked_command.run(connection, request, streams)
        except (OSError, ValueError) as error:
            print("not forked:", error, flush=True)
        for stream in streams:
            os.close(stream)

    def _refusal(self, request: Mapping[str, Any]) -> str:
        """Return why a command must start as a process of its own; empty if it can be forked."""
        if request["interpreter"] != interpreter():
            return f"another interpreter or other CPUs: {request['interpreter']}"
        requested = QUIET | import_variables(request["environment"])
        for name in sorted({*requested, *self.environment}):
            if requested.get(name) != self.environment.get(name):
                return f"the variable {name} differs from the server's"
        files = _stamps(self.files)
        if files != self.files or max(changed for changed, _ in files.values()) > self.started:
            return "code was changed since the server imported it"
        if threading.active_count() > 1:
            return "the server has started a thread"
        return "the server has loaded CUDA" if _maps("libcuda.so") else ""


def _has_gone(connection: socket.socket) -> bool:
    """Return whether the client ended while its request waited for the server's imports."""
    ready, _, _ = select.select([connection], [], [], 0)
    return bool(ready) and not connection.recv(1, socket.MSG_PEEK)


def _maps(library: str) -> bool:
    return library in Path("/proc/self/maps").read_text(encoding="utf-8")


def _sources() -> list[str]:
    """Return the source file of each imported module."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return [file for file in files if file is not None]


def _stamps(files: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return the modification time (ns) and size (bytes) of each file; zeros if it is missing."""
    stamps = {}
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116  # thousands of files before each fork
        except OSError:
            stamps[file] = (0, 0)
        else:
            stamps[file] = (status.st_mtime_ns, status.st_size)
    return stamps


def main() -> None:
    """Listen, import the modules, then serve until the flow's process ends."""
    path, *modules = sys.argv[1:]
    started = time.time_ns()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    quiet_libraries()
    environment = import_variables(os.environ)
    gc.disable()
    with variables(NVML_CHECK):
        for module in modules:
            with contextlib.suppress(ImportError):  # of another version of DVC, say
                importlib.import_module(module)
    _prepare_tables()
    # Imported objects are never freed: the stages' garbage collectors skip them, and so do not
    # copy their memory pages.
    gc.freeze()
    gc.enable()
    _keep_finalizers()
    Server(listening, environment, started).serve()


def _keep_finalizers() -> None:
    """Let no fork call the finalizers of what this server has imported, when the fork ends.

    torch alone has hundreds. They free what the kernel frees anyway, and a library's temporary
    folder belongs to this process. Those that a stage registers are called as ever.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


def _prepare_tables() -> None:
    """Let transformers compile its patterns for weight names once, before any fork."""
    module = sys.modules.get("transformers.conversion_mapping")
    if module is not None:
        module.get_checkpoint_conversion_mapping("llama")


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the `with` block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        # Only these: other threads may have set other variables meanwhile.
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


if __name__ == "__main__":
    main()
