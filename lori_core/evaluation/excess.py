"""Interference of a merge, measured as the excess held-out loss of each task (eq. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lori_core.adapters.adapter import Adapter
from lori_core.core.errors import InputError
from lori_core.data.example import Example
from lori_core.evaluation.evaluate import adapter_applied
from lori_core.evaluation.held_out import task_losses
from lori_core.evaluation.statistics import mean_interval
from lori_core.merging import merge
from lori_core.methods.loaded_model import LoadedModel


def excess(
    session: LoadedModel,
    merged: Adapter,
    parents: Mapping[str, tuple[Adapter, float]],
    examples: Mapping[str, Sequence[Example]],
    what: str,
    own: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Return each task's excess loss in a merge, `I_t = L_t(W_merged) - L_t(W0 + w_t·ΔW_t)`.

    L_t is the mean over the task's examples of `held_out_losses`. Both models see the same
    examples, so the interval is that of the mean of the examples' differences.

    Args:
        session: the loaded base model; unchanged afterwards.
        merged: the merge of the parents.
        parents: by task, its adapter and its weight w_t in the merge.
        examples: by task, its held-out examples; examples without a target and tasks that are
            not among the parents are left out.
        what: the merge's name, for the progress bars.
        own: by task, `base_loss` and `adapter_loss`, the mean losses of the same examples without
            an adapter and with the task's own; then the share of this gain that the merge keeps is
            returned, too.

    Returns:
        `tasks`, the parents' names in order; `excess`, by task: merged_loss, own_loss, excess
        (nats per example), low, high (95 %; None for a single example), n (examples) and tokens
        (of their targets); with `own`, base_loss, adapter_loss and retained, the share
        (L(base) − L(merged)) / (L(base) − L(own)), None where the own adapter gains nothing.

    Raises:
        InputError: no example of a task has a target.
        AdapterError: an adapter belongs to another base model.
        LoriError: a loss is not finite.
    """
    sets = {task: _with_target(task, examples.get(task, ())) for task in parents}
    with adapter_applied(session, merged) as model:
        merged_losses = {
            task: task_losses(session, model, task, sets[task], what) for task in parents
        }
    result = {}
    for task, (parent, weight) in parents.items():
        weighted = merge.merge("concat", [parent], [weight])
        with adapter_applied(session, weighted) as model:
            losses, tokens = task_losses(
                session, model, task, sets[task], f"{what} without the others"
            )
        result[task] = _compare(merged_losses[task][0], losses) | {"tokens": sum(tokens)}
    for task, losses_alone in (own or {}).items():
        result[task] |= _retained(result[task]["merged_loss"], losses_alone)
    return {"tasks": list(parents), "excess": result}


def _retained(merged: float, own: Mapping[str, float]) -> dict[str, Any]:
    """Return a task's own losses, and the share of its adapter's gain that a merge keeps."""
    gain = own["base_loss"] - own["adapter_loss"]
    return {**own, "retained": (own["base_loss"] - merged) / gain if gain > 0 else None}


def _with_target(task: str, examples: Sequence[Example]) -> list[Example]:
    with_target = [example for example in examples if example.target]
    if not with_target:
        raise InputError(
            f"task {task}: none of its {len(examples)} held-out examples has a target; its excess "
            "loss needs at least one"
        )
    return with_target


def _compare(merged: Sequence[float], own: Sequence[float]) -> dict[str, Any]:
    """Return both means, and the mean of the paired differences with its interval."""
    differences = [with_others - alone for with_others, alone in zip(merged, own, strict=True)]
    low, high = mean_interval(differences) if len(differences) > 1 else (None, None)
    return {
        "merged_loss": fmean(merged),
        "own_loss": fmean(own),
        "excess": fmean(differences),
        "low": low,
        "high": high,
        "n": len(differences),
    }
