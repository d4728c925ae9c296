"""Prefect's log lines about failed tasks, in words that say what happened and nothing twice."""

from __future__ import annotations

import logging
import re


def plain_logs() -> None:
    """Filter what Prefect's engine says about tasks; calling it again changes nothing."""
    logger = logging.getLogger("prefect.task_runs")
    if _plain not in logger.filters:
        logger.addFilter(_plain)


def _plain(record: logging.LogRecord) -> bool:
    """Rewrite a record in place; return whether it is worth a line."""
    if record.exc_info and record.exc_info[0] is None:
        # A failed state is logged with `exc_info` though nothing was raised: `NoneType: None`.
        record.exc_info = None
    message = record.getMessage()
    if not message.startswith(("Task run failed with state:", "Finished in state NotReady")):
        return True
    if message.startswith("Finished in state NotReady"):
        record.msg, record.args = "not run: a stage it needs failed", ()
        return True
    retry = re.search(r"Retry \d+/\d+ will start .*$", message)
    if retry is None:
        return False  # the next line says it again: Finished in state Failed('…')
    said = re.search(r"message='(.*?)', type=", message, re.DOTALL)
    record.msg = "%s; %s"
    record.args = (said.group(1) if said else "failed", retry.group(0).lower())
    return True
