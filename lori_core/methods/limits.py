"""What a run asks of its base model and tokenizer, checked before anything runs.

All of it would otherwise end a run in the middle, or make its results meaningless: a target without
an end, a token that the model does not embed, a position that it does not have, a prompt that its
template cannot write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lori_core.config import EvaluationSection, Params, training_overrides
from lori_core.core import source_code
from lori_core.core.errors import ConfigError, DataError, ModelError
from lori_core.core.files.atomic import digest, sha256_file, write_text
from lori_core.data.prompts import check_template, template_length
from lori_core.methods.training_method import METHODS
from lori_core.models import base_model

#: The digest of what was found good the last time.
CHECKED = Path(".lori/checked")
#: The kinds of files in a model's folder that say how it reads.
_SMALL = (".json", ".jinja", ".model", ".tiktoken", ".txt")
#: Tokens of a prompt and of what is written after it under the protocol `paper`.
PAPER_TOKENS = 512 + 512
#: Rotary scalings that transformers computes from `max_position_embeddings` as the length before.
_BEFORE_SCALING = ("dynamic", "yarn")
#: Rotary scalings of other kinds, whose factor counts where the length before is given.
_SCALED = ("linear", "proportional")
#: Kinds of models whose learned positions begin behind the one of the padding token.
BEHIND_PADDING = (
    "camembert",
    "data2vec-text",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)


def check_once(params: Params, folder: Path) -> str:
    """Check a run as `check` does, unless it was found good and `remember`ed the last time.

    Importing what reads a tokenizer takes seconds, which a run with nothing to do need not wait.

    Returns:
        What to `remember` once nothing else of the run was refused.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _SMALL)
    key = digest(
        [
            params.model_dump(mode="json"),
            {path.name: sha256_file(path) for path in files},
            [version(library) for library in ("transformers", "tokenizers")],
            source_code.digests(("data/chat.py", "methods/limits.py", "data/prompts.py")),
        ]
    )
    if CHECKED.is_file() and CHECKED.read_text("utf-8") == key:
        return key
    check(params, folder, base_model.load_tokenizer(folder))
    return key


def remember(checked: str) -> None:
    """Remember what `check_once` has found good."""
    if not CHECKED.is_file() or CHECKED.read_text("utf-8") != checked:
        write_text(CHECKED, checked)


def check(
    params: Params, folder: Path, tokenizer: Any, *, training: bool = True, scoring: bool = True
) -> None:
    """Refuse a run that its base model or tokenizer cannot do.

    Args:
        params: the run.
        folder: the base model's, prepared.
        tokenizer: the base model's.
        training: whether something is to be trained.
        scoring: whether outputs are to be generated.

    Raises:
        ConfigError: for a length that the model has no positions for, or that the prompt's template
            leaves no room in; for a template that cannot write the prompts.
        ModelError: for a tokenizer that is missing, has no end-of-sequence token, or has more
            tokens than the model embeds.
    """
    config, name = base_model.configuration(folder), params.model.name_or_path
    _check_vocabulary(config, tokenizer, name)
    if training and tokenizer.eos_token_id is None:
        raise ModelError(
            f"model.name_or_path: {name}: its tokenizer has no end-of-sequence token, so a model "
            "could not learn where an answer ends; name one as eos_token in tokenizer_config.json"
        )
    check_template(params.prompt, tokenizer)
    rows = _training_lengths(params) if training else {}
    prompts = {"evaluation.max_prompt_length": params.evaluation.max_prompt_length}
    lengths = rows | (prompts if scoring else {})
    _check_room(lengths, template_length(params.prompt, tokenizer))
    most = positions(config)
    if most is None:
        return
    for key, tokens in rows.items():
        if tokens > most:
            raise ConfigError(f"{key}: {tokens}, but {_reach(config, most)}; set {most} or less")
    for asked, tokens, instead in _evaluation_lengths(params.evaluation) if scoring else ():
        if tokens > most:
            raise ConfigError(f"{asked}, but {_reach(config, most)}; {instead}")


def _check_vocabulary(config: Any, tokenizer: Any, name: str) -> None:
    embedded = config.get_text_config().vocab_size
    vocabulary = tokenizer.get_vocab()
    if not vocabulary.keys() - set(tokenizer.all_special_tokens):
        # What transformers makes of a folder that has no tokenizer.
        raise ModelError(
            f"model.name_or_path: {name}: its tokenizer has no tokens but special ones; put the "
            "model's tokenizer.json, or the files it is made of, into its folder"
        )
    over = {token for token, at in vocabulary.items() if at >= embedded}
    filler = str(tokenizer.init_kwargs.get("pad_token"))
    if filler not in tokenizer.special_tokens_map.values():
        over.discard(filler)  # it was to fill batches alone, and `load_tokenizer` took another
    if over:
        worst = max(over, key=vocabulary.__getitem__)
        raise ModelError(
            f"model.name_or_path: {name}: its tokenizer has {len(over)} tokens that the model does "
            f"not embed, up to {worst!r} with id {vocabulary[worst]} (vocab_size in config.json: "
            f"{embedded}); take the model's own tokenizer, or resize the model's embedding"
        )


