"""The figures of `frozen-a` and `projections`."""

from __future__ import annotations

from typing import Any

from studies.analysis.doubts.tables import LEARNED_ALONE, MERGED
from studies.analysis.rows import Experiment
from studies.analysis.specs import METHODS, WAYS_OF_A
from studies.page import panels


def frozen_a(experiment: Experiment) -> Any:
    """Draw scores and losses over the rank, with a line for each method."""
    entries = [
        panels.Entry(METHODS[method], panels.series(place), {"method": method})
        for place, method in enumerate(experiment.levels("method"))
    ]
    labels = [f"{rank:g}" for rank in experiment.levels("rank")]
    figure = panels.lines(experiment, "rank", labels, entries)
    title = "A trained and a frozen A, each at the best of the same learning rates"
    return panels.finish(figure, title, legend=True)


def projections(experiment: Experiment) -> Any:
    """Draw the losses of adapters alone and merged, with a row for each way to draw A."""
    sides = (("alone", LEARNED_ALONE), ("merged", MERGED))
    entries = [
        panels.Entry(
            f"A {WAYS_OF_A[way]}: {side}", panels.series(place), {"projection": way, **where}
        )
        for place, way in enumerate(experiment.levels("projection"))
        for side, where in sides
    ]
    figure = panels.dots(experiment, entries, experiment.measures("loss"), lambda *_: None)
    title = "Held-out loss alone and merged, nats per example (less is better)"
    return panels.finish(figure, title)
