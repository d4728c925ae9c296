"""What a deployment may be asked for: types that Prefect checks before a run begins, and its form.

The limits of a value stand in its type, so that the server refuses a wrong one when it is typed.
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
    #: What `lori experiment --list` says.
    Experiment = Literal[(*EXPERIMENTS, "all")]
    #: A file in `profiles/`; the form offers them.
    Profile = Literal[_PROFILES] if _PROFILES else str

#: A value with a password or token would be kept by the server, which reads only this pattern: no
#: secret by its form, nor a parameter of a query whose name is encoded; and no @, or no URL, or one
#: with a user alone.
OVERRIDE = (
    rf"^(?!.*(?:{pattern_of_secrets()}))(?!.*[?&;#][^=&]*%[^=&]*=)"
    r"[A-Za-z0-9_.-]+=([^@]*|[^/]*|[^@]*://[^@:/]*@[^@]*)$"
)


def _without_secrets(text: str) -> str:
    if not re.search(OVERRIDE, text):  # pydantic's own expressions cannot look ahead
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
    """Return the plan of what was asked for: these tasks' stages, these steps, what they stand on.

    Args:
        plan: of everything.
        params: `params.yaml`, read.
        tasks: only their stages; all where empty.
        stages: only these; all where empty.

    Raises:
        InputError: there is no such task or stage.
    """
    known = params.get("tasks") or {}
    for task in tasks:
        if task not in known:
            raise InputError(f"tasks: {unknown('task', task, known)}")
    names = [stage.name for stage in plan.stages]
    steps = {name.partition("@")[0] for name in names}
    for asked in stages:
        if asked not in names and asked not in steps:
            raise InputError(f"stages: {unknown('stage', asked, {*names, *steps})}")
    wanted = {
        name
        for name in names
        if (not tasks or name.partition("@")[2] in tasks)
        and (not stages or name in stages or name.partition("@")[0] in stages)
    }
    if not wanted and (tasks or stages):
        raise InputError(
            f"stages: {', '.join(stages)}: none of them is of the tasks {', '.join(tasks)}"
        )
    below = wanted.union(*(graph.ancestors(plan, name) for name in wanted))
    chosen = tuple(stage for stage in plan.stages if stage.name in below)
    return graph.Plan(chosen, {name: why for name, why in plan.stale.items() if name in below})
