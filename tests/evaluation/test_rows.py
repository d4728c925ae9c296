"""Which row of an evaluation is about an artifact, now and as version 0.1.0 named them."""

from __future__ import annotations

import pytest

from lori_core.evaluation.rows import row_of


@pytest.mark.parametrize("own", ["adapter", "lori-s"])
@pytest.mark.parametrize("order", [1, -1])
def test_an_adapter_and_its_calibrated_adapter_have_a_row_each(own: str, order: int) -> None:
    rows = [own, "lori-d"][::order]
    assert row_of("artifacts/math/adapter", rows) == own
    assert row_of("artifacts/math/calibrated", rows) == "lori-d"


@pytest.mark.parametrize("row", ["adapter", "lori-s", "concat", "continual"])
def test_a_single_row_belongs_to_the_artifact(row: str) -> None:
    assert row_of("artifacts/math/adapter", [row]) == row
