"""An engine that runs strictly one stage after another, as a debugger likes it.

`params.yaml` names this file under `extensions` and has `execution.engine: in-turn`.
"""

from flows.execution.tasks import run_stage
from lori_core.engines import engine


@engine("in-turn")
class InTurn:
    def __init__(self, run):
        self.run = run

    def check(self, stages):
        """Nothing to refuse: a stage that wants more GPUs than there are gets all of them."""

    def where(self):
        return "this machine, one after another"

    def execute(self, plan, options):
        done = {}
        for stage in plan.stages:
            above = [name for name in stage.dependencies if name in plan.stale]
            ready = all(name in done and done[name].state.is_completed() for name in above)
            if stage.name in plan.stale and ready:
                task = run_stage.with_options(**options)
                done[stage.name] = task.submit(stage=stage.name, gpus=stage.gpus, run=self.run)
                done[stage.name].wait()
        return done
