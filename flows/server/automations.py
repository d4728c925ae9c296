"""An automation of the Prefect server: a flow run without heartbeats is set to `Crashed`.

`python -m flows.server.automations` creates or updates it on the server.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from flows.environment import quiet_environment

NAME = "lori: a silent run has crashed"
#: Six heartbeats (`flows.environment`): a live process never misses that many.
SILENCE = timedelta(seconds=180)
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


async def write() -> None:
    """Create or update the automation on the server that `PREFECT_API_URL` names."""
    quiet_environment()
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    trigger = EventTrigger(
        match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        after={HEARTBEAT},
        expect={HEARTBEAT, *(f"prefect.flow-run.{end}" for end in ENDS)},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    message = f"no sign of life for {SILENCE.seconds} s: its process or its machine is gone"
    action = ChangeFlowRunState(
        name="Crashed", state=StateType.CRASHED, message=message, force=False
    )
    wanted = Automation(name=NAME, trigger=trigger, actions=[action])
    try:
        known = await Automation.aread(name=NAME)
    except ValueError:
        await wanted.acreate()
    else:
        wanted.id = known.id
        await wanted.aupdate()


if __name__ == "__main__":
    asyncio.run(write())
