from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, TopPLogitsWarper

from lori_core.core.errors import AdapterError, DataError
from lori_core.evaluation.evaluate import adapter_applied
from lori_core.evaluation.inference import generation
from lori_core.evaluation.inference.generation import (
    GREEDY,
    Output,
    Request,
    Sampling,
    TopP,
    _processors,
    generate,
    length_batches,
)
from lori_core.methods.loaded_model import LoadedModel
from lori_core.models import base_model, peft_names
from lori_core.pipeline import params_file
from support import random_adapter, tiny


def session(architecture: str = "llama") -> LoadedModel:
    model, folder, base = tiny(architecture)
    modules = peft_names.target_shapes(model, ("q_proj",)) if architecture == "llama" else {}
    params = params_file.load(Path(__file__).parents[3] / "profiles" / "smoke.yaml")
    tokenizer = base_model.load_tokenizer(folder)
    return LoadedModel(params, base, model, tokenizer, modules, model.num_parameters(), False)


def alone(model: Any, ids: list[int], limit: int) -> list[int]:
    """Continue one prompt by itself."""
    prompt = torch.tensor([ids])
    written: list[int] = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=limit,
        do_sample=False,
        pad_token_id=259,
        eos_token_id=258,
    )[0, len(ids) :].tolist()
    return written[: written.index(258)] if 258 in written else written


def test_batches_write_what_single_prompts_write(architecture: str) -> None:
    model, folder, _ = tiny(architecture)
    tokenizer = base_model.load_tokenizer(folder)
    requests = [
        Request(tokenizer("ab" * n)["input_ids"], 5 if n % 3 else 9) for n in (9, 1, 5, 2, 7, 3, 8)
    ]
    written = generate(model, tokenizer, requests, 4, "test")
    for request, (output,) in zip(requests, written, strict=True):
        expected = alone(model, request.prompt, request.limit)
        assert output.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert output.tokens == len(expected)


@pytest.mark.parametrize("window", [None, 6])
def test_rows_that_have_ended_are_left_out_of_later_steps(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=window,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)  # so that outputs do not repeat a token
    model.generation_config.eos_token_id = list(range(1, 256, 8))
    rows: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    tokenizer = base_model.load_tokenizer(tiny("llama")[1])
    lengths = (3, 5, 9, 14, 7, 4, 11, 8)
    requests = [Request(torch.randint(32, 64, (length,)).tolist(), 30) for length in lengths]
    ours = generate(model, tokenizer, requests, 8, "test")
    ours_rows = sum(rows)
    rows.clear()
    monkeypatch.setattr(generation, "STEPS", 30)
    assert generate(model, tokenizer, requests, 8, "test") == ours
    tokens = [output.tokens for (output,) in ours]
    assert min(tokens) < 10 < max(tokens)
    assert ours_rows < 0.8 * sum(rows)


def test_samples_are_many_differ_and_can_be_repeated() -> None:
    model, folder, _ = tiny("llama")
    tokenizer = base_model.load_tokenizer(folder)
    sampling = Sampling(temperature=1.5, top_p=0.99, seed=4)
    requests = [Request([1, 2, 3], 8, 6, sampling), Request([5, 6], 8)]
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second = (generate(model, tokenizer, requests, 4, "test") for _ in range(2))
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [len(outputs) for outputs in first] == [6, 1]
    assert len({output.text for output in first[0]}) > 1
    other = [Request([1, 2, 3], 8, 6, Sampling(1.5, 0.99, seed=5))]
    assert generate(model, tokenizer, other, 4, "test")[0] != first[0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.95, 0.9999])
def test_the_nucleus_is_that_of_transformers(scale: float, top_p: float) -> None:
    scores = scale * torch.randn(5, 3000, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(5, 1, dtype=torch.long)
    expected = TopPLogitsWarper(top_p)(ids, scores)
    found = TopP(top_p)(ids, scores)
    assert torch.equal(found[found > -torch.inf], scores[found > -torch.inf])
    # The two add the probabilities up from opposite ends, so one at the edge may differ.
    assert (torch.isinf(found) != torch.isinf(expected)).sum(-1).max() <= 1


def test_a_temperature_comes_before_the_nucleus() -> None:
    scores = torch.tensor([[4.0, 3.0, 0.0]])
    ids = torch.zeros(1, 1, dtype=torch.long)
    kept = {
        temperature: torch.isfinite(_processors(Sampling(temperature, 0.9))(ids, scores)).sum()
        for temperature in (0.2, 1.0, 100.0)
    }
    assert kept == {0.2: 1, 1.0: 2, 100.0: 3}
    assert not _processors(GREEDY)


def test_nothing_to_continue_is_no_error() -> None:
    model, folder, _ = tiny("llama")
    assert generate(model, base_model.load_tokenizer(folder), [], 4, "test") == []


def test_what_cannot_be_read_is_refused() -> None:
    model, folder, _ = tiny("llama")
    tokenizer = base_model.load_tokenizer(folder)
    for prompt, message in (
        ([], "math: a prompt has no tokens, so nothing can follow"),
        ([1, 260], "math: a text has a token of id 260, but the model embeds 260 tokens"),
    ):
        with pytest.raises(DataError, match=message):
            generate(model, tokenizer, [Request([1], 4), Request(prompt, 4)], 4, "math")
    assert generate(model, tokenizer, [Request([], 0)], 4, "math") == [[Output("", 0)]]


def test_batches_hold_like_lengths_of_one_group() -> None:
    lengths = [30, 1, 2, 100, 31, 3]
    assert length_batches(lengths, 2) == [[1, 2], [5], [0, 4], [3]]
    assert length_batches(lengths, 9, ["a", "b", "a", "a", "a", "b"]) == [[1, 5], [2], [0, 4], [3]]


def test_adapters_are_swapped_on_one_base_and_leave_it_as_it_was() -> None:
    opened = session()
    ids = torch.tensor([[1, 2, 3]])
    before = opened.model(ids).logits
    first, second = random_adapter(key="math"), random_adapter(key="code", seed=2, rank=6)
    logits = []
    for adapter in (first, second, first):
        with adapter_applied(opened, adapter) as model:
            logits.append(model(ids).logits)
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])
    assert torch.equal(opened.model(ids).logits, before)
    with adapter_applied(opened, None) as model:
        assert model is opened.model


def test_an_adapter_of_another_base_is_refused() -> None:
    with (
        pytest.raises(AdapterError, match="use that base"),
        adapter_applied(session(), random_adapter("mistral")),
    ):
        pass
