"""Continual training: from a safety adapter to a task, in the task's mask (METHOD, section 4)."""

from __future__ import annotations

from lori_core.adapter import Adapter, check_base
from lori_core.errors import AdapterError
from lori_core.mask import Mask, union
from lori_core.session import Measure, Phase, Session, run_phase
from lori_core.stage_dependencies import SESSION
from lori_core.tracking import RunTracker
from lori_core.training import TrainingResult


def continue_training(
    session: Session,
    safety: Adapter,
    task: str,
    mask: Mask | None,
    stage: str,
    tracker: RunTracker,
    measure: Measure | None = None,
) -> tuple[Adapter, TrainingResult]:
    """Start from (A_safety, B_safety) and learn a task inside its own, already calibrated mask.

    Entries of B outside the mask come out bit-identical to B_safety. With `mask=None` all of B is
    trained (LoRI-D).

    Raises:
        AdapterError: for a safety adapter of another base, or if mask, safety adapter and base have
            other modules, shapes or ranks.
    """
    check_base(safety, session.base, f"continual.{task}: the safety adapter")
    sizes = {name: (module.d_in, module.d_out) for name, module in safety.modules.items()}
    for name in {**session.modules, **sizes}:
        if sizes.get(name) != session.modules.get(name):
            raise AdapterError(
                f"continual.{task}: {name} is {sizes.get(name, 'missing')} in the safety adapter, "
                f"{session.modules.get(name, 'no target')} in this run; train the former again"
            )
    if mask is not None:
        mask.check_shapes(safety.shapes, f"continual.{task}")
    support = None
    if mask is not None and safety.mask is not None:
        support = union(mask, safety.mask)
    if safety.rank != session.params.lori.rank:
        raise AdapterError(
            f"continual.{task}: the safety adapter has rank {safety.rank}, "
            f"lori.rank is {session.params.lori.rank}"
        )
    phase = Phase(
        stage=stage,
        task=task,
        section=session.params.phase(task, "continual"),
        blocks=safety.blocks,
        mask=mask,
        start={name: safety.B(name) for name in safety.modules},
        support=support,
        parents=(str(safety.info.get("content_key")),),
        lora_alpha=next(iter(safety.modules.values())).lora_alpha,
        code=(*SESSION, "continual.py"),
    )
    return run_phase(session, phase, tracker, measure)
