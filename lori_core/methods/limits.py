"""Check before a run that its base model and tokenizer can do what `params.yaml` asks for.

Each problem refused here would otherwise stop a run midway or make its results meaningless: a
tokenizer without an end-of-sequence token, token ids beyond the embedding, more tokens than the
model has positions, a prompt template that the tokenizer cannot render.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lori_core.config import EvaluationSection, Params, training_overrides
from lori_core.core import source_code
from lori_core.core.errors import ConfigError, DataError, ModelError
from lori_core.core.files.atomic import digest, sha256_file, write_text
from lori_core.data.prompts import Encoded, check_template, render, template_length
from lori_core.methods.training_method import METHODS
from lori_core.models import base_model

#: Holds the digest of the run that passed `check_once` last.
CHECKED = Path(".lori/checked")
#: A request that shows whether two prompt templates differ.
PROBE = "What is 17 + 25?"
#: Suffixes of the files in a model's folder that configure the model and its tokenizer.
_CONFIGURATION = (".json", ".jinja", ".model", ".tiktoken", ".txt")
#: Tokens of the prompt plus generated tokens under the protocol `paper`.
PAPER_TOKENS = 512 + 512
#: Types of RoPE scaling for which transformers takes `max_position_embeddings` as the length
#: before scaling.
_BEFORE_SCALING = ("dynamic", "yarn")
#: Types of RoPE scaling whose factor counts only where `original_max_position_embeddings` is set.
_SCALED = ("linear", "proportional")
#: Model types whose learned positions start after the padding token's index.
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
    """Run `check` unless the same run passed it last time and was recorded by `remember`.

    Loading a tokenizer imports libraries for seconds; a run with nothing to do skips that.

    Args:
        params: the run.
        folder: the prepared folder of the base model.

    Returns:
        A digest of the run, to pass to `remember` once all other checks have passed.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _CONFIGURATION)
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
    """Record the digest that `check_once` returned, so that it skips the check next time."""
    if not CHECKED.is_file() or CHECKED.read_text("utf-8") != checked:
        write_text(CHECKED, checked)


def check(
    params: Params, folder: Path, tokenizer: Any, *, training: bool = True, scoring: bool = True
) -> None:
    """Refuse a run that its base model or tokenizer cannot do.

    Args:
        params: the run.
        folder: the prepared folder of the base model.
        tokenizer: the tokenizer of the base model.
        training: whether the run trains adapters.
        scoring: whether the run generates outputs.

    Raises:
        ConfigError: a length exceeds the model's positions or is filled by the prompt template
            alone, or the template cannot render the prompts.
        ModelError: the tokenizer is missing, has no end-of-sequence token, or has token ids beyond
            the model's embedding.
    """
    config, name = base_model.configuration(folder), params.model.name_or_path
    _check_vocabulary(config, tokenizer, name)
    if training:
        _check_end(tokenizer, name)
    check_template(params.prompt, tokenizer)
    rows = _training_lengths(params) if training else {}
    prompts = {"evaluation.max_prompt_length": params.evaluation.max_prompt_length}
    lengths = rows | (prompts if scoring else {})
    _check_room(lengths, template_length(params.prompt, tokenizer))
    if scoring:
        _check_setups(params, tokenizer, prompts)
    most = positions(config)
    if most is None:
        return
    for key, tokens in rows.items():
        if tokens > most:
            raise ConfigError(f"{key}: {tokens}, but {_reach(config, most)}; set {most} or less")
    for setting, tokens, advice in _evaluation_lengths(params.evaluation) if scoring else ():
        if tokens > most:
            raise ConfigError(f"{setting}, but {_reach(config, most)}; {advice}")


