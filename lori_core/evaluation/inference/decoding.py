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

from lori_core.core.errors import ModelError
from lori_core.models import base_model


def end_ids(tokenizer: Any, *configs: Any) -> list[int]:
    """Return every token that ends an output, in order.

    Args:
        tokenizer: the model's.
        configs: the model's configuration and generation configuration: a chat model names its end
            of a turn there, beside the tokenizer's end of a text.

    Raises:
        ModelError: for an `eos_token_id` that is no token id and no list of them.
    """
    found: set[int] = set()
    for config in (tokenizer, *configs):
        said = getattr(config, "eos_token_id", None)
        ids = said if isinstance(said, list | tuple) else () if said is None else (said,)
        if not all(type(one) is int and one >= 0 for one in ids):
            raise ModelError(
                f"{_file_of(config)}: eos_token_id is {str(said)[:60]!r}, not a token id or a list "
                "of them; take the file anew from where the base model came"
            )
        found |= set(ids)
    return sorted(found)


def _file_of(config: Any) -> str:
    """Return which file of a model's folder a configuration or tokenizer was read from."""
    kind = type(config).__name__
    if kind.endswith("GenerationConfig"):
        return "generation_config.json"
    return "config.json" if kind.endswith("Config") else "tokenizer_config.json"


def model_end_ids(tokenizer: Any, model: Any) -> list[int]:
    """Return every token that ends an output of a loaded model."""
    return end_ids(tokenizer, model.config, model.config.get_text_config(), model.generation_config)


def folder_end_ids(tokenizer: Any, folder: Path) -> list[int]:
    """Return every token that ends an output of the model in a folder, which is not loaded."""
    from transformers import GenerationConfig

    configs = []
    if (folder / "config.json").is_file():
        config = base_model.configuration(folder)
        configs += [config, config.get_text_config()]
    if (folder / "generation_config.json").is_file():
        try:
            configs.append(GenerationConfig.from_pretrained(folder, local_files_only=True))
        except Exception as error:  # a wrong setting makes it raise whatever comes
            raise ModelError(
                f"{folder / 'generation_config.json'}: cannot be read: {error!r:.200}; take the "
                "file anew from where the model came"
            ) from error
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
