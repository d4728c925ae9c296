"""Why stages would run: counted where there are many reasons, in full for one stage."""

from __future__ import annotations

import pytest

from flows.planning.reasons import in_short, of_stage, show
from flows.versioning.graph import Plan, Stage
from lori_core.core.errors import InputError

WHY = [
    "command changed",
    "parameter lori.rank changed (8 → 16)",
    "parameter lori.seed changed (1 → 2)",
    "input lori_core/adapters/masks/mask.py changed",
    "input data/math/train.jsonl changed",
    "input data/base.json changed",
    "after calibrate@math",
]
PLAN = Plan((Stage("mask@math", (), 1, "", ()), Stage("report", (), 0, "", ())), {"mask@math": WHY})


def test_several_reasons_of_one_kind_are_counted() -> None:
    assert in_short(WHY) == (
        "command changed; 2 parameters changed; input lori_core/adapters/masks/mask.py changed; "
        "2 inputs changed; after calibrate@math"
    )
    assert in_short(["input lori_core/a.py changed", "input lori_core/b.py changed"]) == (
        "2 files of code changed"
    )
    assert in_short([]) == "unchanged"


def test_a_plan_has_a_line_for_each_stage() -> None:
    first, second = show(PLAN)
    assert first.split()[:2] == ["run", "mask@math"]
    assert second.split() == ["keep", "report", "unchanged"]


def test_the_reasons_of_one_stage_are_given_in_full() -> None:
    assert of_stage(PLAN, "mask@math") == WHY
    assert of_stage(PLAN, "report") == ["unchanged"]
    with pytest.raises(InputError, match=r"--why: .*'mask@maths'.*did you mean 'mask@math'"):
        of_stage(PLAN, "mask@maths")
