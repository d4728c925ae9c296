"""Extract a mask from a calibrated adapter: the top entries of B (paper, section 2.1)."""

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
    load: Callable[[], LoadedModel], calibrated: Adapter, lori: LoriSection, task: str
) -> tuple[Mask, float]:
    """Extract a task's mask: exactly the share 1 - sparsity of B with the highest scores (eq. 2).

    Args:
        load: loads the base; called only for an importance score that needs gradients.
        calibrated: the LoRI-D adapter of the calibration run.
        lori: gives sparsity, scope, structure and importance score.
        task: the task; gradients are taken on its training examples.

    Returns:
        The mask, and the lowest importance score inside it.

    Raises:
        InputError: an extension's importance function returned scores of the wrong modules or
            shapes.
    """
    chosen = KINDS[lori.importance]
    gradient: Mapping[str, Tensor] = {}
    if chosen.gradient is not None:
        gradient = gradients(chosen.gradient, calibrated, load(), task)
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
    """Refuse scores of the wrong modules or shapes; their values are checked when ranked.

    Raises:
        InputError: names the extension's function and the first wrong module.
    """
    returned = {name: tuple(matrix.shape) for name, matrix in scores.items()}
    if list(returned.items()) == list(shapes.items()):
        return
    for name in [*shapes, *returned]:
        if returned.get(name) != shapes.get(name):
            raise InputError(
                f"{what}: the scores of {name} are {returned.get(name)}, expected "
                f"{shapes.get(name)}: return one for each entry of B, of every module"
            )
    raise InputError(f"{what}: the modules stand in another order than in `shapes`")


def gradients(
    kind: Gradient, calibrated: Adapter, loaded: LoadedModel, task: str
) -> dict[str, Tensor]:
    """Return the mean gradient of B, or of its square, over a task's training examples.

    Args:
        kind: `mean` for the mean of each example's gradient g, `mean_square` for that of g².
        calibrated: the LoRI-D adapter at which the gradients are computed.
        loaded: the base model; unchanged afterwards.
        task: the task whose training examples are read.

    Returns:
        A float32 tensor [d_out, rank] on the CPU for each module.

    Raises:
        AdapterError: the adapter was made for another base.
        DataError: the task has no training example with a target.
    """
    check_base(calibrated, loaded.base, f"{task}: the calibrated adapter")
    section = loaded.params.phase(task, "calibration")
    rows, _ = training_rows(loaded, task, section)
    B = {name: calibrated.B(name) for name in calibrated.modules}
    model = attach.attach(loaded.model, calibrated.modules, calibrated.A)
    attach.make_trainable(model, None, B)
    model.eval()
    sums = _summed(kind, model, rows, loaded.tokenizer.pad_token_id)
    model.unload()  # restores the base model in place
    return {name: total / len(rows) for name, total in sums.items()}


def _summed(
    kind: Gradient, model: Any, rows: Sequence[Encoded], pad_token_id: int
) -> dict[str, Tensor]:
    """Return the sum over a data set of each example's gradient, or of its square."""
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
