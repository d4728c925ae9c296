"""The GPUs of a Ray cluster, by what its nodes report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.execution.gpu_slots import Card

#: Ray's names of GPUs, and the memory of the smallest GPU of each name, rounded down.
ACCELERATORS = {
    "H200": Card(140e9, True),
    "H100": Card(79e9, True),
    "A100": Card(39e9, True),
    "A100-40G": Card(39e9, True),
    "A100-80G": Card(79e9, True),
    "L40S": Card(47e9, True),
    "A10G": Card(23e9, True),
    "L4": Card(23e9, True),
    "T4": Card(15e9, False),
}
_ACCELERATOR = "accelerator_type:"


def card_of(nodes: Sequence[Mapping[str, Any]]) -> Card | None:
    """Return the memory and arithmetic that all GPUs of a cluster have; None if not reported.

    Args:
        nodes: as `ray.nodes()` lists them.
    """
    cards = []
    for node in _with_gpus(nodes):
        named = [
            n.removeprefix(_ACCELERATOR) for n in node["Resources"] if n.startswith(_ACCELERATOR)
        ]
        known = [ACCELERATORS[name] for name in named if name in ACCELERATORS]
        if not known:
            return None
        cards += known
    if not cards:
        return None
    return Card(min(card.memory for card in cards), all(card.bfloat16 for card in cards))


def stages_per_gpu(nodes: Sequence[Mapping[str, Any]], setting: int | str) -> int:
    """Return how many stages may run on each GPU: a node's Ray CPUs divided by its GPUs.

    Args:
        nodes: as `ray.nodes()` lists them.
        setting: `execution.share_gpus`; a number is returned as it is.
    """
    if isinstance(setting, int):
        return setting
    each = [n["Resources"].get("CPU", 0) / n["Resources"]["GPU"] for n in _with_gpus(nodes)]
    return max(1, int(min(each, default=1)))


def _with_gpus(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [node for node in nodes if node["Alive"] and node["Resources"].get("GPU")]
