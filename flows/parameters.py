"""The types of the flow's parameters, which Prefect shows as a form and checks before a run starts.

The limits of a value are part of its type, so that the server refuses a wrong value at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from flows.versioning import graph
from lori_core.config.experiments import EXPERIMENTS
from lori_core.core.errors import InputError, unknown
from lori_core.core.redaction import pattern_of_secrets

_PROFILES = tuple(sorted(p.stem for p in Path(__file__).parents[1].glob("profiles/*.yaml")))

if TYPE_CHECKING:
    Profile = str
    Experiment = str
else:
    #: A name from `lori experiment --list`, or `all`.
    Experiment = Literal[(*EXPERIMENTS, "all")]
    #: The name of a file in `profiles/`; the form lists them.
    Profile = Literal[_PROFILES] if _PROFILES else str

#: The pattern of an override, which keeps passwords and tokens out of the server's database. It
#: refuses known forms of secrets, query parameters with encoded names, and URLs with a password.
OVERRIDE = (
    rf"^(?!.*(?:{pattern_of_secrets()}))(?!.*[?&;#][^=&]*%[^=&]*=)"
    r"[A-Za-z0-9_.-]+=([^@]*|[^/]*|[^@]*://[^@:/]*@[^@]*)$"
)


def _without_secrets(text: str) -> str:
    if not re.search(OVERRIDE, text):  # pydantic's regular expressions have no lookahead
        raise ValueError("must be key=value, without a password or token (set it as a variable)")
    return text


Override = Annotated[
    str,
    AfterValidator(_without_secrets),
    Field(
        json_schema_extra={"pattern": OVERRIDE},
        description="key=value, as in lori.rank=16; no password (set it as a variable)",
    ),
]
Task = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="as in math")]
StageName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-]+(@[A-Za-z0-9_.-]+)?$",
        description="a step for all its items, as in train, or one stage, as in train@math",
    ),
]


def select(
    plan: graph.Plan, params: dict[str, Any], tasks: Sequence[str], stages: Sequence[str]
) -> graph.Plan:
    """Return the plan of the selected stages and of all stages they depend on.

    Args:
        plan: the plan of all stages.
        params: the content of `params.yaml`.
        tasks: the tasks whose stages are selected; empty for all.
        stages: the steps (`train`) or stages (`train@math`) that are selected; empty for all.

    Raises:
        InputError: there is no such task or stage.
    """
    known = params.get("tasks") or {}
    for task in tasks:
        if task not in known:
            raise InputError(f"tasks: {unknown('task', task, known)}")
    names = [stage.name for stage in plan.stages]
    steps = {name.partition("@")[0] for name in names}
    for stage in stages:
        if stage not in names and stage not in steps:
            raise InputError(f"stages: {unknown('stage', stage, {*names, *steps})}")
    wanted = {
        name
        for name in names
        if (not tasks or name.partition("@")[2] in tasks)
        and (not stages or name in stages or name.partition("@")[0] in stages)
    }
    if not wanted and (tasks or stages):
        raise InputError(
            f"stages: {', '.join(stages)}: none of them belongs to the tasks {', '.join(tasks)}"
        )
    needed = wanted.union(*(graph.ancestors(plan, name) for name in wanted))
    chosen = tuple(stage for stage in plan.stages if stage.name in needed)
    return graph.Plan(chosen, {name: why for name, why in plan.stale.items() if name in needed})
