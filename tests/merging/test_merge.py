from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter, LayerSpec
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError, InputError
from lori_core.merging.merge import merge
from lori_core.merging.merge_methods import MERGE_METHODS, Options
from lori_core.models import peft_names
from support import NAMES, peft_folder, random_adapter, three

OPTIONS = Options(density=0.6, rank=6, seed=3)


#: The methods that merge adapters of any origin.
#: Those that merge any number of adapters.
ANY = [n for n, method in MERGE_METHODS.items() if not method.starts and n != "safemerge"]


def options_for(method: str) -> Options:
    return OPTIONS if MERGE_METHODS[method].needs_density else Options(rank=OPTIONS.rank)


def weighted_sum(parents: list[Adapter], weights: list[float], module: str) -> torch.Tensor:
    terms = [
        w * p.scaling(module) * (p.B(module).double() @ p.A(module).double())
        for w, p in zip(weights, parents, strict=True)
        if module in p.modules
    ]
    return torch.stack(terms).sum(0)


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
    assert merged.count == sum(parent.count for parent in parents)
    for name in merged.modules:
        expected = weighted_sum(parents, weights, name)
        assert torch.allclose(merged.delta(name).double(), expected, atol=1e-5)


@pytest.mark.parametrize("method", [name for name in ANY if name != "iso_c"])
def test_one_adapter_with_weight_one_is_itself(method: str) -> None:
    parent = three()[1]
    merged = merge(
        method,
        [parent],
        [1.0],
        replace(options_for(method), density=1.0)
        if MERGE_METHODS[method].needs_density
        else options_for(method),
    )
    for name in parent.modules:
        assert torch.allclose(merged.delta(name), parent.delta(name), atol=1e-5)


def test_the_order_of_a_concat_does_not_matter() -> None:
    parents = three()
    forward = merge("concat", parents, [0.3] * 3)
    backward = merge("concat", parents[::-1], [0.3] * 3)
    for name in forward.modules:
        assert torch.allclose(forward.delta(name), backward.delta(name), atol=1e-6)


@pytest.mark.parametrize("method", ANY)
def test_a_merge_comes_back_from_disk(tmp_path: Path, method: str) -> None:
    merged = merge(method, three((2, 4, 3)), [0.5, 0.25, 1.0], options_for(method))
    adapter_file.save(merged, tmp_path / "merged")
    again = adapter_file.load(tmp_path / "merged")
    assert again.info == merged.info
    assert (again.modules, again.blocks) == (merged.modules, merged.blocks)
    for name in merged.modules:
        assert torch.equal(again.A(name), merged.A(name))
        assert torch.equal(again.B(name), merged.B(name))


@pytest.mark.parametrize("method", ANY)
def test_a_merge_is_a_function_of_its_recipe(tmp_path: Path, method: str) -> None:
    for folder in ("one", "two"):
        merged = merge(method, three(), [0.5, 0.25, 1.0], options_for(method))
        adapter_file.save(merged, tmp_path / folder)
    for file in (adapter_file.JSON_FILE, adapter_file.TENSOR_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


PEFTS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 6},
    {"r": 3, "use_rslora": True, "target_modules": ["q_proj", "up_proj"]},
    {"r": 4, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9}},
    {"r": 2, "layers_to_transform": [1], "layers_pattern": "layers"},
]


def test_ours_and_pefts_merge_alike_whatever_their_ranks_scalings_and_modules(
    tmp_path: Path,
) -> None:
    parents = [random_adapter()]
    for number, options in enumerate(PEFTS):
        peft_folder(tmp_path / str(number), **options)
        parents.append(peft_file.open_adapter(tmp_path / str(number)))
    base = parents[0].base
    parents = [replace(parent, base=base) for parent in parents]
    weights = [0.5, -0.4, 1.25, 0.3, 2.0]
    merged = merge("concat", parents, weights)
    svd = merge("svd", parents, weights, Options(rank=64))
    assert len(merged.modules) == len(parents[0].modules)
    for name in merged.modules:
        expected = weighted_sum(parents, weights, name)
        assert torch.allclose(merged.delta(name).double(), expected, atol=1e-5)
        assert torch.allclose(svd.delta(name).double(), expected, atol=1e-5)
    adapter_file.save(merged, tmp_path / "merged")
    peft_file.export_peft(adapter_file.load(tmp_path / "merged"), tmp_path / "exported")
    again = peft_file.import_peft(tmp_path / "exported")
    for name in merged.modules:
        assert torch.equal(again.delta(name), merged.delta(name))


@settings(max_examples=40, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    alphas=st.lists(st.floats(0.1, 64), min_size=4, max_size=4),
    weights=st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    sparsity=st.sampled_from(["0", "0.5", "0.9", "0.999", None]),
)
def test_concat_is_exact_for_any_adapters(
    ranks: list[int], alphas: list[float], weights: list[float], sparsity: str | None
) -> None:
    parents = [
        random_adapter(key=f"k{i}", rank=rank, alpha=alphas[i], sparsity=sparsity, seed=i)
        for i, rank in enumerate(ranks)
    ]
    weights = weights[: len(parents)]
    merged = merge("concat", parents, weights)
    (name, *_) = merged.modules
    expected = weighted_sum(parents, weights, name)
    assert torch.allclose(merged.delta(name).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["svd", "ties_svd", "tsv", "knots_ties", "core_space_linear"])
