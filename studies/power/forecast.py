"""Forecast the time of an experiment's points, so that nobody starts days of work by mistake."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from lori_core.cost import Model
from lori_core.cost.model import examples_seen
from studies.builder import phase_of
from studies.points import Point, Score, Train

HOUR, DAY = 3600.0, 86_400.0


@dataclass(frozen=True)
class Forecast:
    """The forecast time of some points, one after another on one device.

    Attributes:
        trainings: the number of training runs.
        training_seconds: their time.
        scorings: the number of scorings.
        scoring_seconds: their time.
    """

    trainings: int
    training_seconds: float
    scorings: int
    scoring_seconds: float

    @property
    def seconds(self) -> float:
        """The time of all points."""
        return self.training_seconds + self.scoring_seconds


def forecast(points: Mapping[str, Point], wanted: Collection[str], model: Model) -> Forecast:
    """Return the forecast of some points.

    It is as coarse as `cost.Model`. A run has the rank of `lori.rank`, and a training limited to a
    number of steps takes that share of a whole one. A run that is equal to a learning rate's try is
    copied from it and costs nothing.

    Args:
        points: all points by name.
        wanted: the names of those that would run.
        model: the forecasts of single runs.
    """
    trainings = [p for name in wanted if isinstance(p := points[name], Train)]
    scorings = [p for name in wanted if isinstance(p := points[name], Score)]
    return Forecast(
        len(trainings),
        sum(_training(point, points, model) for point in trainings),
        len(scorings),
        sum(_scoring(point, model) for point in scorings),
    )


def _training(point: Train, points: Mapping[str, Point], model: Model) -> float:
    if any(_copies(point, points[name]) for name in point.tries):
        return 0.0
    return training_seconds(point, model)


def training_seconds(point: Train, model: Model) -> float:
    """Return the time of a training run; one of other `max_steps` takes its share of the usual."""
    phase = phase_of(point.method)
    usual = model.training(point.task, phase, point.method).seconds
    if point.training.max_steps is None:
        return usual
    each_epoch = model.splits[point.task]["train"].examples
    sections = (point.training, model.params.phase(point.task, phase))
    own, ordinary = (examples_seen(section, each_epoch) for section in sections)
    return model.start_seconds + own / max(1, ordinary) * (usual - model.start_seconds)


def _copies(point: Train, tried: Point) -> bool:
    """Return whether a point is the same run as a try, at the learning rate of the latter."""
    if not isinstance(tried, Train):
        return False
    training = point.training.model_copy(update={"learning_rate": tried.training.learning_rate})
    return point.model_copy(update={"training": training, "tries": ()}) == tried


def _scoring(point: Score, model: Model) -> float:
    generated = sum(model.scoring(task).seconds - model.start_seconds for task in point.scored)
    measured = sum(model.losses(task) for task in point.losses)
    return model.start_seconds + len(point.models) * (generated + measured)


def show(found: Forecast, device: str) -> Iterator[str]:
    """Yield the lines of a forecast.

    Args:
        found: the forecast.
        device: the device's name.
    """
    yield (
        f"forecast for one {device}, one point after another: {_time(found.seconds)} "
        f"({found.trainings} trainings {_time(found.training_seconds)}, {found.scorings} scorings "
        f"{_time(found.scoring_seconds)}), within a factor of two"
    )
    if found.seconds > DAY:
        yield (
            f"This is {found.seconds / DAY:.1f} days. For less, name fewer experiments, or set "
            "experiments.seeds, experiments.tasks, tasks.TASK.sizes or a smaller profile."
        )


def _time(seconds: float) -> str:
    if seconds >= DAY:
        return f"{seconds / DAY:.1f} days"
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds / 60:.0f} min"
