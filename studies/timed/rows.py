"""Write the rows of the points that have finished, also of experiments that are not complete."""

from __future__ import annotations

from collections.abc import Mapping

from lori_core.core.files.atomic import write_json
from studies.collecting import rows_of, sizes
from studies.points import Collect, Point
from studies.results import Row
from studies.timed.records import Record


class RowsWriter:
    """Writes `metrics/experiments/NAME.json` from records."""

    def __init__(
        self, points: Mapping[str, Point], experiments: list[Collect], records: Mapping[str, Record]
    ) -> None:
        self._points = points
        self._experiments = experiments
        self._records = records
        self._sizes: dict[str, Row] = {}
        self._written: dict[str, int] = {}

    def write(self) -> None:
        """Write the file of each experiment that has more finished points than at the last call.

        An experiment without a finished point gets no file.
        """
        for experiment in self._experiments:
            count = self.finished(experiment)
            if count > self._written.get(experiment.experiment, 0):
                write_json(experiment.path, self._content(experiment, count))
                self._written[experiment.experiment] = count

    def finished(self, experiment: Collect) -> int:
        """Return how many points of an experiment have finished."""
        return sum(name in self._records for name in experiment.parents)

    def _content(self, experiment: Collect, count: int) -> Row:
        cells = [cell for cell in experiment.cells if cell.point in self._records]
        rows = [
            row
            for cell in cells
            for row in rows_of(cell, self._points[cell.point], self._records[cell.point].facts)
        ]
        if experiment.experiment not in self._sizes:
            self._sizes[experiment.experiment] = sizes(experiment)
        used = [self._records[name] for name in dict.fromkeys(cell.point for cell in cells)]
        machines = {record.machine or "not recorded" for record in used}
        versions = {", ".join(f"{n} {v}" for n, v in sorted(r.versions.items())) for r in used}
        info = experiment.info | self._sizes[experiment.experiment]
        info |= {
            "machine": "; ".join(sorted(machines)),
            "versions": "; ".join(sorted(versions - {""})),
        }
        if count < len(experiment.parents):
            info["finished"] = f"{count} of {len(experiment.parents)} points"
        return {"experiment": experiment.experiment, "info": info, "rows": rows}
