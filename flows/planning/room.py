"""Room on the disk for what a run will write, looked at before the first stage begins."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.core.cache import cache_folder
from lori_core.core.errors import InputError, LoriError

if TYPE_CHECKING:
    from lori_core.config import Params

#: More than this a stage writes only where its base is large: what it adds to the base's own bytes.
STAGE_BYTES = 64 * 2**20
#: Float32 values where the base has 16 bits, in DVC's cache and in the workspace.
TIMES_BASE = 4


def check(workspace: Path, values: Mapping[str, Any], stages: Collection[str]) -> None:
    """Refuse to begin a run that would fill the disk.

    Args:
        workspace: where it runs.
        values: its parameters, as plain values.
        stages: the names of the stages that have to run.

    Raises:
        InputError: what they write does not fit.
    """
    free = shutil.disk_usage(workspace).free
    if not stages or _is_plenty(free, values, len(stages)):
        return
    from lori_core.pipeline import params_file

    try:
        params = params_file.load(workspace / "params.yaml")
        needed = written(params, stages) * _copies(workspace)
    except LoriError:
        return  # wrong parameters, or no base: the stages say so
    if free < needed:
        raise InputError(
            f"{workspace}: {free / 1e6:.0f} MB free, and this run's {len(stages)} stages write "
            f"about {needed / 1e6:.0f} MB; free some space, or run fewer tasks (lori plan says "
            "what each stage costs)"
        )


def written(params: Params, stages: Collection[str]) -> float:
    """Return how many bytes the outputs of some stages take, by the model of cost.

    Raises:
        LoriError: the base's shapes cannot be read.
    """
    from lori_core import cost

    model = cost.Model(params, _assumed(params), cost.DEVICES["h100"])
    return sum(model.stage(name).written for name in stages)


def _assumed(params: Params) -> Any:
    """Return splits of the assumed size: outputs but for generations do not depend on the data."""
    from lori_core.cost.examples import EXAMPLES, TARGET, TOKENS, Split

    return {
        task: {name: Split(size, TOKENS, TARGET, "assumed") for name, size in EXAMPLES.items()}
        for task in params.tasks
    }


def _is_plenty(free: int, values: Mapping[str, Any], stages: int) -> bool:
    """Say whether there is room whatever the stages do; an estimate takes seconds."""
    name = str((values.get("model") or {}).get("name_or_path") or "")
    try:
        local = Path(name).expanduser()
        folder = local if local.is_dir() else cache_folder() / "models" / name.replace(":", "-")
        base = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    except (InputError, OSError, RuntimeError):
        return False
    return base > 0 and free > stages * (TIMES_BASE * base + STAGE_BYTES)


def _copies(workspace: Path) -> int:
    """Return how often an output lies on the workspace's disk: there, and in DVC's cache."""
    cache = workspace / ".dvc" / "cache"
    there = cache if cache.exists() else workspace
    return 2 if there.stat().st_dev == workspace.stat().st_dev else 1
