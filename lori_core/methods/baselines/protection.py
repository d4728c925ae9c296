"""What a baseline that protects a safety adapter adds to LoRA, LoRI-D or LoRI-S.

Each class here is combined with one of those methods in `keeping_safety.py`. It acts if training
starts from a safety adapter (`job.start`), as in continual training. Without one, as in the stage
`train`, there is nothing to protect, and the method trains as LoRA, LoRI-D or LoRI-S.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lori_core.config.validation import PositiveFloat, Share, Strict
from lori_core.core.errors import ConfigError
from lori_core.methods.baselines.peft_methods import Lora
from lori_core.methods.lori.lori_methods import LoriD, LoriS
from lori_core.methods.training_method import TrainingMethod

if TYPE_CHECKING:
    import torch

    from lori_core.adapters.adapter import Adapter
    from lori_core.methods.training_method import Provenance
    from lori_core.training.trainer_overrides import TrainerOverrides

#: SLAO's weight of the second task, 1 / sqrt(2).
SLAO_SHARE = 1 / math.sqrt(2)


class Keeping(TrainingMethod):
    """What the methods of this module share.

    Subclasses define `protected`, which changes the training loop if there is a starting adapter.
    """

    keeps_safety = True

    @classmethod
    def goes_on_from(cls, other: type[TrainingMethod]) -> bool:
        """Return whether `other` is this method, or of the family of the method it extends."""
        plain = (Lora,) if issubclass(cls, Lora) else (LoriD, LoriS)
        return cls is other or other in plain or super().goes_on_from(other)

    def trainer_overrides(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Return the overrides of LoRA or LoRI, with the protection of `job.start`.

        Raises:
            ConfigError: the parameters would be sharded, where they cannot be compared with those
                of the safety adapter.
        """
        overrides = super().trainer_overrides(model, dtype)
        if self.job.start is None:
            return overrides
        if self.job.section.sharding == "full":
            raise ConfigError(
                f"training.sharding: full cannot be used with the method {self.name}; set none"
            )
        return self.protected(model, overrides, self.job.start)

    def protected(
        self, model: Any, overrides: TrainerOverrides, start: Adapter
    ) -> TrainerOverrides:
        """Return the overrides that protect an adapter, whose values the model still has."""
        return overrides

    def depends(self) -> dict[str, Any]:
        """Add the options."""
        return super().depends() | {"options": self.job.options.model_dump()}


class EwcOptions(Strict):
    """Options of the penalty on changes of the safety adapter's values."""

    strength: PositiveFloat = 1.0
    """λ."""
    importance: Literal["uniform", "magnitude"] = "uniform"
    """F of each value: 1, or its square divided by the mean square of its parameter."""


class Ewc(Keeping):
    """Add `λ/2 Σ_i F_i (θ_i - θ*_i)²` to the loss, with the safety adapter's values θ*.

    The penalty of elastic weight consolidation (arXiv:1612.00796), with F from the safety adapter's
    values instead of the Fisher information, which would need the safety data.
    """

    options = EwcOptions

    def protected(
        self, model: Any, overrides: TrainerOverrides, start: Adapter
    ) -> TrainerOverrides:
        """Return the overrides with the penalty."""
        from lori_core.methods.baselines import kept_directions

        chosen: Any = self.job.options
        anchors = []
        for parameter in model.parameters():
            if parameter.requires_grad:
                before = parameter.detach().clone()
                squares = before.square()
                mean = squares.mean()
                weight = squares / mean if chosen.importance == "magnitude" and mean > 0 else 1.0
                anchors.append((parameter, before, weight))
        return replace(
            overrides, penalty=lambda: kept_directions.quadratic(anchors, chosen.strength)
        )


class Orthogonal(Keeping):
    """Keep all changes orthogonal to the row and column spaces of the safety adapter's update.

    With bases U of the columns of the safety adapter's B and V of the rows of its A, each step's
    change D of B becomes `D - U Uᵀ D`, and that of A `D - D V Vᵀ`: OSF's projection of gradients
    (`peft.tuners.osf.utils.project_gradient_to_orthogonal_space`; arXiv:2504.07097), applied to the
    changes themselves, because AdamW's steps are not multiples of the projected gradient. With a
    mask, columns of B are projected inside it (`kept_directions.MaskedColumns`). LoRI freezes A.
    """

    def protected(
        self, model: Any, overrides: TrainerOverrides, start: Adapter
    ) -> TrainerOverrides:
        """Return the overrides that project the values after each step."""
        import torch

        projections = [
            (parameter, parameter.detach().clone(), project)
            for parameter, project in _projections(self, model, start)
        ]

        def after_step(_: int) -> None:
            with torch.no_grad():
                for parameter, before, project in projections:
                    parameter.copy_(before + project(parameter - before))

        return replace(overrides, after_step=after_step)


