from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from lori_core.adapters.adapter import Adapter
from lori_core.config import PromptSection
from lori_core.core.errors import AdapterError, InputError, LoriError
from lori_core.data.example import Example
from lori_core.data.prompts import encode
from lori_core.evaluation.evaluate import adapter_applied
from lori_core.evaluation.excess import excess
from lori_core.evaluation.held_out import held_out_losses
from lori_core.evaluation.statistics import mean_interval
from lori_core.merging import merge
from lori_core.methods.loaded_model import LoadedModel
from lori_core.models import base_model, peft_names
from lori_core.pipeline import params_file
from lori_core.training import loss
from support import random_adapter, tiny

PLAIN = PromptSection(template="plain")
#: Of very different lengths, so that batches are padded and hold other examples at other sizes.
EXAMPLES = [
    Example("a" * prompt, "the answer " * target)
    for prompt, target in ((3, 1), (90, 1), (8, 4), (20, 2), (5, 9), (60, 3), (4, 1))
]
SETS = {"math": EXAMPLES[:4], "code": EXAMPLES[3:]}


def session(architecture: str = "llama", **training_section: Any) -> LoadedModel:
    model, folder, base = tiny(architecture)
    params = params_file.load(Path(__file__).parents[2] / "profiles" / "smoke.yaml")
    params = params.model_copy(
        update={
            "prompt": PLAIN,
            "evaluation": params.evaluation.model_copy(update={"batch_size": 3}),
            "training": params.training.model_copy(update=training_section),
        }
    )
    tokenizer = base_model.load_tokenizer(folder)
    return LoadedModel(params, base, model, tokenizer, {}, model.num_parameters(), False)


def measured(
    model: Any, tokenizer: Any, examples: Sequence[Example], size: int = 3, length: int = 384
) -> tuple[list[float], list[int]]:
    return held_out_losses(model, tokenizer, examples, PLAIN, length, size, "test")


def plain(model: Any, tokenizer: Any, example: Example, length: int = 384) -> float:
    """Compute one example's loss by itself, with all its logits."""
    row = encode(example, PLAIN, tokenizer, length)
    ids = torch.tensor([row.prompt + row.target])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0].float(), dim=-1)
    places = range(len(row.prompt), len(row))
    return -sum(float(logprobs[place - 1, ids[0, place]]) for place in places)


def changed(
    architecture: str, adapters: Sequence[Adapter], weights: Sequence[float]
) -> torch.nn.Module:
    """Return a base model whose own weights are W0 + Σ w·ΔW."""
    model, _, _ = tiny(architecture)
    for adapter, weight in zip(adapters, weights, strict=True):
        for name in adapter.modules:
            delta = weight * adapter.delta(name)
            linear = model.get_submodule(name)
            assert isinstance(linear.weight, torch.Tensor)
            linear.weight.data += delta.T if adapter.fan_in_fan_out else delta
    return model


def small(architecture: str = "llama", key: str = "math", seed: int = 1, rank: int = 4) -> Adapter:
    """Return an adapter that changes the model's loss without drowning the base."""
    return random_adapter(architecture, key=key, seed=seed, rank=rank, alpha=rank / 4)


def test_losses_are_those_of_a_plain_forward_pass(architecture: str) -> None:
    opened = session(architecture)
    with adapter_applied(opened, small(architecture)) as model:
        losses, tokens = measured(model, opened.tokenizer, EXAMPLES)
        expected = [plain(model, opened.tokenizer, example) for example in EXAMPLES]
    assert losses == pytest.approx(expected, abs=1e-4)
    ends = [opened.tokenizer(e.target, add_special_tokens=False)["input_ids"] for e in EXAMPLES]
    assert tokens == [len(ids) + 1 for ids in ends]


