"""An engine: strictly one stage after another, for debugging.

With this file under `extensions` in params.yaml, `execution.engine: in-turn` runs stages by it.
"""

from lori_core import engine


@engine(name="in-turn", label="In turn", about="one stage after another on this machine")
class InTurn:
    def __init__(self, run):
        self.run = run

    def check(self, stages):
        """Refuse nothing: a stage that wants more GPUs than there are gets all of them."""

    def where(self):
        return "this machine, one after another"

    def execute(self, plan, options):
        from flows.execution.tasks import run_stage

        task, done = run_stage.with_options(**options), {}
        for stage in plan.stages:
            above = [name for name in stage.dependencies if name in plan.stale]
            ready = all(name in done and done[name].state.is_completed() for name in above)
            if stage.name in plan.stale and ready:
                done[stage.name] = task.submit(stage=stage.name, gpus=stage.gpus, run=self.run)
                done[stage.name].wait()
        return done
