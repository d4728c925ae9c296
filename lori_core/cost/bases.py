"""The sizes of a base model that a cost forecast depends on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core.config import ModelSection, Params
from lori_core.core.errors import InputError
from lori_core.models import base_model, peft_names
from lori_core.training.working_memory import Sizes, sizes_of


@dataclass(frozen=True)
class Base(Sizes):
    """The sizes of a base model and of its adapter, and the numbers of its parameters.

    Attributes:
        body: the number of parameters without embeddings.
        total: the number of all parameters.
        stored: bytes of a parameter in the model's file.
    """

    body: int
    total: int
    stored: float


#: Sizes of bases that may not be downloaded yet: class of the configuration, layers, hidden,
#: intermediate, key heads, heads, vocabulary.
KNOWN = {
    "meta-llama/Meta-Llama-3-8B": ("LlamaConfig", 32, 4096, 14336, 8, 32, 128256),
    "mistralai/Mistral-7B-v0.1": ("MistralConfig", 32, 4096, 14336, 8, 32, 32000),
}


def outline(section: ModelSection) -> Any:
    """Return the base model on the meta device, built from its configuration only.

    Raises:
        InputError: the configuration is neither on this machine nor in `KNOWN`.
    """
    name = section.name_or_path
    if name.startswith(("pypi:", "random:")) or Path(name).expanduser().is_dir():
        return base_model.outline(base_model.prepare(section))
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=section.revision)
    if isinstance(cached, str):
        return base_model.outline(Path(cached).parent)
    if name not in KNOWN:
        raise InputError(
            f"model.name_or_path: {name}: its config is not here and its shapes are not known; "
            "`lori pull` brings it (allowed without: " + ", ".join(sorted(KNOWN)) + ")"
        )
    import torch
    import transformers

    kind, layers, hidden, intermediate, keys, heads, vocabulary = KNOWN[name]
    config = getattr(transformers, kind)(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_key_value_heads=keys,
        num_attention_heads=heads,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def base_of(params: Params, model: Any) -> Base:
    """Return the sizes of a base model on the meta device.

    Args:
        params: gives rank and target modules.
        model: the base model.
    """
    rank = params.lori.rank
    shapes = peft_names.target_shapes(model, params.lori.target_modules)
    embedding = model.get_input_embeddings().weight.numel()
    total = sum(p.numel() for p in model.parameters())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return Base(
        body=total - embedding * (1 if tied else 2),
        total=total,
        stored=float(model.dtype.itemsize),
        **vars(sizes_of(model, rank, len(shapes), rank * sum(a + b for a, b in shapes.values()))),
    )