def _check_setups(params: Params, tokenizer: Any, lengths: Mapping[str, int]) -> None:
    """Refuse a set-up whose system turn the template cannot render or does not show."""
    before = render(PROBE, params.prompt, tokenizer)
    for name, setup in params.evaluation.setups.items():
        if setup.system is None or setup.system == params.prompt.system:
            continue
        where = f"evaluation.setups.{name}.system"
        prompt = params.prompt.model_copy(update={"system": setup.system})
        check_template(prompt, tokenizer, where)
        if render(PROBE, prompt, tokenizer) == before:
            raise ConfigError(
                f"{where}: {setup.system[:60]!r} gives the same prompt as prompt.system; change or "
                "remove it"
            )
        _check_room(lengths, template_length(prompt, tokenizer))


def _check_vocabulary(config: Any, tokenizer: Any, name: str) -> None:
    embedded = config.get_text_config().vocab_size
    vocabulary = tokenizer.get_vocab()
    if not vocabulary.keys() - set(tokenizer.all_special_tokens):
        # transformers builds such a tokenizer for a folder that has none.
        raise ModelError(
            f"model.name_or_path: {name}: its tokenizer has no tokens but special ones; put the "
            "model's tokenizer.json, or the files it is made of, into its folder"
        )
    over = {token for token, at in vocabulary.items() if at >= embedded}
    padding = str(tokenizer.init_kwargs.get("pad_token"))
    if padding not in tokenizer.special_tokens_map.values():
        over.discard(padding)  # `load_tokenizer` chose another padding token; this one is unused
    if over:
        worst = max(over, key=vocabulary.__getitem__)
        raise ModelError(
            f"model.name_or_path: {name}: its tokenizer has {len(over)} tokens that the model does "
            f"not embed, up to {worst!r} with id {vocabulary[worst]} (vocab_size in config.json: "
            f"{embedded}); take the model's own tokenizer, or resize the model's embedding"
        )


def _check_end(tokenizer: Any, name: str) -> None:
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model.name_or_path: {name}: its tokenizer has no end-of-sequence token, so a model "
            "could not learn where an answer ends; name one as eos_token in tokenizer_config.json"
        )


def check_rows(
    rows: Mapping[str, Sequence[Encoded]], model: Any, tokenizer: Any, name: str
) -> None:
    """Refuse examples, tokenised as for training, whose losses a loaded model cannot measure.

    It stands for the checks of a run where the model is not that of `params.yaml`.

    Args:
        rows: by task, its examples.
        model: the loaded model.
        tokenizer: its tokenizer.
        name: the model's name in messages.

    Raises:
        ModelError: the tokenizer has no end-of-sequence token.
        DataError: an example has more tokens than the model has positions, or a token id beyond
            the model's embedding.
    """
    _check_end(tokenizer, name)
    most = positions(model.config)
    for task, some in rows.items():
        longest = max(map(len, some), default=0)
        if most is not None and longest > most:
            raise DataError(
                f"{task}: an example has {longest} tokens, but {_reach(model.config, most)}; set "
                f"training.max_length in params.yaml to {most} or less"
            )
        check_ids(max((max(row.prompt + row.target) for row in some), default=0), model, task)


def check_ids(highest: int, model: Any, what: str) -> None:
    """Refuse token ids beyond the model's embedding.

    Args:
        highest: the highest token id of a data set.
        model: the loaded model.
        what: the field to name in the error.

    Raises:
        DataError: `highest` has no row in the embedding.
    """
    embedded = model.get_input_embeddings().weight.shape[0]
    if highest >= embedded:
        raise DataError(
            f"{what}: a text has a token of id {highest}, but the model embeds {embedded} tokens; "
            "take that special token out of the text"
        )


def check_row(tokens: int, model: Any, what: str) -> None:
    """Refuse a row of more tokens than a loaded model has positions.

    Args:
        tokens: the length of the row.
        model: the loaded model.
        what: the row's name for the error.

    Raises:
        DataError: the row is too long.
    """
    most = positions(model.config)
    if most is not None and tokens > most:
        raise DataError(
            f"{what}: {tokens} tokens with the longest answer, but {_reach(model.config, most)}; "
            "lower evaluation.max_prompt_length"
        )


