"""Where an output ends, and that a base's recommended decoding changes nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers_like import gemma
from transformers import GenerationConfig

from lori_core.adapters import attach
from lori_core.core.errors import ModelError
from lori_core.evaluation.inference import decoding
from lori_core.evaluation.inference.generation import Request, Sampling, generate, output
from lori_core.models import base_model
from support import random_adapter, tiny

PROMPT = [10, 20, 30, 40]


@pytest.fixture
def base() -> tuple[Any, Any]:
    model, folder, _ = tiny("llama")
    for name, parameter in model.named_parameters():
        if "proj" in name:
            parameter.data *= 8  # as it is, the model writes one token again and again
    return model, base_model.load_tokenizer(folder)


def written(model: Any, tokenizer: Any, limit: int = 12, **sampling: Any) -> Any:
    request = Request(PROMPT, limit, 1, Sampling(**sampling))
    ((found,),) = generate(model, tokenizer, [request], 4, "test")
    return found


def stock(model: Any, limit: int = 12) -> list[int]:
    """Return what `model.generate` writes by itself, its end with it."""
    ids = torch.tensor([PROMPT])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit)
    return list(found[0, len(PROMPT) :].tolist())


@pytest.mark.parametrize("where", ["generation_config", "config"])
@pytest.mark.parametrize("listed", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_an_output_ends_at_any_of_the_model_s_ends(
    where: str, listed: bool, adapted: bool, base: tuple[Any, Any]
) -> None:
    model, tokenizer = base
    worn = attach.apply_adapter(model, random_adapter()).eval() if adapted else model
    whole = stock(worn)
    assert len(whole) == 12
    end = next(token for token in whole[2:] if token not in whole[:2])
    before = whole[: whole.index(end)]
    getattr(model, where).eos_token_id = [end, 5000] if listed else end
    found = written(worn, tokenizer)
    assert found == output(tokenizer, before)
    assert found.tokens == len(before) < 12
    if where == "generation_config":
        assert stock(worn) == [*before, end]


def test_the_tokenizer_s_end_counts_beside_the_model_s(base: tuple[Any, Any]) -> None:
    model, tokenizer = base
    whole = stock(model)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(whole[3])
    assert written(model, tokenizer).tokens == whole.index(whole[3])
    assert decoding.model_end_ids(tokenizer, model) == sorted({whole[3], 258})


@pytest.mark.parametrize(
    "recommended",
    [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(100))},
        {"begin_suppress_tokens": list(range(200))},
        {"forced_eos_token_id": 258},
        {"min_new_tokens": 12},
        {"bad_words_ids": [[token] for token in range(150)]},
        {"num_beams": 3, "length_penalty": 3.0},
        {"do_sample": True, "temperature": 9.0, "top_k": 5, "min_p": 0.2},
        {"return_dict_in_generate": True, "output_scores": True},
        {"max_length": 5, "max_time": 0.0},
        {"cache_implementation": "static"},
    ],
    ids=lambda found: next(iter(found)),
)
def test_generation_config_settings_are_ignored(
    recommended: dict[str, Any], base: tuple[Any, Any]
) -> None:
    model, tokenizer = base
    plain = {
        name: written(model, tokenizer, **sampling)
        for name, sampling in {
            "greedy": {},
            "drawn": {"temperature": 1.5, "top_p": 0.9, "seed": 3},
        }.items()
    }
    model.generation_config = GenerationConfig(eos_token_id=258, pad_token_id=259, **recommended)
    kept = model.generation_config
    before = kept.to_dict()
    assert written(model, tokenizer) == plain["greedy"]
    found = written(model, tokenizer, temperature=1.5, top_p=0.9, seed=3)
    assert found == plain["drawn"]
    assert model.generation_config is kept
    assert kept.to_dict() == before


def test_a_failure_leaves_the_generation_config_in_its_place(base: tuple[Any, Any]) -> None:
    model, _ = base
    kept = model.generation_config
    with pytest.raises(ZeroDivisionError), decoding.plain(model):
        assert model.generation_config is not kept
        raise ZeroDivisionError
    assert model.generation_config is kept


def test_a_model_without_any_end_writes_to_the_limit(base: tuple[Any, Any]) -> None:
    model, tokenizer = base
    whole = stock(model)
    tokenizer.eos_token = tokenizer.pad_token = None
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    assert decoding.model_end_ids(tokenizer, model) == []
    assert written(model, tokenizer) == output(tokenizer, whole)


def test_both_engines_end_at_the_same_tokens(tmp_path: Path) -> None:
    model, folder, _ = tiny("llama")
    tokenizer = base_model.load_tokenizer(folder)
    model.config.eos_token_id = [258, 7]
    model.generation_config.eos_token_id = [258, 9]
    model.save_pretrained(tmp_path)
    assert decoding.folder_end_ids(tokenizer, tmp_path) == [7, 9, 258]
    assert decoding.folder_end_ids(tokenizer, tmp_path) == decoding.model_end_ids(tokenizer, model)
    (tmp_path / "generation_config.json").unlink()
    assert decoding.folder_end_ids(tokenizer, tmp_path) == [7, 258]
    assert decoding.folder_end_ids(tokenizer, tmp_path / "nothing") == [258]


def test_ends_are_named_once_in_order() -> None:
    tokenizer = gemma()
    configs = [SimpleNamespace(eos_token_id=said) for said in (None, 1, [5, 1], (7,))]
    assert decoding.end_ids(tokenizer, *configs, SimpleNamespace()) == [1, 5, 7]
    assert decoding.until_end([3, 4, 7, 1], [1, 5, 7]) == [3, 4]
    assert decoding.until_end((3, 4), []) == [3, 4]


@pytest.mark.parametrize("value", [[None], "5", [[5]], True, [True], 1.5, {"a": 1}, -1])
def test_an_end_that_is_no_token_is_refused(value: object) -> None:
    for config, file in (
        (GenerationConfig(), "generation_config.json"),
        (SimpleNamespace(), "tokenizer_config.json"),
    ):
        config.eos_token_id = value
        with pytest.raises(ModelError, match=f"^{file}: eos_token_id is ") as caught:
            decoding.end_ids(SimpleNamespace(eos_token_id=1), config)
        assert len(str(caught.value).splitlines()) == 1


def test_outputs_are_decoded_without_clean_up(base: tuple[Any, Any]) -> None:
    _, tokenizer = base
    tokenizer.clean_up_tokenization_spaces = True
    text = "print(' !') , x ."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert output(tokenizer, ids).text == text
