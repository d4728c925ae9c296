"""The mask that a calibrated adapter gives: which entries of B matter (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lori_core import attaching, peft_names
from lori_core.adapter import Adapter, check_base
from lori_core.attaching import trained_values
from lori_core.config import LoriSection
from lori_core.data.batching import collate
from lori_core.data.prompts import Encoded
from lori_core.errors import InputError, unknown
from lori_core.files import digest
from lori_core.loss import sequence_loss
from lori_core.mask import Mask, Shapes, magnitude
from lori_core.progress import bar
from lori_core.session import Session, training_rows
from lori_core.structure import top_structures

IMPORTANCE = ("magnitude", "fisher", "snip", "random")


def take_mask(
    session: Callable[[], Session], calibrated: Adapter, lori: LoriSection, task: str
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
    if lori.importance == "magnitude":
        scores = magnitude({name: calibrated.B(name) for name in calibrated.modules})
    elif lori.importance == "random":
        scores = random_importance(calibrated.shapes, lori.seed, task)
    else:
        scores = gradient_importance(lori.importance, calibrated, session(), task)
    return top_structures(scores, lori.exact_sparsity(), lori.mask_scope, lori.structure)


def random_importance(shapes: Shapes, seed: int, task: str) -> dict[str, Tensor]:
    """Return uniform noise of each B's shape, drawn from (seed, task): a control."""
    random = np.random.default_rng(int(digest([seed, task])[:15], 16))
    return {
        name: torch.from_numpy(random.random(shape, dtype=np.float32))
        for name, shape in shapes.items()
    }


def gradient_importance(
    kind: str, calibrated: Adapter, session: Session, task: str
) -> dict[str, Tensor]:
    """Return an importance that needs gradients at the calibrated adapter.

    `fisher` is the mean over training examples of the squared gradient of an example's loss (the
    diagonal of the empirical Fisher information); `snip` is |B ⊙ mean gradient|.

    Returns:
        [d_out, rank], float32, by module.

    Raises:
        InputError: for another kind.
    """
    if kind not in ("fisher", "snip"):
        raise InputError(unknown("importance", kind, IMPORTANCE))
    check_base(calibrated, session.base, f"{task}: the calibrated adapter")
    section = session.params.phase(task, "calibration")
    rows, _ = training_rows(session, task, section)
    B = {name: calibrated.B(name) for name in calibrated.modules}
    model = attaching.attach(session.model, calibrated.modules, calibrated.A)
    attaching.make_trainable(model, None, B)
    model.eval()
    sums = _summed(kind, model, rows, session.tokenizer.pad_token_id)
    model.unload()  # the session's base is itself again
    scores = {name: total / len(rows) for name, total in sums.items()}
    if kind == "snip":
        scores = {name: (s * B[name]).abs() for name, s in scores.items()}
    return scores


def _summed(kind: str, model: Any, rows: Sequence[Encoded], pad_token_id: int) -> dict[str, Tensor]:
    """Sum each example's gradient, or its square, over a data set."""
    values = trained_values(model)
    layers = {name: peft_names.lora_layers(model)[name] for name in values}
    sums = {name: torch.zeros_like(v) for name, v in values.items()}
    with bar(len(rows), kind, "example") as progress:
        for row in rows:
            batch = {k: v.to(model.device) for k, v in collate([row], pad_token_id).items()}
            model.zero_grad()
            sequence_loss(model, batch).backward()
            for name, vector in values.items():
                if vector.grad is not None:
                    sums[name] += vector.grad**2 if kind == "fisher" else vector.grad
            progress.update(1)
    return {
        name: total.cpu().view(layers[name].lora_B[peft_names.ADAPTER].weight.shape)
        for name, total in sums.items()
    }
