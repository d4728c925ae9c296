"""Check before the first stage that the outputs of a run fit on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.core.cache import cache_folder
from lori_core.core.errors import InputError, LoriError

if TYPE_CHECKING:
    from lori_core.config import Params

#: An upper bound of the bytes that a stage writes is `TIMES_BASE` times its base plus this.
STAGE_BYTES = 64 * 2**20
#: Float32 instead of 16-bit values, in DVC's cache and in the workspace: twice two.
TIMES_BASE = 4


def check(workspace: Path, values: Mapping[str, Any], stages: Collection[str]) -> None:
    """Refuse to start a run that would fill the disk.

    Args:
        workspace: the folder of the run.
        values: the run's parameters as plain values.
        stages: the names of the stages that will run.

    Raises:
        InputError: the outputs do not fit.
    """
    free = shutil.disk_usage(workspace).free
    if not stages or _is_plenty(free, values, len(stages)):
        return
    from lori_core.pipeline import params_file

    try:
        params = params_file.load(workspace / "params.yaml")
        needed = written(params, stages) * _copies(workspace)
    except LoriError:
        return  # invalid parameters or no base: the stages report that
    if free < needed:
        raise InputError(
            f"{workspace}: {free / 1e6:.0f} MB free, and this run's {len(stages)} stages write "
            f"about {needed / 1e6:.0f} MB; free some space, or run fewer tasks (lori plan shows "
            "the cost of each stage)"
        )


def written(params: Params, stages: Collection[str]) -> float:
    """Return the bytes of the outputs of some stages, by the cost model.

    Raises:
        LoriError: the base model's shapes cannot be read.
    """
    from lori_core import cost

    model = cost.Model(params, _assumed(params), cost.DEVICES["h100"])
    return sum(model.stage(name).written for name in stages)


def _assumed(params: Params) -> Any:
    """Return splits of assumed size, since hardly any output depends on the amount of data."""
    from lori_core.cost.examples import EXAMPLES, TARGET, TOKENS, Split

    return {
        task: {name: Split(size, TOKENS, TARGET, "assumed") for name, size in EXAMPLES.items()}
        for task in params.tasks
    }


def _is_plenty(free: int, values: Mapping[str, Any], stages: int) -> bool:
    """Return whether there is room even for an upper bound; the exact estimate takes seconds."""
    name = str((values.get("model") or {}).get("name_or_path") or "")
    try:
        local = Path(name).expanduser()
        folder = local if local.is_dir() else cache_folder() / "models" / name.replace(":", "-")
        base = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    except (InputError, OSError, RuntimeError):
        return False
    return base > 0 and free > stages * (TIMES_BASE * base + STAGE_BYTES)


def _copies(workspace: Path) -> int:
    """Return how many copies of an output lie on the workspace's disk: 2 with DVC's cache."""
    cache = workspace / ".dvc" / "cache"
    folder = cache if cache.exists() else workspace
    return 2 if folder.stat().st_dev == workspace.stat().st_dev else 1
