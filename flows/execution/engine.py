"""The protocol of engines, which run the stages of a plan.

The flow uses engines through this protocol only. `lori_core.registries.engine` registers a class
as an engine; `examples/extensions/engine.py` is a complete example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from lori_core.core.errors import ConfigError, unknown
from lori_core.registries.engine import ENGINES

if TYPE_CHECKING:
    from flows.execution.stage_run import PipelineRun
    from flows.versioning.graph import Plan, Stage


class Future(Protocol):
    """The future that Prefect's task runners return for a submitted stage."""

    @property
    def state(self) -> Any:
        """The state the task is in."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended."""


class Engine(Protocol):
    """Runs the stages of one pipeline run."""

    def __init__(self, run: PipelineRun) -> None:
        """Store the run; start nothing yet."""

    def check(self, stages: Sequence[Stage]) -> None:
        """Refuse stages that could never run here, before the first stage starts.

        Raises:
            InputError: a stage cannot run here; the message names the setting.
        """

    def where(self) -> str:
        """Return where stages run, e.g. `2 GPUs` in the message `12 stages on 2 GPUs`."""

    def execute(self, plan: Plan, options: Mapping[str, Any]) -> Mapping[str, Future]:
        """Run each stale stage after its dependencies have completed; return the futures.

        A stage that depends on a failed stage never starts: it has no future, or a future that
        stays pending.

        Args:
            plan: the stages, each after its dependencies, and which of them are stale.
            options: arguments of `with_options` of the Prefect task, such as
                `flows.execution.tasks.run_stage`.
        """


def engine_of(run: PipelineRun) -> Engine:
    """Return the engine that the run's `execution.engine` names.

    Raises:
        ConfigError: no engine of that name is registered.
    """
    name = str(run.execution.get("engine", "local"))
    if name not in ENGINES:
        raise ConfigError(f"execution.engine: {unknown('engine', name, ENGINES)}")
    return cast("Engine", ENGINES[name].find()(run))
