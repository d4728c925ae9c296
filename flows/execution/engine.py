"""What an engine is: it takes a plan and runs its stages somewhere.

The flow knows engines by this protocol alone. `lori_core.registries.engine` registers a class as
one; `examples/extensions/engine.py` is a complete example.
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
    """What Prefect's task runners give back for a stage."""

    @property
    def state(self) -> Any:
        """The state the task is in."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended."""


class Engine(Protocol):
    """Runs the stages of one pipeline run."""

    def __init__(self, run: PipelineRun) -> None:
        """Keep the run; nothing is started yet."""

    def check(self, stages: Sequence[Stage]) -> None:
        """Refuse stages that could never run here, before anything has begun.

        Raises:
            InputError: naming the setting.
        """

    def where(self) -> str:
        """Return where stages run, as in `12 stages on 2 GPUs`."""

    def execute(self, plan: Plan, options: Mapping[str, Any]) -> Mapping[str, Future]:
        """Run each stale stage once all that it depends on has completed; return their futures.

        A stage behind one that failed never starts: it has no future, or one that stays pending.

        Args:
            plan: the stages, each after its dependencies, and which of them are stale.
            options: for `with_options` of the Prefect task, as `flows.execution.tasks.run_stage`.
        """


def engine_of(run: PipelineRun) -> Engine:
    """Return the engine that the run's `execution.engine` names.

    Raises:
        ConfigError: there is none of that name.
    """
    name = str(run.execution.get("engine", "local"))
    if name not in ENGINES:
        raise ConfigError(f"execution.engine: {unknown('engine', name, ENGINES)}")
    return cast("Engine", ENGINES[name].find()(run))
