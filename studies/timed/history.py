"""Tell DVC which points have finished, in a workspace that has DVC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from flows.versioning import graph
from flows.versioning.dvc.dvc_repo import Commits, committing


def has_dvc(workspace: Path) -> bool:
    """Return whether DVC is installed and the folder is one of its workspaces."""
    return find_spec("dvc") is not None and (workspace / ".dvc").is_dir()


class History:
    """DVC's knowledge of the experiments' stages; empty where there is no DVC."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._stages: dict[str, str] = {}
        self._commits: Commits
        self.current: set[str] = set()
        if has_dvc(workspace):
            plan = graph.plan(workspace, graph.EXPERIMENTS)
            self._stages = {stage.name.rpartition(":")[2]: stage.name for stage in plan.stages}
            stale = set(plan.stale)
            self.current = {point for point, name in self._stages.items() if name not in stale}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open DVC's repository, which `commit` needs, inside the `with` block."""
        if not self._stages:
            yield
            return
        with committing(self._workspace) as self._commits:
            yield

    def commit(self, stage: str, *, rewritten: bool = False) -> None:
        """Commit a stage whose outputs are complete; `write` writes `experiments/dvc.lock`.

        Args:
            stage: a point, or the report.
            rewritten: whether its outputs may differ from those that DVC knows.
        """
        if stage not in self._stages or (stage in self.current and not rewritten):
            return
        self._commits.save(self._stages[stage])
        self.current.add(stage)

    def write(self) -> None:
        """Write the entries of the committed stages into `experiments/dvc.lock`."""
        if self._stages:
            self._commits.write()