def _training_lengths(params: Params) -> dict[str, int]:
    """Return each `max_length` used in training, by the key of params.yaml that sets it."""
    values, lengths = params.model_dump(), {}
    for task in params.tasks:
        wanted: list[training_overrides.Phase] = ["training"]
        method = METHODS[params.method(task).name]
        wanted += ["calibration"] if method.calibrated_by else []
        wanted += ["continual"] if task in params.continual.tasks else []
        for phase in wanted:
            sections = ["training", *training_overrides.override_sections(task, phase)]
            setting = [where for where in sections if "max_length" in _at(values, where)]
            lengths[f"{setting[-1]}.max_length"] = params.phase(task, phase).max_length
    return lengths


def _at(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    return reduce(lambda section, part: section[part], where.split("."), values)


def _evaluation_lengths(section: EvaluationSection) -> Iterator[tuple[str, int, str]]:
    """Yield each setting in words, the tokens it takes, and what to do if that is too many."""
    prompt = section.max_prompt_length
    for scorer, new in section.new_tokens.items():
        words = f"evaluation.max_prompt_length: {prompt} and max_new_tokens.{scorer}: {new}"
        yield f"{words} are {prompt + new} tokens", prompt + new, "lower one of them"
    if "paper" in section.protocols:
        words = f"evaluation.protocols: paper takes up to {PAPER_TOKENS} tokens"
        yield words, PAPER_TOKENS, "leave it out"


def _check_room(lengths: Mapping[str, int], template: int) -> None:
    """Refuse lengths that the prompt template alone fills."""
    for key, tokens in lengths.items():
        if tokens <= template:
            raise ConfigError(
                f"{key}: {tokens}, but the prompt's template alone takes {template} tokens; set "
                "more, or prompt.template plain"
            )


def positions(config: Any) -> int | None:
    """Return how many tokens a model's context holds, prompt and output; None without a limit.

    Learned and tabulated positions end at `max_position_embeddings`; RoBERTa-like models start
    theirs after the padding token's index. Rotary positions have no end, but the model was not
    trained on later ones: the limit is `max_position_embeddings` or, if larger, the length before
    RoPE scaling times the scaling's factor. For `dynamic` and `yarn`, transformers takes
    `max_position_embeddings` as the length before scaling. For `linear`, that value may already
    include the factor (Gemma 3), so the factor counts only with `original_max_position_embeddings`.

    Args:
        config: the model's configuration.
    """
    config = config.get_text_config()
    most = getattr(config, _positions_key(config), None)
    if not isinstance(most, int) or most <= 0 or getattr(config, "alibi", False):
        return None
    if config.model_type in BEHIND_PADDING:
        return most - (config.pad_token_id or 0) - 1
    rope = getattr(config, "rope_parameters", None) or {}
    # Some models configure RoPE separately for each type of layer.
    each = [part for part in rope.values() if isinstance(part, Mapping)] or [rope]
    return max(most, *(_scaled(most, part) for part in each))


def _scaled(most: int, rope: Mapping[str, Any]) -> int:
    """Return the positions that one RoPE configuration supports."""
    kind, before = rope.get("rope_type"), rope.get("original_max_position_embeddings")
    if kind in _BEFORE_SCALING or (kind in _SCALED and before):
        return int((before or most) * (rope.get("factor") or 1))
    return most


def _positions_key(config: Any) -> str:
    """Return the key of the number of positions in the model's own config.json."""
    names: Mapping[str, str] = getattr(config, "attribute_map", {})
    key = names.get("max_position_embeddings", "max_position_embeddings")
    return key if hasattr(config, key) else "max_seq_len"


def _reach(config: Any, most: int) -> str:
    """Describe the model's limit on positions, for error messages."""
    config = config.get_text_config()
    key = _positions_key(config)
    if getattr(config, "rope_parameters", None):
        return (
            f"the model was trained for {most} positions ({key} in its config.json), and its "
            "output beyond them is meaningless (rope_scaling, if set, is included)"
        )
    behind = ", less those of padding" if config.model_type in BEHIND_PADDING else ""
    return f"the model has {most} positions ({key} in its config.json{behind})"
