"""Tiny random bases of many architectures, saved as transformers saves them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from lori_core.config import ModelSection
from lori_core.models import base_model

_WORDS: dict[str, Any] = {
    "vocab_size": 260,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 259,
}
_LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_PICTURES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
_SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def _text(kind: str, **more: Any) -> Any:
    return AutoConfig.for_model(kind, **(_WORDS | _LAYERS | more))


def _own(kind: str, **sizes: Any) -> Any:
    return AutoConfig.for_model(kind, **_WORDS, **sizes)


def _pictured(kind: str, text: str, vision: str, **more: Any) -> Any:
    return AutoConfig.for_model(
        kind,
        text_config=_WORDS | _LAYERS | {"model_type": text, "head_dim": 8},
        vision_config=_PICTURES | {"model_type": vision},
        **more,
    )


def _gemma4() -> Any:
    text = {"head_dim": 8, "global_head_dim": 8, "hidden_size_per_layer_input": 4}
    text |= {"vocab_size_per_layer_input": 260, "num_kv_shared_layers": 0}
    kinds = ["sliding_attention", "full_attention"]
    return AutoConfig.for_model(
        "gemma4",
        text_config=_WORDS
        | _LAYERS
        | text
        | {"layer_types": kinds, "final_logit_softcapping": 0.1},
    )


def _mllama() -> Any:
    crossing = {"model_type": "mllama_text_model", "cross_attention_layers": [1]}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [0],
        "max_num_tiles": 1,
        "supported_aspect_ratios": [[1, 1]],
    }
    return AutoConfig.for_model(
        "mllama", text_config=_WORDS | _LAYERS | crossing, vision_config=vision
    )


SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = SEVEN[:4]
FUSED = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
_GEMMA3 = {"mm_tokens_per_image": 4, "image_token_index": 255, "boi_token_index": 254}
#: A config's maker, and what is adapted there.
BASES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "llama": (lambda: _text("llama"), SEVEN),
    "mistral": (lambda: _text("mistral"), SEVEN),
    "gpt2": (
        lambda: _own("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=512),
        ("c_attn", "c_proj", "c_fc"),
    ),
    "gemma3_text": (lambda: _text("gemma3_text", head_dim=8), SEVEN),
    "gemma3": (
        lambda: _pictured(
            "gemma3", "gemma3_text", "siglip_vision_model", eoi_token_index=253, **_GEMMA3
        ),
        SEVEN,
    ),
    "gemma4": (_gemma4, SEVEN),
    "mllama": (_mllama, SEVEN),
    "mixtral": (lambda: _text("mixtral", num_local_experts=4), ATTENTION),
    "qwen2_moe": (lambda: _text("qwen2_moe", shared_expert_intermediate_size=24, **_SPARSE), SEVEN),
    "qwen3_moe": (
        lambda: _text("qwen3_moe", head_dim=8, mlp_only_layers=[0], **_SPARSE),
        ATTENTION,
    ),
    "olmoe": (lambda: _text("olmoe", num_experts=4, num_experts_per_tok=2), ATTENTION),
    "deepseek_v3": (lambda: _text("deepseek_v3", **_LATENT), ("q_a_proj", "kv_b_proj", "o_proj")),
    "gpt_oss": (
        lambda: _text("gpt_oss", num_local_experts=4, num_experts_per_tok=2, head_dim=8),
        ATTENTION,
    ),
    "phi3": (lambda: _text("phi3"), ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    "gpt_neox": (lambda: _text("gpt_neox"), FUSED),
    "opt": (
        lambda: _own(
            "opt",
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            word_embed_proj_dim=32,
        ),
        ("q_proj", "out_proj", "fc1", "fc2"),
    ),
    "falcon": (
        lambda: _own("falcon", hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        FUSED,
    ),
    "bloom": (lambda: _own("bloom", hidden_size=32, n_layer=2, n_head=4), FUSED),
    "llava": (lambda: _pictured("llava", "llama", "clip_vision_model"), SEVEN),
}
#: Which need a class of their own to be made.
_SAVED_AS_PICTURED = ("gemma3", "mllama", "llava")


@cache
def _made(kind: str, folder: Path) -> Path:
    config, _ = BASES[kind]
    of = AutoModelForImageTextToText if kind in _SAVED_AS_PICTURED else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        of.from_config(config(), dtype=torch.float32).save_pretrained(folder)
    base_model._byte_tokenizer().save_pretrained(folder)
    return folder


def base_folder(kind: str, within: Path) -> Path:
    """Return a folder with a tiny base, made once for each `within`."""
    return _made(kind, within / kind)


def loaded(folder: Path) -> Any:
    """Return a base as it is loaded for training and evaluation."""
    return base_model.load(ModelSection(name_or_path=str(folder), dtype="float32"), folder)


def logits(model: Any) -> Tensor:
    """Return what a model makes of two rows of tokens."""
    ids = torch.randint(0, 250, (2, 12), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found
