"""LoRI-D and LoRI-S: train B, all of it or inside a mask, with A frozen (paper, section 2.1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lori_core.config.training import STATE_BYTES
from lori_core.core.files.atomic import digest
from lori_core.methods.training_method import (
    Cost,
    Provenance,
    TrainingMethod,
    training_method,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lori_core.adapters.adapter import Adapter, LayerSpec
    from lori_core.training.trainer_overrides import TrainerOverrides


class Lori(TrainingMethod):
    """Train the entries of B inside the mask; A is drawn from a key and frozen."""

    continues = True
    family = "lori"
    dropout = True
    lean = True

    def attach(self, model: nn.Module) -> Any:
        """Add A and the trainable entries of B to the base; B starts at zero or at `job.start`."""
        from lori_core.adapters import attach as attaching
        from lori_core.adapters.adapter import uniform
        from lori_core.methods.lori import continual
        from lori_core.models import peft_names

        job = self.job
        alpha: float = job.lori.lora_alpha
        sizes = peft_names.target_shapes(model, job.lori.target_modules)
        if job.start is not None:
            continual.check_start(job.start, sizes, job.lori.rank, job.mask, job.task)
            alpha = next(iter(job.start.modules.values())).lora_alpha
        self.modules: dict[str, LayerSpec] = uniform(sizes, job.lori.rank, alpha)
        wrapped = attaching.attach(model, self.modules, self._A, dropout=job.section.dropout)
        attaching.make_trainable(wrapped, self._positions(), self._initial_values())
        return wrapped

    def _A(self, module: str) -> Tensor:  # noqa: N802 - the paper's letter
        """Return a module's A [rank, d_in], float32: drawn from its keys, or as stored."""
        from lori_core.adapters.adapter import draw

        if self.job.stored is not None:
            return self.job.stored[module].float()
        return draw(self.job.blocks, module, self.modules[module].d_in)

    def _positions(self) -> dict[str, Tensor] | None:
        """Return the mask's positions by module; None without a mask."""
        return None if self.job.mask is None else self.job.mask.positions()

    def _initial_values(self) -> dict[str, Tensor] | None:
        """Return the B of `job.start` by module; None where B starts at zero."""
        start = self.job.start
        return None if start is None else {name: start.B(name) for name in start.modules}

    def trainer_overrides(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Return the defaults, without autocast: the layers compute in the base's precision."""
        from lori_core.training.trainer_overrides import TrainerOverrides

        return TrainerOverrides()

    def collect(self, model: Any, provenance: Provenance) -> Adapter:
        """Return the adapter; entries of B outside the mask have their initial values."""
        import torch

        from lori_core.adapters import attach as attaching
        from lori_core.adapters.adapter import Adapter, values_in_mask
        from lori_core.methods.lori import continual

        job, dtype = self.job, getattr(torch, self.job.lori.values_dtype)
        support = continual.support(job.mask, job.start)
        B = attaching.trained_B(model, self._positions(), self._initial_values())
        return Adapter(
            base=provenance.base,
            modules=self.modules,
            blocks=self.job.blocks,
            mask=support,
            values=values_in_mask(self.modules, B, support, dtype),
            stored=None if job.stored is None else {n: self._A(n).to(dtype) for n in self.modules},
            dtype=dtype,
            info=provenance.info,
            fan_in_fan_out=provenance.fan_in_fan_out,
            matched_by=provenance.matched_by,
        )

    def depends(self) -> dict[str, Any]:
        """Return the keys of A, the mask, and the precision that B's values are saved in."""
        mask = self.job.mask
        return {
            "blocks": [{"seed": b.seed, "key": b.key, "rank": b.rank} for b in self.job.blocks],
            "mask": None if mask is None else digest(mask.bits.tobytes().hex()),
            "values_dtype": self.job.lori.values_dtype,
        }

    def cost(self, model: nn.Module) -> Cost:
        """Count the trained entries of B: all of them, or the share 1 - `lori.sparsity`."""
        import torch

        from lori_core.adapters.masks import mask_codec
        from lori_core.models import peft_names

        lori = self.job.lori
        shapes = peft_names.target_shapes(model, lori.target_modules)
        total = lori.rank * sum(d_out for _, d_out in shapes.values())
        each = torch.finfo(getattr(torch, lori.values_dtype)).bits // 8
        if self.calibrated_by is None:
            return Cost(total, STATE_BYTES * total, each * total)
        inside = total - math.floor(lori.exact_sparsity() * total)
        artifact_bytes = each * inside + math.ceil(mask_codec.entropy_bytes(total, inside))
        return Cost(inside, STATE_BYTES * inside, artifact_bytes)


@training_method
class LoriD(Lori):
    """LoRI-D: train all of B (eq. 1)."""

    name = "lori-d"
    label = "LoRI-D"
    about = "B; A is a keyed random projection"


@training_method
class LoriS(Lori):
    """LoRI-S: train B inside the task's mask, extracted from a LoRI-D adapter (eq. 2)."""

    name = "lori-s"
    label = "LoRI-S"
    about = "B inside the task's mask"
    calibrated_by = "lori-d"
