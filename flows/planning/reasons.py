"""The reasons why stages would run, in short or in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from flows.versioning.graph import Plan
from lori_core.core.errors import InputError, unknown

#: Beginnings of the reasons of `graph.plan` that are counted if there are several of one kind.
KINDS = {
    "parameter ": "{} parameters changed",
    "input lori_core/": "{} files of code changed",
    "input code/": "{} stages' code changed",
    "input ": "{} inputs changed",
    "output ": "{} outputs changed",
    "after ": "after {} stages",
}


def in_short(reasons: Iterable[str]) -> str:
    """Return the reasons of a stage as one short line; `unchanged` if there are none."""
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        kind = next((start for start in KINDS if reason.startswith(start)), reason)
        groups.setdefault(kind, []).append(reason)
    texts = [
        each[0] if len(each) == 1 else KINDS[kind].format(len(each))
        for kind, each in groups.items()
    ]
    return "; ".join(texts) or "unchanged"


def show(planned: Plan) -> Iterator[str]:
    """Yield a line for each stage: whether it would run, and the reasons."""
    for stage in planned.stages:
        why = planned.stale.get(stage.name, ())
        yield f"{'run' if why else 'keep':6} {stage.name:28} {in_short(why)}"


def of_stage(planned: Plan, name: str) -> Sequence[str]:
    """Return all reasons of one stage.

    Raises:
        InputError: there is no such stage.
    """
    names = [stage.name for stage in planned.stages]
    if name not in names:
        raise InputError(f"--why: {unknown('stage', name, names)}")
    return planned.stale.get(name) or ["unchanged"]
