"""Example of a training method: LoRA whose initial A is half of what PEFT draws.

With this file under `extensions` in params.yaml, `tasks.<task>.method: lora-half` trains by it.
"""

from typing import Any

from lori_core import training_method
from lori_core.methods.baselines.peft_methods import Lora
from lori_core.models import peft_names


@training_method
class LoraHalf(Lora):
    """LoRA with a smaller initial A."""

    name = "lora-half"
    label = "LoRA, half A"
    about = "A and B; the initial A is halved"

    def attach(self, model: Any) -> Any:
        """Add LoRA to the base, and halve each A."""
        wrapped = super().attach(model)
        for layer in peft_names.lora_layers(wrapped).values():
            layer.lora_A[peft_names.ADAPTER].weight.data.mul_(0.5)
        return wrapped
