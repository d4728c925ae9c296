"""The mask that a calibrated adapter gives: which entries of B matter (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lori_core.adapters import attach
from lori_core.adapters.adapter import Adapter, OnDemand, check_base
from lori_core.adapters.attach import trained_values
from lori_core.adapters.masks.importances import KINDS, Calibrated
from lori_core.adapters.masks.mask import Mask, Shapes
from lori_core.adapters.masks.structured_mask import top_structures
from lori_core.config import LoriSection
from lori_core.core.errors import InputError
from lori_core.core.progress import bar
from lori_core.data.batching import collate
from lori_core.data.prompts import Encoded
from lori_core.methods.loaded_model import LoadedModel, training_rows
from lori_core.models import peft_names
from lori_core.registries.mask import Gradient
from lori_core.training.loss import sequence_loss


def take_mask(
    session: Callable[[], LoadedModel], calibrated: Adapter, lori: LoriSection, task: str
) -> tuple[Mask, float]:
    """Take a task's mask: the top of B by importance, exactly (eq. 2).

    Args:
        session: opens the base; called only for an importance that needs gradients.
        calibrated: the LoRI-D adapter.
        lori: sparsity, scope, structure and importance.
        task: whose examples give the gradients.

    Returns:
        The mask, and the smallest importance that was kept.
    """
    chosen = KINDS[lori.importance]
    gradient: Mapping[str, Tensor] = {}
    if chosen.gradient is not None:
        gradient = gradients(chosen.gradient, calibrated, session(), task)
    at = Calibrated(
        shapes=calibrated.shapes,
        B=OnDemand(calibrated.modules, calibrated.B),
        gradient=gradient,
        seed=lori.seed,
        task=task,
    )
    scores = chosen.score(at)
    if chosen.origin is not None:
        _check_scores(scores, calibrated.shapes, f"{chosen.origin.path}: {chosen.name}")
    return top_structures(scores, lori.exact_sparsity(), lori.mask_scope, lori.structure)


def _check_scores(scores: Mapping[str, Tensor], shapes: Shapes, what: str) -> None:
    """Refuse an extension's scores of other modules or sizes; values are checked when ranked.

    Raises:
        InputError: naming the function and the first module.
    """
    found = {name: tuple(matrix.shape) for name, matrix in scores.items()}
    if list(found.items()) == list(shapes.items()):
        return
    for name in [*shapes, *found]:
        if found.get(name) != shapes.get(name):
            raise InputError(
                f"{what}: the scores of {name} are {found.get(name)}, expected {shapes.get(name)}: "
                "return one for each entry of B, of every module"
            )
    raise InputError(f"{what}: the modules stand in another order than in `shapes`")


def gradients(
    kind: Gradient, calibrated: Adapter, session: LoadedModel, task: str
) -> dict[str, Tensor]:
    """Return the mean over a task's training examples of the gradient of an example's loss.

    Args:
        kind: `mean` of the gradients g, or `mean_square` of g².
        calibrated: the LoRI-D adapter at which they are taken.
        session: the base.
        task: whose training examples are read.

    Returns:
        [d_out, rank], float32, by module.
    """
    check_base(calibrated, session.base, f"{task}: the calibrated adapter")
    section = session.params.phase(task, "calibration")
    rows, _ = training_rows(session, task, section)
    B = {name: calibrated.B(name) for name in calibrated.modules}
    model = attach.attach(session.model, calibrated.modules, calibrated.A)
    attach.make_trainable(model, None, B)
    model.eval()
    sums = _summed(kind, model, rows, session.tokenizer.pad_token_id)
    model.unload()  # the session's base is itself again
    return {name: total / len(rows) for name, total in sums.items()}


def _summed(
    kind: Gradient, model: Any, rows: Sequence[Encoded], pad_token_id: int
) -> dict[str, Tensor]:
    """Sum each example's gradient, or its square, over a data set."""
    values = trained_values(model)
    layers = {name: peft_names.lora_layers(model)[name] for name in values}
    sums = {name: torch.zeros_like(v) for name, v in values.items()}
    with bar(len(rows), "gradients", "example") as progress:
        for row in rows:
            batch = {k: v.to(model.device) for k, v in collate([row], pad_token_id).items()}
            model.zero_grad()
            sequence_loss(model, batch).backward()
            for name, vector in values.items():
                if vector.grad is not None:
                    sums[name] += vector.grad**2 if kind == "mean_square" else vector.grad
            progress.update(1)
    return {
        name: total.cpu().view(layers[name].lora_B[peft_names.ADAPTER].weight.shape)
        for name, total in sums.items()
    }
