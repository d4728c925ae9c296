"""Interference as what a merge costs each task: the excess of its held-out loss (eq. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lori_core.adapters.adapter import Adapter
from lori_core.core.errors import InputError
from lori_core.data.example import Example
from lori_core.evaluation.evaluate import wearing
from lori_core.evaluation.held_out import held_out_losses
from lori_core.evaluation.statistics import mean_interval
from lori_core.merging import merge
from lori_core.methods.loaded_model import LoadedModel


def excess(
    session: LoadedModel,
    merged: Adapter,
    parents: Mapping[str, tuple[Adapter, float]],
    examples: Mapping[str, Sequence[Example]],
    what: str,
) -> dict[str, Any]:
    """Return each task's excess loss in a merge, `I_t = L_t(W_merged) - L_t(W0 + w_t·ΔW_t)`.

    L_t is the mean over the task's examples of `held_out_losses`. Both models see the same
    examples, so the interval is that of the mean of the examples' differences.

    Args:
        session: the loaded base; left as it was.
        merged: the merge of the parents.
        parents: by task, its adapter and its weight w_t in the merge.
        examples: by task, what it was not trained on; examples without a target are left out, and
            so are tasks that are no parent's.
        what: the merge's name, for the progress bars.

    Returns:
        `tasks`, the parents' names in order; `excess`, by task: merged_loss, own_loss, excess,
        low, high (95 %; None where there is one example), n (examples) and tokens (of their
        targets).

    Raises:
        InputError: if no example of a task has a target.
        AdapterError: for an adapter of another base.
        LoriError: at a loss that is not finite.
    """
    sets = {task: _with_target(task, examples.get(task, ())) for task in parents}
    with wearing(session, merged) as model:
        whole = {task: _losses(session, model, task, sets[task], what) for task in parents}
    result = {}
    for task, (parent, weight) in parents.items():
        own = merge.merge("concat", [parent], [weight])
        with wearing(session, own) as model:
            alone, tokens = _losses(session, model, task, sets[task], f"{what} without the others")
        result[task] = _compare(whole[task][0], alone) | {"tokens": sum(tokens)}
    return {"tasks": list(parents), "excess": result}


def _with_target(task: str, examples: Sequence[Example]) -> list[Example]:
    found = [example for example in examples if example.target]
    if not found:
        raise InputError(
            f"task {task}: none of its {len(examples)} held-out examples has a target; its excess "
            "loss needs at least one"
        )
    return found


def _losses(
    session: LoadedModel, model: Any, task: str, examples: Sequence[Example], what: str
) -> tuple[list[float], list[int]]:
    """Measure a task's examples, cut as they would be in its training."""
    params = session.params
    section = params.phase(task, "training") if task in params.tasks else params.training
    return held_out_losses(
        model,
        session.tokenizer,
        examples,
        params.prompt,
        section.max_length,
        params.evaluation.batch_size,
        f"{what} on {task}",
    )


def _compare(merged: Sequence[float], own: Sequence[float]) -> dict[str, Any]:
    """Return both means, and the mean of the paired differences with its interval."""
    differences = [ours - alone for ours, alone in zip(merged, own, strict=True)]
    low, high = mean_interval(differences) if len(differences) > 1 else (None, None)
    return {
        "merged_loss": fmean(merged),
        "own_loss": fmean(own),
        "excess": fmean(differences),
        "low": low,
        "high": high,
        "n": len(differences),
    }
