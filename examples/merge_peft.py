"""Merge adapters that PEFT trained, and export the result as a PEFT folder.

The adapters may have different ranks, scalings and target modules. A PEFT adapter only names its
base model, so `--base` says which it is. Without adapters the example creates two with PEFT.

    python examples/merge_peft.py OUT [ADAPTER ADAPTER …] [--base BASE]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lori_core as lori


def base_model(base: str) -> Any:
    """Return a base model as transformers loads it."""
    from transformers import AutoModelForCausalLM

    from lori_core.config import ModelSection
    from lori_core.models import base_model as models

    return AutoModelForCausalLM.from_pretrained(models.prepare(ModelSection(name_or_path=base)))


def make_with_peft(folder: Path, base: str, rank: int, targets: list[str]) -> Path:
    """Write a LoRA adapter with random values, in the form that PEFT's training writes."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(base_model(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    model.save_pretrained(folder)
    return folder


def main(out: Path, adapters: list[Path], base: str = "random:llama") -> Any:
    """Merge adapters and return the base model with the merged adapter, loaded by PEFT."""
    from peft import PeftModel

    if not adapters:
        adapters = [
            make_with_peft(out / "first", base, 8, ["q_proj", "v_proj"]),
            make_with_peft(out / "second", base, 4, ["q_proj", "up_proj", "down_proj"]),
        ]
    merged = lori.merge(
        adapters, method="ties", weights=0.7, density=0.5, base=base, out=out / "merged"
    )
    print(f"rank {merged.rank}, {len(merged.modules)} linear layers: {', '.join(merged.targets)}")
    folder = lori.export(merged, out / "for-peft")
    return PeftModel.from_pretrained(base_model(base), folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Merge adapters made elsewhere with PEFT.")
    parser.add_argument("out", type=Path, help="a folder for the results")
    parser.add_argument("adapters", nargs="*", type=Path, help="PEFT folders")
    parser.add_argument("--base", default="random:llama", help="their base model")
    arguments = parser.parse_args()
    main(arguments.out, arguments.adapters, arguments.base)
