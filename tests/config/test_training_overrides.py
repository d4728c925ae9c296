"""Which stages train, and what `params.yaml` says for each."""

from typing import Any

import pytest

from lori_core.config.training_overrides import override_sections, processes

VALUES: dict[str, Any] = {
    "training": {"processes": 2},
    "tasks": {
        "math": {"calibration": {"processes": 4}, "training": {"learning_rate": 0.1}},
        "code": {"training": {"processes": 8}},
        "nlu": None,
    },
    "continual": {"training": {"processes": 16}},
}


@pytest.mark.parametrize(
    ("stage", "count"),
    [
        ("calibrate@math", 4),
        ("train@math", 2),
        ("train@code", 8),
        ("continual@code", 16),
        ("train@nlu", 2),
        ("train@unheard", 2),
        ("mask@math", 1),
        ("report", 1),
    ],
)
def test_the_last_section_decides_how_many_processes(stage: str, count: int) -> None:
    assert processes(VALUES, stage) == count


@pytest.mark.parametrize("values", [None, {}, {"training": None}, {"training": {"processes": "x"}}])
def test_what_is_no_count_counts_as_one(values: Any) -> None:
    assert processes(values, "train@math") == 1


def test_the_safety_phase_changes_what_the_task_says() -> None:
    assert override_sections("code", "continual") == ["tasks.code.training", "continual.training"]
