"""Interference of a merge, measured as the excess held-out loss of each task (eq. 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from lori_core.adapters.adapter import Adapter
from lori_core.core.errors import InputError
from lori_core.data.example import Example
from lori_core.evaluation.evaluate import adapter_applied
from lori_core.evaluation.held_out import task_losses
from lori_core.evaluation.statistics import mean_interval
from lori_core.merging import merge
from lori_core.methods.finetuned_model import Trained
from lori_core.methods.loaded_model import LoadedModel


def excess(
    session: LoadedModel,
    merged: Adapter,
    parents: Mapping[str, tuple[Adapter, float]],
    examples: Mapping[str, Sequence[Example]],
    what: str,
    own: Mapping[str, Trained] | None = None,
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
        own: by task, its own adapter without a weight; then the share of its gain over the base
            that the merge keeps is measured, too.

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
    for task, row in _retained(session, own or {}, sets, result, what):
        result[task] |= row
    return {"tasks": list(parents), "excess": result}


def _retained(
    session: LoadedModel,
    own: Mapping[str, Trained],
    sets: Mapping[str, Sequence[Example]],
    measured: Mapping[str, Mapping[str, Any]],
    what: str,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the losses of the base and of the own adapter, and the share of the gain kept."""
    known = [task for task in sets if task in own]
    with adapter_applied(session, None) as model:
        base = {
            t: fmean(task_losses(session, model, t, sets[t], f"{what}: base")[0]) for t in known
        }
    for task in known:
        with adapter_applied(session, own[task]) as model:
            losses, _ = task_losses(session, model, task, sets[task], f"{what}: own adapter")
        gain = base[task] - fmean(losses)
        kept = (base[task] - measured[task]["merged_loss"]) / gain if gain > 0 else None
        yield task, {"base_loss": base[task], "adapter_loss": fmean(losses), "retained": kept}


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