def check_ids(highest: int, model: Any, what: str) -> None:
    """Refuse token ids beyond the model's embedding.

    Raises:
        DataError: naming `what` they are in.
    """
    embedded = model.get_input_embeddings().weight.shape[0]
    if highest >= embedded:
        raise DataError(
            f"{what}: a text has a token of id {highest}, but the model embeds {embedded} tokens; "
            "take that special token out of the text"
        )


def check_row(tokens: int, model: Any, what: str) -> None:
    """Refuse a row of more tokens than a loaded model has positions.

    Raises:
        DataError: naming `what` it is.
    """
    most = positions(model.config)
    if most is not None and tokens > most:
        raise DataError(
            f"{what}: {tokens} tokens with the longest answer, but {_reach(model.config, most)}; "
            "lower evaluation.max_prompt_length"
        )


def _training_lengths(params: Params) -> dict[str, int]:
    """Return every `max_length` that is trained with, by the key that says so."""
    values, found = params.model_dump(), {}
    for task in params.tasks:
        wanted: list[training_overrides.Phase] = ["training"]
        method = METHODS[params.tasks[task].method_name]
        wanted += ["calibration"] if method.calibrated_by else []
        wanted += ["continual"] if task in params.continual.tasks else []
        for phase in wanted:
            sections = ["training", *training_overrides.override_sections(task, phase)]
            said = [where for where in sections if "max_length" in _at(values, where)]
            found[f"{said[-1]}.max_length"] = params.phase(task, phase).max_length
    return found


def _at(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    return reduce(lambda section, part: section[part], where.split("."), values)


def _evaluation_lengths(section: EvaluationSection) -> Iterator[tuple[str, int, str]]:
    """Yield what is asked for in words, how many tokens that takes, and what to do instead."""
    prompt = section.max_prompt_length
    for scorer, new in section.new_tokens.items():
        words = f"evaluation.max_prompt_length: {prompt} and max_new_tokens.{scorer}: {new}"
        yield f"{words} are {prompt + new} tokens", prompt + new, "lower one of them"
    if "paper" in section.protocols:
        words = f"evaluation.protocols: paper takes up to {PAPER_TOKENS} tokens"
        yield words, PAPER_TOKENS, "leave it out"


def _check_room(lengths: Mapping[str, int], template: int) -> None:
    """Refuse lengths that the prompt's template alone fills."""
    for key, tokens in lengths.items():
        if tokens <= template:
            raise ConfigError(
                f"{key}: {tokens}, but the prompt's template alone takes {template} tokens; set "
                "more, or prompt.template plain"
            )


def positions(config: Any) -> int | None:
    """Return how many tokens a model can read and write together; None where there is no limit.

    Positions that are learned, or kept in a table, end there; those of RoBERTa's kind begin behind
    the padding token. Rotary positions go on, but the model has not seen them: the limit is
    `max_position_embeddings`, or where that is more, the length before a scaling times its factor.
    Transformers takes `max_position_embeddings` for that length with dynamic and yarn; with linear
    it may count the factor already (Gemma 3), so `original_max_position_embeddings` must say it.
    """
    config = config.get_text_config()
    most = getattr(config, _positions_key(config), None)
    if not isinstance(most, int) or most <= 0 or getattr(config, "alibi", False):
        return None
    if config.model_type in BEHIND_PADDING:
        return most - (config.pad_token_id or 0) - 1
    rope = getattr(config, "rope_parameters", None) or {}
    # Some models give each type of layer its own.
    each = [part for part in rope.values() if isinstance(part, Mapping)] or [rope]
    return max(most, *(_scaled(most, part) for part in each))


def _scaled(most: int, rope: Mapping[str, Any]) -> int:
    kind, before = rope.get("rope_type"), rope.get("original_max_position_embeddings")
    if kind in _BEFORE_SCALING or (kind in _SCALED and before):
        return int((before or most) * (rope.get("factor") or 1))
    return most


def _positions_key(config: Any) -> str:
    """Return what the model's own config.json calls its positions."""
    names: Mapping[str, str] = getattr(config, "attribute_map", {})
    key = names.get("max_position_embeddings", "max_position_embeddings")
    return key if hasattr(config, key) else "max_seq_len"


def _reach(config: Any, most: int) -> str:
    config = config.get_text_config()
    key = _positions_key(config)
    if getattr(config, "rope_parameters", None):
        return (
            f"the model was trained for {most} positions ({key} in its config.json), and what it "
            "makes of later ones means nothing (rope_scaling, where it has one, is counted in)"
        )
    behind = ", less those of padding" if config.model_type in BEHIND_PADDING else ""
    return f"the model has {most} positions ({key} in its config.json{behind})"
