"""The order of points: the most important experiments first, each point after its parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from studies.points import Collect, Point

#: The seeds with which all experiments run before any runs with others: three give an interval.
FIRST_SEEDS = 3


def ordered(points: Mapping[str, Point], experiments: Iterable[Collect]) -> list[str]:
    """Return the names of the points to train and score.

    The experiments come in the order in which they are named, each seed by seed; first all of them
    with the first `FIRST_SEEDS` seeds, then all with the other seeds.

    Args:
        points: all points by name.
        experiments: the experiments, the most important one first.
    """
    experiments = list(experiments)
    result: dict[str, None] = {}
    for later in (False, True):
        for experiment in experiments:
            seeds = list(dict.fromkeys(cell.seed for cell in experiment.cells))
            for seed in seeds[FIRST_SEEDS:] if later else seeds[:FIRST_SEEDS]:
                for cell in experiment.cells:
                    if cell.seed == seed:
                        _add(cell.point, points, result)
    return list(result)


def _add(name: str, points: Mapping[str, Point], result: dict[str, None]) -> None:
    if name in result:
        return
    for parent in points[name].parents:
        _add(parent, points, result)
    result[name] = None


def needed(
    order: Iterable[str], points: Mapping[str, Point], recorded: set[str], with_files: set[str]
) -> list[str]:
    """Return the points that have to run, in their order.

    A recorded point whose files are missing, such as one that ran on another machine, runs again
    if a point that has to run reads them.

    Args:
        order: the points, parents first.
        points: all points by name.
        recorded: the points that have a valid record.
        with_files: the recorded points whose files are here.
    """
    names = list(order)
    wanted: set[str] = set()
    for name in reversed(names):
        if name not in recorded:
            wanted.add(name)
        if name in wanted:
            wanted.update(p for p in points[name].parents if p not in with_files)
    return [name for name in names if name in wanted]
