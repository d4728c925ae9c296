"""Set up the DVC remote of `storage.remote`, and push to it during a run or at its end.

A push that fails does not stop the run: it is retried, then reported, and the next run or
`dvc push` sends what is still missing.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flows.environment import child_environment
from flows.versioning.dvc.dvc_repo import opened
from lori_core.core.errors import ConfigError, LoriError
from lori_core.core.redaction import redact

NAME = "lori"
#: Seconds before each retry of a failed push.
WAITS = (2.0, 10.0, 30.0)
#: By scheme of URL, the module that DVC needs and the extra that installs it.
EXTRAS = {
    "s3": ("dvc_s3", "s3"),
    "gs": ("dvc_gs", "gs"),
    "azure": ("dvc_azure", "azure"),
    "ssh": ("dvc_ssh", "ssh"),
}


def configure(workspace: Path, remote: str) -> bool:
    """Set a folder or URL as default remote in `.dvc/config`; return whether that changed it.

    Raises:
        ConfigError: the URL's scheme needs an extra that is not installed.
        LoriError: DVC fails.
    """
    scheme, separator, _ = remote.partition("://")
    if separator and scheme in EXTRAS and find_spec(EXTRAS[scheme][0]) is None:
        raise ConfigError(
            f"storage.remote: {remote!r} needs an extra; pip install 'lori[{EXTRAS[scheme][1]}]'"
        )
    from dvc.exceptions import DvcException

    url = remote if separator else str((workspace / Path(remote).expanduser()).resolve())
    try:
        with opened(workspace) as repo:
            config = repo.config
            known = config["remote"].get(NAME, {}).get("url")
            if config["core"].get("remote") == NAME and known == url:
                return False
            with config.edit("repo") as edited:
                edited["core"]["remote"] = NAME
                edited["remote"][NAME] = edited["remote"].get(NAME, {}) | {"url": url}
    except DvcException as error:
        raise LoriError(f"storage.remote: {' '.join(str(error).split())}") from error
    return True


class Pushing:
    """Pushes the outputs of stages, one push at a time, in a thread of its own.

    Args:
        workspace: a DVC workspace.
        section: the section `storage` of the parameters.
        warn: called with a line when a push has failed after all retries.
    """

    def __init__(
        self, workspace: Path, section: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        self.workspace = workspace
        self.remote = section.get("remote")
        self.when = str(section.get("push", "end")) if self.remote else "never"
        self.retries = int(section.get("retries", 3))
        self.warn = warn
        self.failures: list[str] = []
        self._waiting: queue.Queue[str | None] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="pushing", daemon=True)

    def start(self) -> None:
        """Set up the remote and start the thread."""
        if self.when == "never":
            return
        try:
            configure(self.workspace, str(self.remote))
        except LoriError as error:
            self._failed("the remote", str(error))
            self.when = "never"
            return
        self._thread.start()

    def stage(self, name: str) -> None:
        """Push a finished stage's outputs if `storage.push` is `stage`."""
        if self.when == "stage":
            self._waiting.put(name)

    def finish(self, *, everything: bool) -> list[str]:
        """Push the rest and wait for it; return the failures, a line each.

        Args:
            everything: whether to push all that DVC tracks, as after a successful run.
        """
        if self._thread.is_alive():
            if everything:
                self._waiting.put("")
            self._waiting.put(None)
            self._thread.join()
        return self.failures

    def cancel(self) -> None:
        """Stop retrying failed pushes."""
        self._stop.set()

    def _work(self) -> None:
        while (target := self._waiting.get()) is not None:
            self._push(target)

    def _push(self, target: str) -> None:
        reason = ""
        for attempt in range(self.retries + 1):
            if attempt and self._stop.wait(WAITS[min(attempt, len(WAITS)) - 1]):
                break
            reason = push(self.workspace, target)
            if not reason:
                return
        self._failed(target or "the run", reason)

    def _failed(self, what: str, reason: str) -> None:
        self.failures.append(f"{what}: {reason}")
        self.warn(
            f"{what} was not pushed to {self.remote} ({reason}); the run goes on, and dvc push "
            "sends it later"
        )


def push(workspace: Path, target: str) -> str:
    """Push a stage's outputs, or all that DVC tracks; return why it failed, empty if it did not.

    Args:
        workspace: a DVC workspace.
        target: a stage; empty for all that DVC tracks.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "push", "-q"]
    result = subprocess.run(
        [*command, *([target] if target else [])],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
        env=dict(child_environment()),
    )
    if result.returncode == 0:
        return ""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    error = next((line for line in lines if line.startswith("ERROR")), lines[0] if lines else "")
    return redact(error.removeprefix("ERROR: "))[:200] or f"dvc push: exit code {result.returncode}"
