from pathlib import Path

import pytest
import torch

from lori_core import adapter as adapters
from lori_core.errors import AdapterError, InputError
from lori_core.interference import compare, module_pair
from lori_core.merging import merge
from support import random_adapter

NAMES = ("math", "code", "nlu")


def three(ranks: tuple[int, int, int] = (4, 4, 4), sparsity: str | None = "0.9"):  # type: ignore[no-untyped-def]
    return [
        random_adapter(key=name, rank=rank, alpha=2 * rank + i, seed=i, sparsity=sparsity)
        for i, (name, rank) in enumerate(zip(NAMES, ranks, strict=True), start=1)
    ]


@pytest.mark.parametrize("sparsity", ["0.9", None])
@pytest.mark.parametrize("ranks", [(4, 4, 4), (2, 8, 3)])
def test_concat_is_the_weighted_sum_of_the_updates(
    ranks: tuple[int, int, int], sparsity: str | None
) -> None:
    parents = three(ranks, sparsity)
    weights = [0.5, -0.25, 1.5]
    merged = merge("concat", parents, weights)
    assert merged.rank == sum(ranks)
    assert merged.stored is None
    for name in merged.modules:
        expected = sum(w * p.delta(name).double() for w, p in zip(weights, parents, strict=True))
        assert isinstance(expected, torch.Tensor)
        assert torch.allclose(merged.delta(name).double(), expected, atol=1e-5)


def test_one_adapter_with_weight_one_is_itself() -> None:
    (parent, *_) = three()
    for method in ("concat", "linear"):
        merged = merge(method, [parent], [1.0])
        for name in parent.modules:
            assert torch.allclose(merged.delta(name), parent.delta(name), atol=1e-6)


def test_the_order_of_a_concat_does_not_matter() -> None:
    parents = three()
    forward = merge("concat", parents, [0.3] * 3)
    backward = merge("concat", parents[::-1], [0.3] * 3)
    for name in forward.modules:
        assert torch.allclose(forward.delta(name), backward.delta(name), atol=1e-6)


def test_linear_is_pefts() -> None:
    from peft import get_peft_model

    from lori_core import peft_names
    from support import tiny

    parents = three()
    weights = [0.4, 0.7, 1.2]
    model, _, _ = tiny("llama")
    config = peft_names.lora_config(4, parents[0].lora_alpha, parents[0].targets)
    stock = get_peft_model(model, config, adapter_name="a0")
    for index, parent in enumerate(parents):
        if index:
            config = peft_names.lora_config(4, parent.lora_alpha, parent.targets)
            stock.add_adapter(f"a{index}", config)
        for name in parent.modules:
            layer = stock.get_submodule(f"base_model.model.{name}")
            layer.lora_A[f"a{index}"].weight.data = parent.A[name]
            layer.lora_B[f"a{index}"].weight.data = parent.B[name]
    stock.add_weighted_adapter(["a0", "a1", "a2"], weights, "m", combination_type="linear")
    merged = merge("linear", parents, weights)
    for name in merged.modules:
        layer = stock.get_submodule(f"base_model.model.{name}")
        assert torch.allclose(merged.delta(name), layer.get_delta_weight("m"), atol=1e-5)


def test_a_merge_records_its_recipe() -> None:
    merged = merge("concat", three(), [0.5, 0.25, 1.0])
    recipe = merged.info["recipe"]
    assert [parent["task"] for parent in recipe["parents"]] == list(NAMES)
    assert [parent["weight"] for parent in recipe["parents"]] == [0.5, 0.25, 1.0]
    assert recipe["parents"][0]["content_key"] == "key-of-math"


@pytest.mark.parametrize("method", ["concat", "linear"])
def test_a_merge_comes_back_from_disk(tmp_path: Path, method: str) -> None:
    merged = merge(method, three(), [0.5, 0.25, 1.0])
    adapters.save(merged, tmp_path / "merged")
    again = adapters.load(tmp_path / "merged")
    assert again.info == merged.info
    for name in merged.modules:
        assert torch.equal(again.A[name], merged.A[name])
        assert torch.equal(again.B[name], merged.B[name])


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(InputError, match=r"merge method 'concate' is unknown; did you mean"):
        merge("concate", three(), [1.0] * 3)
    with pytest.raises(InputError, match="2 weights for 3 adapters"):
        merge("concat", three(), [1.0] * 2)
    with pytest.raises(AdapterError, match="linear needs equal ranks, got 2 and 8"):
        merge("linear", three((2, 8, 2)), [1.0] * 3)
    with pytest.raises(AdapterError, match="different base models"):
        merge("concat", [random_adapter("llama"), random_adapter("mistral")], [1.0] * 2)


def test_interference_is_the_inner_product_of_the_updates() -> None:
    first, second, _ = three((4, 6, 4))
    for name in first.modules:
        pair = module_pair(first, second, name)
        dense_s, dense_t = first.delta(name).double(), second.delta(name).double()
        inner = float((dense_s * dense_t).sum())
        assert pair.inner == pytest.approx(inner, abs=1e-5)
        cosine = inner / float(dense_s.norm() * dense_t.norm())
        assert pair.cosine == pytest.approx(cosine, abs=1e-5)
        assert abs(pair.inner) <= pair.bound


def test_pairs_are_compared_and_a_shared_projection_is_called_out() -> None:
    adapters = dict(zip(NAMES, three(), strict=True))
    pairs = compare(adapters)
    assert list(pairs) == ["math+code", "math+nlu", "code+nlu"]
    facts = pairs["math+code"]
    assert facts["within_bound"] == 1.0
    assert facts["expected_overlap"] == pytest.approx(0.01, rel=0.01)
    assert 0 <= facts["sign_collisions"] <= 1
    twin = random_adapter(key="math", seed=9)
    with pytest.raises(AdapterError, match="share the projection key 'math'"):
        compare({"math": adapters["math"], "twin": twin})
