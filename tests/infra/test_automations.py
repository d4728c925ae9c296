"""The automations that infra/automations.yaml describes are valid, and wait for our events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from flows.serving.gate import EVENTS

FILE = Path(__file__).parents[2] / "infra" / "automations.yaml"


def automations() -> list[Any]:
    from prefect.events.schemas.automations import AutomationCore

    listed = yaml.safe_load(FILE.read_text(encoding="utf-8"))["automations"]
    return [AutomationCore.model_validate(one) for one in listed]


def test_the_automations_are_valid_and_disabled_until_a_block_is_named() -> None:
    assert [(one.name, one.enabled) for one in automations()] == [
        ("lori: the gate refused a candidate", False),
        ("lori: a run failed", False),
    ]


def test_the_triggers_wait_for_the_events_that_are_emitted() -> None:
    gate, failed = (one.trigger for one in automations())
    assert gate.expect == {EVENTS[False]}
    assert gate.match.matches({"prefect.resource.id": "lori.model.lori"})
    assert failed.expect == {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}