def test_the_base_without_an_adapter_can_be_measured_too(architecture: str) -> None:
    opened = session(architecture)
    losses, _ = measured(opened.model, opened.tokenizer, EXAMPLES)
    expected = [plain(opened.model, opened.tokenizer, example) for example in EXAMPLES]
    assert losses == pytest.approx(expected, abs=1e-4)


def test_models_that_change_their_logits_take_their_own_path() -> None:
    opened = session()
    expected, _ = measured(opened.model, opened.tokenizer, EXAMPLES)
    opened.model.config.logit_scale = 1.0
    losses, _ = measured(opened.model, opened.tokenizer, EXAMPLES)
    assert losses == pytest.approx(expected, abs=1e-4)


def test_an_example_s_loss_does_not_depend_on_its_batch(architecture: str) -> None:
    opened = session(architecture)
    alone, tokens = measured(opened.model, opened.tokenizer, EXAMPLES, size=1)
    for size in (2, 3, 7):
        assert measured(opened.model, opened.tokenizer, EXAMPLES, size) == (
            pytest.approx(alone, abs=1e-4),
            tokens,
        )
    turned, _ = measured(opened.model, opened.tokenizer, EXAMPLES[::-1], size=4)
    assert turned[::-1] == pytest.approx(alone, abs=1e-4)


def test_chunks_of_logits_change_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = session()
    whole, _ = measured(opened.model, opened.tokenizer, EXAMPLES)
    monkeypatch.setattr(loss, "LOGIT_CHUNK", 5)
    assert measured(opened.model, opened.tokenizer, EXAMPLES)[0] == pytest.approx(whole, abs=1e-4)


def test_the_sum_of_a_batch_is_what_training_minimises() -> None:
    from lori_core.data.batching import collate

    opened = session()
    rows = [encode(example, PLAIN, opened.tokenizer, 384) for example in EXAMPLES]
    batch = collate(rows, opened.tokenizer.pad_token_id)
    with torch.no_grad():
        total = float(loss.sequence_loss(opened.model, batch))
        each = loss.example_losses(opened.model, batch)
    assert each.shape == (len(EXAMPLES),)
    assert each.dtype == torch.float32
    assert float(each.sum()) == pytest.approx(total, rel=1e-6)


def test_long_examples_are_cut_as_in_training() -> None:
    opened = session()
    losses, tokens = measured(opened.model, opened.tokenizer, EXAMPLES, length=40)
    expected = [plain(opened.model, opened.tokenizer, example, 40) for example in EXAMPLES]
    assert losses == pytest.approx(expected, abs=1e-4)
    rows = [encode(example, PLAIN, opened.tokenizer, 40) for example in EXAMPLES]
    assert tokens == [len(row.target) for row in rows]
    assert any(row.cut for row in rows)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    opened = session()
    opened.model.get_output_embeddings().weight.data[:] = float("nan")
    with pytest.raises(LoriError, match=rf"test: the loss of example {EXAMPLES[0].id} is nan"):
        measured(opened.model, opened.tokenizer, EXAMPLES)


@pytest.mark.parametrize("method", ["concat", "linear"])
def test_a_merge_of_one_adapter_has_no_excess(method: str, architecture: str) -> None:
    opened, adapter = session(architecture), small(architecture)
    merged = merge.merge(method, [adapter], [0.4])
    found = excess(opened, merged, {"math": (adapter, 0.4)}, SETS, "one")
    assert found["tasks"] == ["math"]
    row = found["excess"]["math"]
    assert [row["excess"], row["low"], row["high"]] == pytest.approx([0, 0, 0], abs=1e-4)
    assert row["n"] == 4


