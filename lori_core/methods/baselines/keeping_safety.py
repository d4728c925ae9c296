"""Baselines that learn a task after a safety adapter and protect it, for LoRA, LoRI-D and LoRI-S.

They are the classes of `protection.py` on top of LoRA, LoRI-D and LoRI-S, and O-LoRA.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lori_core.config.validation import PositiveFloat, Strict
from lori_core.methods.baselines.peft_methods import Lora
from lori_core.methods.baselines.protection import Ewc, Keeping, Mix, Orthogonal, Slao
from lori_core.methods.lori.lori_methods import LoriD, LoriS
from lori_core.methods.training_method import training_method

if TYPE_CHECKING:
    import torch

    from lori_core.adapters.adapter import Adapter
    from lori_core.training.trainer_overrides import TrainerOverrides


class OloraOptions(Strict):
    """Options of O-LoRA."""

    orthogonality: PositiveFloat = 0.5
    """λ1, the strength of the penalty on overlapping A."""
    l2: Annotated[float, Field(strict=True, ge=0, le=1e6)] = 0.0
    """λ2, the strength of the sum of the norms of the new A and B."""


@training_method
class Olora(Keeping, Lora):
    """O-LoRA (arXiv:2310.14152): add a second LoRA whose A is orthogonal to the safety adapter's.

    The safety adapter's A_s and B_s stay frozen. The loss gets `λ1 Σ |A A_sᵀ| + λ2 Σ ‖·‖₂`, as in
    the authors' code. The result has both updates: rank 2r. There is no such method for LoRI, whose
    A is frozen, so the penalty has no gradient.
    """

    name = "lora-olora"
    label = "O-LoRA"
    about = "a second A and B, with a penalty on the overlap with the safety adapter's A"
    options = OloraOptions

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig`: of twice the rank, and the same scaling, with a safety adapter."""
        config = super().config(**more)
        if self.job.start is not None:
            config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
        return config

    def attach(self, model: Any) -> Any:
        """Add layers whose first half is the safety adapter; the second half starts as LoRA."""
        from lori_core.methods import peft_layers

        wrapped = peft_layers.inject(model, self.job.lori, self.config, self.frozen)
        if self.job.start is not None:
            peft_layers.initialise_front(wrapped, self.job.start, self.name)
        return wrapped

    def protected(
        self, model: Any, overrides: TrainerOverrides, start: Adapter
    ) -> TrainerOverrides:
        """Return the overrides with the penalty; the first half keeps its values."""
        import torch

        from lori_core.methods.baselines import kept_directions
        from lori_core.models import peft_names

        chosen: Any = self.job.options
        rank = self.job.lori.rank
        downs, halves = [], []
        for layer in peft_names.lora_layers(model).values():
            A, B = (s[peft_names.ADAPTER].weight for s in (layer.lora_A, layer.lora_B))
            downs.append(A)
            halves += [(A, A.detach()[:rank].clone(), 0), (B, B.detach()[:, :rank].clone(), 1)]
        for parameter, _, side in halves:
            parameter.register_hook(partial(_second_half, rank=rank, side=side))

        def penalty() -> torch.Tensor:
            loss: torch.Tensor = kept_directions.overlap(
                (A[rank:], A[:rank].detach()) for A in downs
            )
            loss = loss * chosen.orthogonality
            if chosen.l2:
                parts = [p.narrow(side, rank, rank).norm() for p, _, side in halves]
                loss = loss + chosen.l2 * torch.stack(parts).sum()
            return loss

        def after_step(_: int) -> None:
            with torch.no_grad():  # weight decay changes values without a gradient, too
                for parameter, front, side in halves:
                    parameter.narrow(side, 0, rank).copy_(front)

        return replace(overrides, penalty=penalty, after_step=after_step)


def _second_half(gradient: torch.Tensor, *, rank: int, side: int) -> torch.Tensor:
    """Return a gradient that is zero in the safety adapter's half."""
    gradient = gradient.clone()
    gradient.narrow(side, 0, rank).zero_()
    return gradient


@training_method
class LoraEwc(Ewc, Lora):
    """LoRA with a penalty on changes of the safety adapter's values."""

    name = "lora-ewc"
    label = "LoRA, EWC penalty"
    about = "A and B, with a penalty on changes of the safety adapter's values"


@training_method
class LoraOrthogonal(Orthogonal, Lora):
    """LoRA whose changes are orthogonal to the safety adapter."""

    name = "lora-orthogonal"
    label = "LoRA, orthogonal"
    about = "A and B, changed only orthogonally to the safety adapter"


@training_method
class LoraSlao(Slao, Lora):
    """SLAO: LoRA whose B is merged with the safety adapter's."""

    name = "lora-slao"
    label = "SLAO"
    about = "A and B; B is merged with the safety adapter's afterwards"


@training_method
class LoraMix(Mix, Lora):
    """LoRA on the task's examples and a share of safety examples."""

    name = "lora-mix"
    label = "LoRA, mixed data"
    about = "A and B, on the task's examples and a share of safety examples"


@training_method
class LoriDEwc(Ewc, LoriD):
    """LoRI-D with a penalty on changes of the safety adapter's values."""

    name = "lori-d-ewc"
    label = "LoRI-D, EWC penalty"
    about = "B, with a penalty on changes of the safety adapter's values"


@training_method
class LoriDOrthogonal(Orthogonal, LoriD):
    """LoRI-D whose changes are orthogonal to the safety adapter."""

    name = "lori-d-orthogonal"
    label = "LoRI-D, orthogonal"
    about = "B, changed only orthogonally to the safety adapter"


@training_method
class LoriDSlao(Slao, LoriD):
    """LoRI-D whose B is merged with the safety adapter's."""

    name = "lori-d-slao"
    label = "LoRI-D, SLAO merge"
    about = "B, merged with the safety adapter's afterwards"


@training_method
class LoriDMix(Mix, LoriD):
    """LoRI-D on the task's examples and a share of safety examples."""

    name = "lori-d-mix"
    label = "LoRI-D, mixed data"
    about = "B, on the task's examples and a share of safety examples"


@training_method
class LoriSEwc(Ewc, LoriS):
    """LoRI-S with a penalty on changes of the safety adapter's values."""

    name = "lori-s-ewc"
    label = "LoRI-S, EWC penalty"
    about = "B inside the task's mask, with a penalty on changes of the safety adapter's values"


@training_method
class LoriSOrthogonal(Orthogonal, LoriS):
    """LoRI-S whose changes are orthogonal to the safety adapter."""

    name = "lori-s-orthogonal"
    label = "LoRI-S, orthogonal"
    about = "B inside the task's mask, changed only orthogonally to the safety adapter"


@training_method
class LoriSSlao(Slao, LoriS):
    """LoRI-S whose B is merged with the safety adapter's."""

    name = "lori-s-slao"
    label = "LoRI-S, SLAO merge"
    about = "B inside the task's mask, merged with the safety adapter's afterwards"


@training_method
class LoriSMix(Mix, LoriS):
    """LoRI-S on the task's examples and a share of safety examples."""

    name = "lori-s-mix"
    label = "LoRI-S, mixed data"
    about = "B inside the task's mask, on the task's examples and a share of safety examples"
