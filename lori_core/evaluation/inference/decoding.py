"""Decoding rules of both engines: generation settings and end-of-sequence tokens.

Decoding is greedy, or samples with temperature and top_p only. All other settings of a base model's
`generation_config.json` (repetition_penalty, no_repeat_ngram_size, min_new_tokens, suppressed or
forced tokens, beams, …) are ignored, so that scores of different base models are comparable and
measure the model instead of its recommended decoding. An output ends at any of the model's
end-of-sequence tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lori_core.core.errors import ModelError
from lori_core.models import base_model


def end_ids(tokenizer: Any, *configs: Any) -> list[int]:
    """Return the ids of all end-of-sequence tokens, sorted.

    Args:
        tokenizer: the model's tokenizer.
        configs: the model's configuration and generation configuration; chat models name the token
            that ends a turn there, in addition to the tokenizer's end of text.

    Raises:
        ModelError: an `eos_token_id` is neither a token id nor a list of token ids.
    """
    end: set[int] = set()
    for config in (tokenizer, *configs):
        value = getattr(config, "eos_token_id", None)
        ids = value if isinstance(value, list | tuple) else () if value is None else (value,)
        if not all(type(one) is int and one >= 0 for one in ids):
            raise ModelError(
                f"{_file_of(config)}: eos_token_id is {str(value)[:60]!r}, not a token id or a "
                "list of them; download the file again from the base model's source"
            )
        end |= set(ids)
    return sorted(end)


def _file_of(config: Any) -> str:
    """Return the name of the file from which a configuration or tokenizer was read."""
    kind = type(config).__name__
    if kind.endswith("GenerationConfig"):
        return "generation_config.json"
    return "config.json" if kind.endswith("Config") else "tokenizer_config.json"


def model_end_ids(tokenizer: Any, model: Any) -> list[int]:
    """Return the ids of all end-of-sequence tokens of a loaded model."""
    return end_ids(tokenizer, model.config, model.config.get_text_config(), model.generation_config)


def folder_end_ids(tokenizer: Any, folder: Path) -> list[int]:
    """Return the ids of all end-of-sequence tokens of the model in a folder, without loading it."""
    from transformers import GenerationConfig

    configs = []
    if (folder / "config.json").is_file():
        config = base_model.configuration(folder)
        configs += [config, config.get_text_config()]
    if (folder / "generation_config.json").is_file():
        try:
            configs.append(GenerationConfig.from_pretrained(folder, local_files_only=True))
        except Exception as error:  # transformers raises various types for wrong settings
            raise ModelError(
                f"{folder / 'generation_config.json'}: cannot be read: {error!r:.200}; download "
                "the file again from the model's source"
            ) from error
    return end_ids(tokenizer, *configs)


def until_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """Return the token ids before the first end-of-sequence token."""
    stop = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:stop])


@contextmanager
def plain(model: Any) -> Iterator[None]:
    """Ignore the base model's `generation_config.json` while generating.

    transformers uses it for all settings that a call of `generate` does not give.
    """
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    original = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = original
