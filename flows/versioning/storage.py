"""The DVC remote: set up by one setting, pushed to while a run goes on or at its end.

A push that fails costs nothing but itself: it is tried again, then reported, and the next run or a
plain `dvc push` sends what is still missing there.
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
#: Seconds before a push that failed is tried again, and again.
WAITS = (2.0, 10.0, 30.0)
#: What DVC needs for a URL of some kind, and the extra that brings it.
EXTRAS = {
    "s3": ("dvc_s3", "s3"),
    "gs": ("dvc_gs", "gs"),
    "azure": ("dvc_azure", "azure"),
    "ssh": ("dvc_ssh", "ssh"),
}


def configure(workspace: Path, remote: str) -> bool:
    """Make a folder or URL the workspace's default remote in `.dvc/config`; say if that changed.

    Raises:
        ConfigError: the kind of URL needs an extra that is not installed.
        LoriError: DVC refuses.
    """
    scheme, found, _ = remote.partition("://")
    if found and scheme in EXTRAS and find_spec(EXTRAS[scheme][0]) is None:
        raise ConfigError(
            f"storage.remote: {remote!r} needs an extra; pip install 'lori[{EXTRAS[scheme][1]}]'"
        )
    from dvc.exceptions import DvcException

    url = remote if found else str((workspace / Path(remote).expanduser()).resolve())
    try:
        with opened(workspace) as repo:
            config = repo.config
            known = config["remote"].get(NAME, {}).get("url")
            if config["core"].get("remote") == NAME and known == url:
                return False
            with config.edit("repo") as said:
                said["core"]["remote"] = NAME
                said["remote"][NAME] = said["remote"].get(NAME, {}) | {"url": url}
    except DvcException as error:
        raise LoriError(f"storage.remote: {' '.join(str(error).split())}") from error
    return True


class Pushing:
    """Sends what stages made, one push at a time, in a thread of its own.

    Args:
        workspace: a DVC workspace.
        section: `storage` of the parameters.
        warn: gets a line when a push has failed for good.
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
        """Set the remote up, and begin to listen."""
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
        """Send a finished stage's outputs, where that is asked for."""
        if self.when == "stage":
            self._waiting.put(name)

    def finish(self, *, everything: bool) -> list[str]:
        """Send the rest and wait for it; return what failed, a line each.

        Args:
            everything: whether the run ended well: then all that DVC tracks is sent.
        """
        if self._thread.is_alive():
            if everything:
                self._waiting.put("")
            self._waiting.put(None)
            self._thread.join()
        return self.failures

    def cancel(self) -> None:
        """Wait for no retry any more."""
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
            f"{what} was not sent to {self.remote} ({reason}); the run goes on, and dvc push sends "
            "it later"
        )


def push(workspace: Path, target: str) -> str:
    """Send a stage's outputs, or all that DVC tracks; return why it failed, or an empty text."""
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
    said = next((line for line in lines if line.startswith("ERROR")), lines[0] if lines else "")
    return redact(said.removeprefix("ERROR: "))[:200] or f"dvc push ended with {result.returncode}"