def test_a_merge_records_what_the_cut_to_its_rank_lost(tmp_path: Path, method: str) -> None:
    parents, weights = three((2, 4, 3)), [0.5, 0.25, 1.0]
    whole, cut = (
        merge(method, parents, weights, replace(options_for(method), rank=rank)) for rank in (64, 2)
    )
    assert cut.info["truncation"] == {}, "nothing is computed yet"
    for name, adapter in (("whole", whole), ("cut", cut)):
        adapter_file.save(adapter, tmp_path / name)
    norms = {name: float(whole.delta(name).double().square().sum()) for name in whole.modules}
    lost = {
        name: float((whole.delta(name).double() - cut.delta(name).double()).square().sum())
        for name in whole.modules
    }
    found = adapter_file.load(tmp_path / "cut").info["truncation"]
    assert found["lost"] == pytest.approx(sum(lost.values()) / sum(norms.values()), rel=1e-4)
    assert found["modules"] == {
        name: pytest.approx(lost[name] / norms[name], rel=1e-4) for name in norms
    }
    assert adapter_file.load(tmp_path / "whole").info["truncation"]["lost"] < 1e-12


def test_a_merge_that_cannot_cut_records_no_loss() -> None:
    for method in ("concat", "linear", "della"):
        assert "truncation" not in merge(method, three(), [1.0] * 3, Options(0.5)).info


def test_a_merge_records_its_recipe() -> None:
    merged = merge("ties", three(), [0.5, 0.25, 1.0], Options(density=0.7))
    recipe = merged.info["recipe"]
    assert [parent["task"] for parent in recipe["parents"]] == list(NAMES)
    assert [parent["weight"] for parent in recipe["parents"]] == [0.5, 0.25, 1.0]
    assert recipe["parents"][0]["content_key"] == "key-of-math"
    assert (recipe["method"], recipe["density"]) == ("ties", 0.7)
    nested = merge("concat", [merged, three()[0]], [1.0, 1.0]).info["recipe"]
    assert nested["parents"][0]["content_key"] == recipe["content_key"]


def test_an_adapter_of_peft_is_a_parent_with_a_content_key(tmp_path: Path) -> None:
    peft_folder(tmp_path / "one", r=2)
    peft_folder(tmp_path / "two", r=3)
    one, two = (peft_file.open_adapter(tmp_path / name) for name in ("one", "two"))
    parents = merge("concat", [one, two], [1.0, 1.0]).info["recipe"]["parents"]
    assert [parent["task"] for parent in parents] == ["one", "two"]
    assert len({parent["content_key"] for parent in parents} - {None}) == 2


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"merge method 'concate' is unknown; did you mean"):
        merge("concate", three(), [1.0] * 3)
    with pytest.raises(InputError, match="2 weights for 3 adapters"):
        merge("concat", three(), [1.0] * 2)
    with pytest.raises(InputError, match="density"):
        merge("ties", three(), [1.0] * 3)
    with pytest.raises(AdapterError, match="different base models"):
        merge("concat", [random_adapter("llama"), random_adapter("mistral")], [1.0] * 2)
    peft_folder(tmp_path / "peft", r=2)
    (first, *_) = three()
    other = replace(first.base, name="somebody/else")
    with pytest.raises(AdapterError, match="different base models: 'somebody/else' and"):
        merge(
            "concat", [replace(first, base=other), peft_file.import_peft(tmp_path / "peft")], [1, 1]
        )
    (name, *_) = first.modules
    wide = replace(first, modules={name: LayerSpec(65, 64, 4, 8)})
    with pytest.raises(AdapterError, match=f"{name} is 64 to 64 in one, 65 to 64 in another"):
        merge("concat", [first, wide], [1.0, 1.0])


def test_a_merge_never_holds_more_than_a_module(tmp_path: Path) -> None:
    """Each B is asked for once, in order, and the one before it has been let go by then."""
    asked: list[str] = []
    (parent, *_) = three(sparsity=None)

    class Watched(dict[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            asked.append(name)
            return super().__getitem__(name)

    watched = replace(parent, values=Watched(parent.values))
    adapter_file.save(merge("linear", [watched], [1.0]), tmp_path / "merged")
    assert asked == list(parent.modules)


def test_peft_loads_a_merge_as_it_is(tmp_path: Path) -> None:
    from peft import PeftModel

    from support import tiny

    merged = merge("linear", three(), [0.4, 0.7, 1.2])
    peft_file.export_peft(merged, tmp_path / "merged")
    stock = PeftModel.from_pretrained(tiny("llama")[0], tmp_path / "merged")
    for name, layer in peft_names.lora_layers(stock).items():
        delta = layer.get_delta_weight(peft_names.ADAPTER)
        assert torch.allclose(delta, merged.delta(name), atol=1e-6)
