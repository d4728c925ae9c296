"""The figures: what they show, that nothing is told by colour alone, and what is left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from lori_core.methods.catalogue import BUILT_IN
from lori_core.report import figures as shared
from studies.analysis import specs
from studies.analysis.rows import Experiment, Row
from studies.page import figures, gaps, panels


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def titles(figure: object) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_visible() and axis.get_title()]  # type: ignore[attr-defined]


def test_each_experiment_has_its_figure() -> None:
    assert list(figures.FIGURES) == list(specs.SPECS)
    assert set(figures.WITH_LOSSES) < set(figures.FIGURES)


def test_single_task_draws_ours_over_the_papers(exact: dict[str, Experiment]) -> None:
    figure = figures.single_task(exact["single-task"])
    assert titles(figure)[:5] == [
        "nlu: accuracy, %",
        "math: exact match, %",
        "code: pass@1, %",
        "safety: refusal rate, %",
        "nlu: paper, Llama-3-8B",
    ]
    ours, papers = figure.axes[0], figure.axes[4]
    assert [t.get_text() for t in ours.get_yticklabels()] == [
        specs.METHODS[name] for name in ("base", *BUILT_IN)
    ]
    assert [t.get_text() for t in papers.get_yticklabels()][:2] == ["FFT", "LoRA"]
    drawn = [line for line in papers.get_lines() if line.get_marker() not in ("|", "None", None)]
    assert [float(line.get_xdata()[0]) for line in drawn][:3] == [83.1, 87.1, 87.1]


def test_a_task_with_losses_alone_is_drawn_by_them(exact: dict[str, Experiment]) -> None:
    single = exact["single-task"]
    rows = tuple(row for row in single.rows if row.metric != "pass_at_1")
    figure = figures.single_task(replace(single, rows=rows))
    assert titles(figure)[2] == "code: held-out loss, nats"


def test_three_methods_are_told_apart_without_colour() -> None:
    lori = [panels.LOOKS[method] for method in ("lora", "lori-d", "lori-s")]
    for part in ("marker", "hatch", "dash"):
        assert len({getattr(look, part) for look in lori}) == 3
    many = [panels.series(place) for place in range(5)]
    for part in ("marker", "hatch"):
        assert len({getattr(look, part) for look in many}) == 5
    assert {look.colour for look in lori} < set(shared.COLOURS)


def test_bars_have_their_intervals_and_a_missing_one_a_cross(exact: dict[str, Experiment]) -> None:
    experiment = exact["continual"]
    rows = tuple(
        row
        for row in experiment.rows
        if (row.factors["method"], row.factors["learned"]) != ("lori-s", "math")
    )
    figure = figures.continual(replace(experiment, rows=rows))
    axis = figure.axes[0]
    assert titles(figure) == [
        "Safety: refusal rate",
        "Safety: over-refusal",
        "Score on the learned task",
    ]
    assert len(axis.patches) == 11
    assert [line.get_marker() for line in axis.get_lines()].count("x") == 1
    hatches = {patch.get_hatch() for patch in axis.patches}
    assert len(hatches) == 3


def test_losses_are_points_since_a_bar_would_begin_at_nothing(exact: dict[str, Experiment]) -> None:
    figure = figures.FIGURES["granularity"](exact["granularity"])
    scores, losses = (axis for axis in figure.axes if axis.get_visible())
    assert len(scores.patches) == 5
    assert len(losses.patches) == 0
    assert losses.get_ylim()[0] > 50


def test_a_line_is_broken_where_a_level_is_missing(exact: dict[str, Experiment]) -> None:
    experiment = exact["calibration-steps"]
    rows = tuple(
        row
        for row in experiment.rows
        if (row.factors["calibration_steps"], row.task) != (8, "math")
    )
    figure = figures.calibration_steps(replace(experiment, rows=rows))
    line = figure.axes[0].get_lines()[0]
    assert [value != value for value in line.get_ydata()] == [False, False, True, False, False]


def test_the_grid_frames_the_best_rate_of_each_sparsity(exact: dict[str, Experiment]) -> None:
    figure = figures.grid(exact["sparsity-by-learning-rate"])
    for axis in figure.axes:
        frames = {(round(p.get_y() + 0.46), round(p.get_x() + 0.46)) for p in axis.patches}
        assert frames == {(0, 1), (1, 2), (2, 3), (3, 3)}


def test_the_front_joins_what_nothing_beats() -> None:
    figure, axis = plt.subplots()
    points = [(1.0, 5.0, "a"), (2.0, 4.0, "b"), (1.5, 3.0, "c"), (3.0, 1.0, "d")]
    panels.front(axis, points, 1, 1)
    assert list(axis.get_lines()[0].get_xdata()) == [1.0, 2.0, 3.0]
    figure, axis = plt.subplots()
    panels.front(axis, points, -1, 1)
    assert list(axis.get_lines()[0].get_xdata()) == [1.0]
    assert figure is not None


CUTS = {
    "one row": lambda rows: rows[:1],
    "no values": lambda rows: tuple(replace(row, value=None) for row in rows),
    "losses": lambda rows: tuple(row for row in rows if row.metric == "loss") or rows[:1],
    "one seed, no intervals": lambda rows: tuple(
        replace(row, low=None, high=None) for row in rows if row.seed == 1
    ),
    "safety": lambda rows: tuple(row for row in rows if row.task == "safety") or rows[:1],
}


@pytest.mark.parametrize(("name", "cut"), list(itertools.product(specs.SPECS, CUTS)))
def test_whatever_was_measured_is_drawn(name: str, cut: str, exact: dict[str, Experiment]) -> None:
    rows: tuple[Row, ...] = CUTS[cut](exact[name].rows)
    experiment = replace(exact[name], rows=rows)
    assert gaps.known(experiment) == (cut != "no values" and any(_shown(row, name) for row in rows))
    if gaps.known(experiment):
        figure = figures.FIGURES[name](experiment)
        assert figure.get_suptitle()


def _shown(row: Row, name: str) -> bool:
    return row.metric in (specs.SPECS[name].required or specs.MEASURES)
