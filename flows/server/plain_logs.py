"""Shorten Prefect's log lines about failed tasks, and drop the repeated ones."""

from __future__ import annotations

import logging
import re


def plain_logs() -> None:
    """Add the filter to the logger of Prefect's task runs, once."""
    logger = logging.getLogger("prefect.task_runs")
    if _plain not in logger.filters:
        logger.addFilter(_plain)


def _plain(record: logging.LogRecord) -> bool:
    """Rewrite a record in place; return False for a record that repeats another one."""
    if record.exc_info and record.exc_info[0] is None:
        # Prefect logs a failed state with an empty `exc_info`, which prints `NoneType: None`.
        record.exc_info = None
    message = record.getMessage()
    if not message.startswith(("Task run failed with state:", "Finished in state NotReady")):
        return True
    if message.startswith("Finished in state NotReady"):
        record.msg, record.args = "not run: a stage it needs failed", ()
        return True
    retry = re.search(r"Retry \d+/\d+ will start .*$", message)
    if retry is None:
        return False  # the next line repeats it: Finished in state Failed('…')
    match = re.search(r"message='(.*?)', type=", message, re.DOTALL)
    record.msg = "%s; %s"
    record.args = (match.group(1) if match else "failed", retry.group(0).lower())
    return True
