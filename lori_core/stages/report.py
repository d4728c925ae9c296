"""`report`: the page, its pictures, and the table that ends a run."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.stages.results import EVALUATIONS, METRICS, REPORT
from lori_core.tracking import RunTracker


def report(params: Params, tracker: RunTracker) -> None:
    """Draw the pictures, the page, and the table that ends a run."""
    from lori_core.report import page

    summary = page.write(params, METRICS, EVALUATIONS, REPORT)
    tracker.metrics(summary["metrics"])
    tracker.artifact(REPORT)
