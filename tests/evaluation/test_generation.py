from pathlib import Path

import pytest
import torch

from lori_core import models, params_file, peft_names
from lori_core.config import EvaluationSection, PromptSection
from lori_core.data.example import Example
from lori_core.errors import AdapterError
from lori_core.evaluation.evaluate import wearing
from lori_core.evaluation.generation import generate
from lori_core.session import Session
from support import random_adapter, tiny

PLAIN = PromptSection(template="plain")


def session(architecture: str = "llama") -> Session:
    model, folder, base = tiny(architecture)
    modules = peft_names.target_shapes(model, ("q_proj",)) if architecture == "llama" else {}
    params = params_file.load(Path(__file__).parents[2] / "profiles" / "smoke.yaml")
    tokenizer = models.load_tokenizer(folder)
    return Session(params, base, model, tokenizer, modules, model.num_parameters(), False)


def test_batches_write_what_single_prompts_write(architecture: str) -> None:
    model, folder, _ = tiny(architecture)
    tokenizer = models.load_tokenizer(folder)
    section = EvaluationSection.model_validate(
        {"batch_size": 4, "max_new_tokens": {"choice": 5, "number": 9}}
    )
    examples = [
        Example("ab" * n, "", scorer="choice" if n % 3 else "number") for n in (9, 1, 5, 2, 7, 3, 8)
    ]
    written = generate(model, tokenizer, examples, PLAIN, section, "test")
    for example, generation in zip(examples, written, strict=True):
        ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
        limit = 5 if example.scorer == "choice" else 9
        alone = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=259,
            eos_token_id=258,
        )[0, ids.shape[1] :].tolist()
        if 258 in alone:
            alone = alone[: alone.index(258)]
        assert generation.text == tokenizer.decode(alone, skip_special_tokens=True)
        assert generation.tokens == len(alone)
        assert not generation.cut


def test_a_prompt_that_is_too_long_is_cut_and_said_so() -> None:
    model, folder, _ = tiny("llama")
    section = EvaluationSection.model_validate(
        {"max_prompt_length": 8, "max_new_tokens": {"choice": 2}}
    )
    tokenizer = models.load_tokenizer(folder)
    examples = [Example("x" * 20, "", scorer="choice"), Example("y", "", scorer="choice")]
    long, short = generate(model, tokenizer, examples, PLAIN, section, "test")
    assert (long.cut, short.cut) == (True, False)


def test_adapters_are_swapped_on_one_base_and_leave_it_as_it_was() -> None:
    opened = session()
    ids = torch.tensor([[1, 2, 3]])
    before = opened.model(ids).logits
    first, second = random_adapter(key="math"), random_adapter(key="code", seed=2, rank=6)
    logits = []
    for adapter in (first, second, first):
        with wearing(opened, adapter) as model:
            logits.append(model(ids).logits)
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])
    assert torch.equal(opened.model(ids).logits, before)
    with wearing(opened, None) as model:
        assert model is opened.model


def test_an_adapter_of_another_base_is_refused() -> None:
    with (
        pytest.raises(AdapterError, match="use that base"),
        wearing(session(), random_adapter("mistral")),
    ):
        pass
