"""The stage `report`: the page with tables and figures."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.results import EVALUATIONS, METRICS, REPORT


def report(params: Params, tracker: RunTracker) -> None:
    """Write the report's page, figures and summary; report the summary's metrics."""
    from lori_core.report import page

    summary = page.write(params, METRICS, EVALUATIONS, REPORT)
    tracker.metrics(summary["metrics"])
    tracker.artifact(REPORT)
