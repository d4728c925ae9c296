"""What a deployment may be asked for: part of the pipeline, in types that Prefect checks."""

from __future__ import annotations

from typing import Any

import pytest

from flows.parameters import select
from flows.versioning.graph import Plan, Stage
from lori_core.core.errors import InputError

PARAMS = {"tasks": {"math": {}, "code": {}}}


def stage(name: str, *above: str) -> Stage:
    return Stage(name, above, 1, "", ())


PLAN = Plan(
    (
        stage("calibrate@code"),
        stage("calibrate@math"),
        stage("train@code", "calibrate@code"),
        stage("train@math", "calibrate@math"),
        stage("merge@concat", "train@code", "train@math"),
        stage("report", "merge@concat"),
    ),
    {"train@math": ["new stage"], "merge@concat": ["after train@math"]},
)


@pytest.mark.parametrize(
    ("tasks", "stages", "chosen", "stale"),
    [
        ([], [], [s.name for s in PLAN.stages], ["train@math", "merge@concat"]),
        (["math"], [], ["calibrate@math", "train@math"], ["train@math"]),
        ([], ["train@code"], ["calibrate@code", "train@code"], []),
        (["code"], ["calibrate"], ["calibrate@code"], []),
        ([], ["calibrate"], ["calibrate@code", "calibrate@math"], []),
        (
            [],
            ["merge"],
            ["calibrate@code", "calibrate@math", "train@code", "train@math", "merge@concat"],
            ["train@math", "merge@concat"],
        ),
    ],
)
def test_what_was_asked_for_and_what_it_stands_on(
    tasks: list[str], stages: list[str], chosen: list[str], stale: list[str]
) -> None:
    plan = select(PLAN, PARAMS, tasks, stages)
    assert [s.name for s in plan.stages] == chosen
    assert list(plan.stale) == stale


@pytest.mark.parametrize(
    ("tasks", "stages", "said"),
    [
        (
            ["maths"],
            [],
            "tasks: task 'maths' is unknown; did you mean 'math'? (allowed: code, math)",
        ),
        ([], ["tran"], "stages: stage 'tran' is unknown; did you mean 'train'?"),
        (["math"], ["merge"], "stages: merge: none of them belongs to the tasks math"),
    ],
)
def test_what_there_is_not_is_refused(tasks: list[str], stages: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        select(PLAN, PARAMS, tasks, stages)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"profile": "smok"}, "profile"),
        ({"overrides": ["lori.rank"]}, "overrides"),
        ({"tasks": ["../math"]}, "tasks"),
        ({"stages": ["train@math; rm"]}, "stages"),
        ({"experiments": ["granularities"]}, "experiments"),
        ({"gate": "perhaps"}, "gate"),
    ],
)
@pytest.mark.real
def test_a_wrong_parameter_is_refused_by_its_type(wrong: dict[str, Any], field: str) -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.pipeline import pipeline

    with pytest.raises(ParameterTypeError, match=field):
        pipeline.validate_parameters(wrong)


@pytest.mark.real
def test_the_form_offers_profiles_and_experiments() -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.pipeline import pipeline

    fields = parameter_schema(pipeline).model_dump()["properties"]
    assert "smoke" in fields["profile"]["anyOf"][0]["enum"]
    assert "all" in fields["experiments"]["anyOf"][0]["items"]["enum"]
    assert [fields[name]["position"] for name in ("profile", "tasks", "gate")] == [0, 2, 5]
