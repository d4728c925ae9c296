"""How many tokens are computed at once: `training.tokens_at_once`, or what fits into a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lori_core.config import TrainingSection
from lori_core.config.training import STATE_BYTES
from lori_core.models import peft_names
from lori_core.training.kernels import lora_linear
from lori_core.training.working_memory import USABLE, Layers, sizes_of, tokens_that_fit

#: The most tokens of a pass; a larger pass would gain no speed.
MOST = 2**20


@dataclass
class TokenBudget:
    """The most tokens of a pass.

    Attributes:
        tokens: the limit; None for one pass for each batch.
        adjustable: whether it is lowered when a pass does not fit into memory.
    """

    tokens: int | None
    adjustable: bool = False

    def lower(self, failed: int) -> None:
        """Lower the limit to half of a pass that did not fit.

        Args:
            failed: the tokens of that pass.
        """
        self.tokens = max(1, min(failed, self.tokens or failed) // 2)


def token_budget(model: Any, section: TrainingSection, device: torch.device) -> TokenBudget:
    """Return the budget of a training run.

    With `auto` on a GPU it is forecast from shapes and from the size of the memory, not from the
    memory that other processes leave free, so that a repeated run makes the same passes.

    Args:
        model: the model to train, on its device.
        section: gives `tokens_at_once`.
        device: the device of the model.
    """
    if section.tokens_at_once != "auto":
        return TokenBudget(int(section.tokens_at_once))
    if device.type != "cuda" or section.sharding == "full":
        return TokenBudget(None)
    return TokenBudget(_forecast(model, section, device), adjustable=True)


def _forecast(model: Any, section: TrainingSection, device: torch.device) -> int:
    """Return the tokens that fit into a GPU according to the model's shapes; `MOST` if unknown."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = peft_names.lora_layers(model)
    ranks = {name: _rank(layer) for name, layer in layers.items()}
    try:
        sizes = sizes_of(base, max(ranks.values(), default=0), len(ranks))
    except (AttributeError, TypeError, ZeroDivisionError):
        return MOST
    lean = all(lora_linear.unsupported_reason(layer) is None for layer in layers.values())
    number = float(base.dtype.itemsize)
    known = Layers(lean=bool(layers) and lean, whole=not layers, number=number, kind="gpu")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    memory = torch.cuda.get_device_properties(device).total_memory
    room = memory * USABLE - frozen - STATE_BYTES * trained
    return tokens_that_fit(sizes, section, known, room, MOST)


def _rank(layer: Any) -> int:
    ranks = getattr(layer, "r", {})
    return int(ranks.get(peft_names.ADAPTER, 0)) if isinstance(ranks, dict) else 0
