"""`python -m flows.execution.stage_process STAGE`: let DVC reproduce one stage in this process.

It works like `dvc --wait-for-lock repro --single-item STAGE`, with three differences: it ends when
the flow ends, even if the flow is killed; it prints the stage's output and DVC's warnings, but not
DVC's progress messages; and it returns the exit code of the stage's command, where DVC returns 255.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
from pathlib import Path

from flows.environment import quiet_environment
from flows.versioning.dvc import lock_io
from flows.versioning.dvc.dvc_repo import opened, parameters_read_once
from lori_core.core.processes.child import die_with_parent


def main(arguments: list[str]) -> int:
    """Reproduce one stage and return the exit code of its command, 255 if DVC itself failed."""
    die_with_parent()
    # Raises SystemExit, so that DVC releases its path locks; the stage gets SIGTERM, too, because
    # the signal goes to the process group.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    quiet_environment()
    (stage,) = arguments
    return reproduce(stage)


def reproduce(stage: str) -> int:
    """Let DVC run one stage if it is stale; wait for DVC's lock, which is held only briefly.

    `dvc.lock` records the parameters of the stage's start, even if the file is changed meanwhile.
    """
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.stage.exceptions import StageCmdFailedError

    try:
        with (
            set_loggers_level(logging.WARNING),
            opened(Path.cwd(), is_checked=True) as repo,
            parameters_read_once(),
            lock_io.reading_only(stage.rpartition(":")[2]),
        ):
            repo.reproduce(stage, single_item=True)
    except DvcException as error:
        chain = _causes(error)
        for cause in chain:
            if isinstance(cause, StageCmdFailedError):
                return _exit_code(cause)
        print("dvc:", ": ".join(" ".join(str(cause).split()) for cause in chain), file=sys.stderr)
        return 255
    return 0


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__
    return chain


def _exit_code(error: BaseException) -> int:
    # DVC keeps the code only in its text: "failed to run: COMMAND, exited with 2".
    match = re.search(r"exited with (-?\d+)$", str(error))
    code = int(match.group(1)) if match else 1
    # A command ended by a signal has a negative code; a shell returns 128 + signal.
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
