"""What decides which tokens are written, and where an output ends: the same for every engine.

Decoding is plain: the likeliest token each time, or sampling by temperature and top_p alone. A base
model's `generation_config.json` may ask for more (repetition_penalty, no_repeat_ngram_size,
min_new_tokens, suppressed or forced tokens, beams, …); none of it is heeded, so that scores of
different bases compare, and are of the model and not of its recommended decoding. Where it ends is
the model's own: at any of its end-of-sequence tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lori_core import models


def end_ids(tokenizer: Any, *configs: Any) -> list[int]:
    """Return every token that ends an output, in order.

    Args:
        tokenizer: the model's.
        configs: the model's configuration and generation configuration: a chat model names its end
            of a turn there, beside the tokenizer's end of a text.
    """
    found: set[int] = set()
    for said in (tokenizer.eos_token_id, *(getattr(c, "eos_token_id", None) for c in configs)):
        found |= {said} if isinstance(said, int) else set(said or ())
    return sorted(found)


def model_end_ids(tokenizer: Any, model: Any) -> list[int]:
    """Return every token that ends an output of a loaded model."""
    return end_ids(tokenizer, model.config, model.config.get_text_config(), model.generation_config)


def folder_end_ids(tokenizer: Any, folder: Path) -> list[int]:
    """Return every token that ends an output of the model in a folder, which is not loaded."""
    from transformers import GenerationConfig

    configs = []
    if (folder / "config.json").is_file():
        config = models.configuration(folder)
        configs += [config, config.get_text_config()]
    if (folder / "generation_config.json").is_file():
        configs.append(GenerationConfig.from_pretrained(folder, local_files_only=True))
    return end_ids(tokenizer, *configs)


def until_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """Return the token ids before the first that ends an output."""
    stop = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:stop])


@contextmanager
def plain(model: Any) -> Iterator[None]:
    """Leave the base's `generation_config.json` out of account while generating.

    transformers fills in from there whatever a call leaves open.
    """
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = kept