def _projections(
    method: TrainingMethod, model: Any, start: Adapter
) -> list[tuple[torch.nn.Parameter, Callable[[torch.Tensor], torch.Tensor]]]:
    """Return each trained parameter with the projection of its changes."""
    from lori_core.adapters.sparse_parametrization import trainable_values
    from lori_core.methods.baselines import kept_directions
    from lori_core.models import peft_names

    mask = method.job.mask
    positions = None if mask is None else mask.positions()
    pairs = []
    for name, layer in peft_names.lora_layers(model).items():
        up, down = (side[peft_names.ADAPTER] for side in (layer.lora_B, layer.lora_A))
        device = down.weight.device
        basis = kept_directions.column_basis(start.B(name)).to(device)
        if isinstance(method, Lora):
            rows = kept_directions.column_basis(start.A(name).T).to(device)
            pairs.append((up.weight, _left(basis)))
            pairs.append((down.weight, _right(rows)))
            continue
        values = trainable_values(up)
        if positions is None:
            pairs.append((values, _left(basis, (len(basis), start.modules[name].rank))))
        else:
            at = positions[name].to(device)
            masked = kept_directions.MaskedColumns(basis, at, start.modules[name].rank)
            pairs.append((values, masked.project))
    return pairs


def _left(
    basis: torch.Tensor, shape: tuple[int, int] | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the projection of changes [d_out, rank], or of their flat form, off the columns."""
    from lori_core.methods.baselines.kept_directions import without

    return lambda change: without(change.view(shape or change.shape), basis).view(change.shape)


def _right(basis: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the projection of changes [rank, d_in] off the rows that `basis` [d_in, k] spans."""
    from lori_core.methods.baselines.kept_directions import without

    return lambda change: without(change.T, basis).T


class Slao(Keeping):
    """SLAO (arXiv:2512.23017) for two tasks: B is merged with the safety adapter's, A is not.

    LoRA's A starts from an orthonormal basis of the rows of the safety adapter's A
    (`kept_directions.orthonormal_rows`), B from its B. After training, the adapter has the trained
    A and `B_s + (B - B_s) / √2`. LoRI's A is frozen, so only B is merged.
    """

    def attach(self, model: Any) -> Any:
        """Attach; with a starting adapter, LoRA's A gets orthonormal rows."""
        import torch

        from lori_core.methods.baselines import kept_directions
        from lori_core.models import peft_names

        wrapped = super().attach(model)  # type: ignore[safe-super]
        if self.job.start is not None and isinstance(self, Lora):
            with torch.no_grad():
                for name, layer in peft_names.lora_layers(wrapped).items():
                    weight = layer.lora_A[peft_names.ADAPTER].weight
                    weight.copy_(kept_directions.orthonormal_rows(self.job.start.A(name)))
        return wrapped

    def collect(self, model: Any, provenance: Provenance) -> Any:
        """Return the merged adapter."""
        import torch

        from lori_core.adapters.sparse_parametrization import trainable_values
        from lori_core.models import peft_names

        start = self.job.start
        positions = None if self.job.mask is None else self.job.mask.positions()
        with torch.no_grad():
            for name, layer in peft_names.lora_layers(model).items() if start is not None else ():
                up = layer.lora_B[peft_names.ADAPTER]
                plain = isinstance(self, Lora)
                values = up.weight if plain else trainable_values(up)
                before = start.B(name)  # type: ignore[union-attr]
                if not plain:
                    before = before.flatten()
                    before = before if positions is None else before[positions[name]]
                values.lerp_(before.to(values), 1 - SLAO_SHARE)
        return super().collect(model, provenance)  # type: ignore[safe-super]


class MixOptions(Strict):
    """Options of mixing."""

    share: Annotated[Share, Field(gt=0)] = 0.1
    """The share of safety examples among all training examples."""


class Mix(Keeping):
    """Mix a share of the safety task's training examples into the task's (arXiv:2309.07875)."""

    options = MixOptions

    def safety_share(self) -> float:
        """Return the option `share`."""
        chosen: Any = self.job.options
        return float(chosen.share)
