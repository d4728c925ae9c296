"""The stage `mask`: select the most important entries of B (paper, section 2.1)."""

from __future__ import annotations

from typing import Any

from lori_core.adapters.masks.importances import KINDS
from lori_core.config import Params
from lori_core.core import source_code
from lori_core.core.files.atomic import digest
from lori_core.core.stage_dependencies import MASKING
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.base import open_base
from lori_core.pipeline.masks import calibrated_by, write_unused
from lori_core.pipeline.results import METRICS, calibrated_path, mask_path, write_metrics

#: The facts that determine a mask, besides the code.
_KEY_FACTS = ("calibration", "sparsity", "scope", "importance", "structure")


def mask(params: Params, task: str, tracker: RunTracker) -> None:
    """Compute and save a task's mask; write a placeholder if the task's method has no mask."""
    from lori_core.adapters import adapter_file
    from lori_core.adapters.masks import mask_file
    from lori_core.methods.lori.calibration import take_mask

    if calibrated_by(params, task) is None:
        write_unused(params, task, mask_path(task), METRICS / "mask", tracker)
        return
    calibrated = adapter_file.load(calibrated_path(task))
    chosen, threshold = take_mask(lambda: open_base(params), calibrated, params.lori, task)
    facts = {
        "sparsity": str(params.lori.exact_sparsity()),
        "scope": params.lori.mask_scope,
        "importance": params.lori.importance,
        "structure": params.lori.structure,
        "threshold": threshold,
        "count": chosen.count,
        "total": chosen.total,
        "calibration": str(calibrated.info["content_key"]),
    }
    facts["content_key"] = _content_key(facts)
    mask_file.save(chosen, facts, mask_path(task))
    density = {group: chosen.density_by(group) for group in ("projection", "layer")}
    write_metrics(METRICS / "mask", task, {**facts, "kept": density}, tracker)


def _content_key(facts: dict[str, Any]) -> str:
    """Return the digest of everything that a mask depends on: calibration, settings and code."""
    content = {name: facts[name] for name in _KEY_FACTS} | {"code": source_code.digests(MASKING)}
    origin = KINDS[facts["importance"]].origin
    if origin is not None:
        content["extension"] = {origin.path: origin.sha256}
    return digest(content)
