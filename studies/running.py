"""Run one point: read its settings and its parents' files, write its own files."""

from __future__ import annotations

from pathlib import Path

from lori_core.core.files.atomic import replaced_folder, write_json
from lori_core.core.tracking import RunTracker
from studies.points import (
    FACTS,
    Collect,
    Orthogonality,
    Score,
    SparsityMap,
    Train,
    folder_of,
    load,
)
from studies.results import Row


def run(name: str, tracker: RunTracker) -> None:
    """Run one point of `experiments/points.json`.

    Raises:
        InputError: there is no point of that name.
    """
    point = load(name)
    tracker.start(name)
    tracker.params(point.model_dump(mode="json"))
    if isinstance(point, Collect):
        from studies.collecting import collect

        write_json(point.path, collect(point))
    else:
        with replaced_folder(folder_of(name)) as work:
            write_json(work / FACTS, _run(point, name, work, tracker))
        tracker.artifact(folder_of(name))
    tracker.end()


def _run(
    point: Train | Score | SparsityMap | Orthogonality, name: str, work: Path, tracker: RunTracker
) -> Row:
    """Run a point, write its files to `work`, and return its measurements."""
    from studies import measuring, scoring, training

    match point:
        case Train():
            return training.train(point, name, work, tracker)
        case Score():
            return scoring.score(point, work, tracker)
        case SparsityMap():
            return measuring.sparsity_map(point)
        case Orthogonality():
            return measuring.orthogonality(point)
