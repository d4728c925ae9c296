"""What the training methods of PEFT share: layers from PEFT's configuration, and their result."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from lori_core.config.training import STATE_BYTES
from lori_core.methods.training_method import Cost, Provenance, TrainingMethod

if TYPE_CHECKING:
    from torch import nn

    from lori_core.adapters.adapter import Adapter
    from lori_core.methods.finetuned_model import FinetunedModel
    from lori_core.methods.peft_layers import Factors


class PeftMethod(TrainingMethod):
    """A training method of PEFT, built from PEFT's own configuration.

    Class attributes:
        frozen: PEFT's names of the adapter's parameters that are not trained, as `lora_A`.
    """

    frozen: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def config(self) -> Any:
        """Return PEFT's configuration."""

    def common(self) -> dict[str, Any]:
        """Return the fields that all of PEFT's configurations share."""
        targets = list(self.job.lori.target_modules)
        return {"target_modules": targets, "task_type": "CAUSAL_LM"}

    def attach(self, model: nn.Module) -> Any:
        """Add PEFT's layers to the base; they start from `job.start` if there is one."""
        from lori_core.methods import peft_layers

        wrapped = peft_layers.inject(model, self.job.lori, self.config, self.frozen)
        if self.job.start is not None:
            peft_layers.initialise_from(wrapped, self.job.start, self.name)
        return wrapped

    def collect(self, model: Any, provenance: Provenance) -> Adapter | FinetunedModel:
        """Return a low-rank adapter if `result` is `low-rank`, otherwise what PEFT saves."""
        import torch

        from lori_core.methods import peft_layers

        if self.result == "low-rank":
            dtype = getattr(torch, self.values_dtype)
            return peft_layers.adapter(self.factors(model), provenance, dtype)
        return peft_layers.tuned(model, provenance)

    @property
    def values_dtype(self) -> str:
        """The dtype that A and B of a low-rank result are saved in."""
        return self.job.lori.values_dtype if self.result == "low-rank" else "float32"

    def depends(self) -> dict[str, Any]:
        """Add the dtype of the saved values, where it is not float32."""
        dtype = self.values_dtype
        return super().depends() | ({} if dtype == "float32" else {"values_dtype": dtype})

    def factors(self, model: Any) -> Factors:
        """Return A, B (float32, on the CPU) and the scaling of each module."""
        from lori_core.methods import peft_layers

        return peft_layers.factors(model)

    def cost(self, model: nn.Module) -> Cost:
        """Count the parameters that PEFT trains, and those that it saves."""
        import torch
        from peft import get_peft_model_state_dict

        wrapped = self.attach(model)
        trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
        saved = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        each = torch.finfo(getattr(torch, self.values_dtype)).bits // 8
        artifact_bytes = each * sum(values.numel() for values in saved.values())
        return Cost(trainable, STATE_BYTES * trainable, artifact_bytes)
