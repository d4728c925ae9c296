"""The parameters in force for the stages of two artifacts, compared.

A stage of one task reads that task's own sections, as `tasks.math.method`: they are compared with
the own sections of the other artifact's task. Of `training` and the sections that override it for
the stage, only the value in force is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flows.lineage.ancestry import Node
from flows.versioning.snapshot import leaves
from lori_core.config.training_overrides import PHASES, Phase, override_sections

NOTHING = "(not there)"
#: The sections that have one entry for each task or merge.
_BY_ITEM = ("tasks", "merge")
#: The phase whose overrides a stage reads: those that train, and the masks of a calibration.
_PHASES: dict[str, Phase] = {**PHASES, "mask": "calibration"}


def differing(one: Node, two: Node) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name and both values of each parameter that is not the same for both stages.

    Args:
        one: an artifact.
        two: the artifact that it is compared with; it may be another task's.

    Returns:
        The name of the section that holds for the stage, both names if the two stages follow
        different sections; and the two values, `NOTHING` where a stage has no such parameter.
    """
    first, second = _in_force(one), _in_force(two)
    for key in sorted({*first, *second}):
        names = [side[key][0] for side in (first, second) if key in side]
        left, right = (side[key][1] if key in side else NOTHING for side in (first, second))
        if left != right:
            # A task without an override follows `training`: then the other's override is named.
            overrides = [name for name in names if name != key]
            yield ", ".join(dict.fromkeys(overrides or names)), left, right


def _in_force(node: Node) -> dict[str, tuple[str, Any]]:
    """Return a stage's parameters as key -> name in `params.yaml` and value.

    The key is the name without the stage's own task or merge, and an override's that of `training`.
    """
    step, _, item = (node.stage.name if node.stage else "").partition("@")
    overriding = override_sections(item, _PHASES[step]) if step in _PHASES else []
    params = dict(leaves(node.params))
    values = {
        _key(name, item): (name, value)
        for name, value in params.items()
        if not any(name.startswith(f"{section}.") for section in overriding)
    }
    for section in overriding:  # the last one wins
        for name, value in params.items():
            if name.startswith(f"{section}."):
                values[f"training{name.removeprefix(section)}"] = (name, value)
    return values


def _key(name: str, item: str) -> str:
    for section in _BY_ITEM:
        own = f"{section}.{item}."
        if item and name.startswith(own):
            return f"{section}.*.{name.removeprefix(own)}"
    return name
