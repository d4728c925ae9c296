"""LoRI's two training methods: B on a frozen random A, all of it or inside a mask (METHOD, 1-2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lori_core.core.files.atomic import digest
from lori_core.methods.training_method import (
    STATE_BYTES,
    Cost,
    Made,
    TrainingMethod,
    training_method,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lori_core.adapters.adapter import Adapter, LayerSpec
    from lori_core.training.trainer_overrides import TrainerOverrides


class Lori(TrainingMethod):
    """B is trained, packed at the mask's entries; A is drawn from a key and frozen."""

    continues = True
    family = "lori"
    dropout = True
    lean = True

    def attach(self, model: nn.Module) -> Any:
        """Put A and the packed B on the base; B begins at zero, or at the adapter to go on from."""
        from lori_core.adapters import attach as attaching
        from lori_core.adapters.adapter import draw, uniform
        from lori_core.methods.lori import continual
        from lori_core.models import peft_names

        job = self.job
        alpha: float = job.lori.lora_alpha
        sizes = peft_names.target_shapes(model, job.lori.target_modules)
        if job.start is not None:
            continual.check_start(job.start, sizes, job.lori.rank, job.mask, job.task)
            alpha = next(iter(job.start.modules.values())).lora_alpha
        self.modules: dict[str, LayerSpec] = uniform(sizes, job.lori.rank, alpha)
        wrapped = attaching.attach(
            model,
            self.modules,
            lambda name: draw(self.job.blocks, name, self.modules[name].d_in),
            dropout=job.section.dropout,
        )
        attaching.make_trainable(wrapped, self._positions(), self._first())
        return wrapped

    def _positions(self) -> dict[str, Tensor] | None:
        return None if self.job.mask is None else self.job.mask.positions()

    def _first(self) -> dict[str, Tensor] | None:
        start = self.job.start
        return None if start is None else {name: start.B(name) for name in start.modules}

    def recipe(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Return a plain recipe: the layers themselves compute in the base's precision."""
        from lori_core.training.trainer_overrides import TrainerOverrides

        return TrainerOverrides()

    def collect(self, model: Any, made: Made) -> Adapter:
        """Return the adapter; entries of B outside the mask are those it began with."""
        import torch

        from lori_core.adapters import attach as attaching
        from lori_core.adapters.adapter import Adapter, values_in_mask
        from lori_core.methods.lori import continual

        job, dtype = self.job, getattr(torch, self.job.lori.values_dtype)
        support = continual.support(job.mask, job.start)
        B = attaching.trained_B(model, self._positions(), self._first())
        return Adapter(
            base=made.base,
            modules=self.modules,
            blocks=self.job.blocks,
            mask=support,
            values=values_in_mask(self.modules, B, support, dtype),
            dtype=dtype,
            info=made.info,
            fan_in_fan_out=made.fan_in_fan_out,
            matched_by=made.matched_by,
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
        """Count B's entries; a mask's are as many as `lori.sparsity` leaves."""
        import torch

        from lori_core.models import peft_names

        lori = self.job.lori
        shapes = peft_names.target_shapes(model, lori.target_modules)
        total = lori.rank * sum(d_out for _, d_out in shapes.values())
        each = torch.finfo(getattr(torch, lori.values_dtype)).bits // 8
        if self.calibrated_by is None:
            return Cost(total, STATE_BYTES * total, each * total)
        kept = total - math.floor(lori.exact_sparsity() * total)
        return Cost(kept, STATE_BYTES * kept, each * kept + math.ceil(_entropy(kept, total) / 8))


def _entropy(kept: int, total: int) -> float:
    """Return the bits that a mask of `kept` among `total` needs at least, in the limit."""
    shares = [part / total for part in (kept, total - kept) if part]
    return -total * sum(share * math.log2(share) for share in shares)


@training_method
class LoriD(Lori):
    """All of B (eq. 1)."""

    name = "lori-d"
    label = "LoRI-D"
    about = "B; A is a keyed random projection"


@training_method
class LoriS(Lori):
    """B inside the task's mask, which is taken from a LoRI-D adapter of the task (eq. 2)."""

    name = "lori-s"
    label = "LoRI-S"
    about = "B inside the task's mask"
    calibrated_by = "lori-d"
