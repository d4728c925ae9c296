"""The labels in the figure of the ways to keep safety."""

import pytest

from studies.page.safety_figure import spread


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        ([], []),
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ([0.0, 0.0, 0.05], [0.0, 0.1, 0.2]),
        ([0.95, 1.0, 1.0], [0.8, 0.9, 1.0]),
        ([0.2, 0.95, 0.97], [0.2, 0.9, 1.0]),
    ],
)
def test_labels_are_apart_and_inside(wanted: list[float], written: list[float]) -> None:
    assert spread(wanted, 0.1) == pytest.approx(written)