def test_excess_is_what_weights_added_by_hand_give(architecture: str) -> None:
    opened = session(architecture)
    adapters = [small(architecture), small(architecture, "code", seed=2, rank=6)]
    weights = [0.7, -0.4]
    parents = dict(zip(SETS, zip(adapters, weights, strict=True), strict=True))
    merged = merge.merge("concat", adapters, weights)
    found = excess(opened, merged, parents, SETS, "two")
    assert found["tasks"] == ["math", "code"]
    assert list(found["excess"]) == ["math", "code"]
    whole = changed(architecture, adapters, weights)
    for task, (adapter, weight) in parents.items():
        own = changed(architecture, [adapter], [weight])
        ours = [plain(whole, opened.tokenizer, example) for example in SETS[task]]
        alone = [plain(own, opened.tokenizer, example) for example in SETS[task]]
        differences = [a - b for a, b in zip(ours, alone, strict=True)]
        low, high = mean_interval(differences)
        assert abs(fmean(differences)) > 1e-2
        _, tokens = measured(opened.model, opened.tokenizer, SETS[task])
        assert found["excess"][task] == pytest.approx(
            {
                "merged_loss": fmean(ours),
                "own_loss": fmean(alone),
                "excess": fmean(differences),
                "low": low,
                "high": high,
                "n": len(SETS[task]),
                "tokens": sum(tokens),
            },
            abs=1e-3,
        )


def test_examples_without_a_target_are_left_out() -> None:
    opened, adapter = session(), small()
    other = small(key="code", seed=2)
    merged, parents = merge.merge("concat", [adapter, other], [1, 1]), {"math": (adapter, 1.0)}
    expected = excess(opened, merged, parents, {"math": EXAMPLES[:2]}, "test")
    blank = replace(EXAMPLES[2], target="")
    mixed = [EXAMPLES[0], blank, EXAMPLES[1]]
    assert excess(opened, merged, parents, {"math": mixed}, "test") == expected
    assert expected["excess"]["math"]["n"] == 2


@pytest.mark.parametrize("examples", [{}, {"math": []}, {"math": [Example("a", "")]}])
def test_a_task_without_targets_is_named(
    examples: dict[str, list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, adapter = session(), small()
    # Refused before anything is computed.
    monkeypatch.setattr(opened.model, "forward", None)
    count = len(examples.get("math", []))
    with pytest.raises(InputError, match=f"task math: none of its {count} held-out examples has a"):
        excess(opened, adapter, {"math": (adapter, 1.0)}, examples, "test")


def test_each_task_is_cut_where_its_training_cuts() -> None:
    opened, adapter = session(max_length=30), small()
    parents = {"math": (adapter, 1.0), "unknown": (adapter, 1.0)}
    tasks = dict(opened.params.tasks)
    tasks["math"] = tasks["math"].model_copy(update={"training": {"max_length": 20}})
    opened = replace(opened, params=opened.params.model_copy(update={"tasks": tasks}))
    long = [Example("a", "b" * 100)]
    found = excess(opened, adapter, parents, {"math": long, "unknown": long}, "test")
    for task, length in (("math", 20), ("unknown", 30)):
        row = encode(long[0], PLAIN, opened.tokenizer, length)
        assert found["excess"][task]["tokens"] == len(row.target)
        # One example does not say how much another's loss may differ.
        assert (found["excess"][task]["low"], found["excess"][task]["high"]) == (None, None)


def test_the_base_is_left_as_it_was(architecture: str) -> None:
    opened = session(architecture)
    before = {name: tensor.clone() for name, tensor in opened.model.state_dict().items()}
    adapters = [small(architecture), small(architecture, "code", seed=2)]
    parents = {"math": (adapters[0], 0.5), "code": (adapters[1], 0.5)}
    merged = merge.merge("linear", adapters, [0.5, 0.5])
    first = excess(opened, merged, parents, SETS, "test")
    assert not peft_names.lora_layers(opened.model)
    after = opened.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert excess(opened, merged, parents, SETS, "test") == first


def test_a_merge_for_another_base_is_refused() -> None:
    other = small("mistral")
    with pytest.raises(AdapterError, match="use that base"):
        excess(session(), other, {"math": (small(), 1.0)}, SETS, "test")
