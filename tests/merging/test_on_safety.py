"""Merging continual adapters onto the safety adapter that they were trained from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lori_cli import main
from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter, LayerSpec, values_in_mask
from lori_core.adapters.masks.mask import Mask, union
from lori_core.api import adapters as api
from lori_core.core.errors import AdapterError, InputError
from lori_core.merging.merge import merge
from support import random_adapter, refused

SAFETY = random_adapter(key="safety", rank=4, alpha=8, seed=9)
KEY = SAFETY.info["content_key"]


def continual(task: str, seed: int, alpha: float = 8) -> Adapter:
    """Return an adapter that was trained from the safety adapter within a mask of its own."""
    task_mask = random_adapter(key=task, seed=seed).mask
    assert task_mask is not None
    generator = torch.Generator().manual_seed(seed)
    B = {}
    for name in SAFETY.modules:
        inside = torch.from_numpy(task_mask.of(name)).view(SAFETY.B(name).shape)
        change = torch.randn(inside.shape, generator=generator) * inside
        B[name] = SAFETY.B(name) + change
    assert SAFETY.mask is not None
    support = union(task_mask, SAFETY.mask)
    modules = {name: replace(size, lora_alpha=alpha) for name, size in SAFETY.modules.items()}
    info = {"task": task, "stage": f"continual@{task}", "content_key": f"key-of-{task}"}
    return replace(
        SAFETY,
        modules=modules,
        mask=support,
        values=values_in_mask(modules, B, support, torch.float32),
        info=info | {"parents": [KEY]},
    )


MATH, CODE = continual("math", 1), continual("code", 2, alpha=12)


def masks_of(*adapters: Adapter) -> list[Mask]:
    return [adapter.mask for adapter in adapters if adapter.mask is not None]


def test_the_merge_is_the_safety_adapter_plus_the_weighted_changes() -> None:
    merged = merge("on_safety", [MATH, CODE], [0.5, -0.25], start=SAFETY)
    assert (merged.rank, merged.blocks, merged.stored) == (4, SAFETY.blocks, None)
    for name in merged.modules:
        A = SAFETY.A(name).double()
        B0 = 2 * SAFETY.B(name).double()
        B = B0 + 0.5 * (2 * MATH.B(name) - B0) - 0.25 * (3 * CODE.B(name) - B0)
        assert torch.allclose(merged.delta(name).double(), B @ A, atol=1e-5)


def test_entries_that_no_task_trained_keep_the_safety_adapters_value_exactly() -> None:
    other = continual("nlu", 3)
    merged = merge("on_safety", [MATH, other], [0.3, 0.7], start=SAFETY)
    kept = 0
    for name in merged.modules:
        same = (MATH.B(name) == SAFETY.B(name)) & (other.B(name) == SAFETY.B(name))
        assert torch.equal(merged.B(name)[same], 2 * SAFETY.B(name)[same])
        kept += int((same & (SAFETY.B(name) != 0)).sum())
    assert kept > 100


def test_the_masks_are_united_and_the_compact_form_comes_back(tmp_path: Path) -> None:
    merged = merge("on_safety", [MATH, CODE], [0.5, 0.5], start=SAFETY)
    first, second, third = masks_of(SAFETY, MATH, CODE)
    assert merged.mask is not None
    assert (merged.mask.flat == union(union(first, second), third).flat).all()
    adapter_file.save(merged, tmp_path / "merged")
    again = adapter_file.load(tmp_path / "merged")
    assert (again.blocks, again.stored, again.count) == (SAFETY.blocks, None, merged.count)
    for name in merged.modules:
        assert torch.equal(again.delta(name), merged.delta(name))
    parents = again.info["recipe"]["parents"]
    assert [(p["task"], p["weight"]) for p in parents] == [
        ("safety", 1.0), ("math", 0.5), ("code", 0.5),
    ]  # fmt: skip


def test_weight_one_gives_the_adapter_itself_and_weight_zero_the_safety_adapter() -> None:
    for weight, expected in ((1.0, MATH), (0.0, SAFETY)):
        merged = merge("on_safety", [MATH], [weight], start=SAFETY)
        for name in merged.modules:
            assert torch.allclose(merged.delta(name), expected.delta(name), atol=1e-5)


def test_dense_adapters_with_stored_projections_are_merged_too() -> None:
    stored = {name: SAFETY.A(name) for name in SAFETY.modules}

    def dense(adapter: Adapter) -> Adapter:
        values = {name: adapter.B(name).reshape(-1) for name in adapter.modules}
        return replace(adapter, mask=None, values=values, stored=stored, blocks=())

    merged = merge("on_safety", [dense(MATH)], [0.5], start=dense(SAFETY))
    expected = merge("on_safety", [MATH], [0.5], start=SAFETY)
    assert merged.mask is None
    for name in merged.modules:
        assert torch.equal(merged.delta(name), expected.delta(name))


def test_a_mask_of_the_entries_that_are_not_zero_is_enough() -> None:
    values = {name: SAFETY.B(name).reshape(-1) for name in SAFETY.modules}
    merged = merge("on_safety", [MATH], [0.5], start=replace(SAFETY, mask=None, values=values))
    expected = merge("on_safety", [MATH], [0.5], start=SAFETY)
    for name in merged.modules:
        assert torch.equal(merged.delta(name), expected.delta(name))


def wider(adapter: Adapter) -> dict[str, LayerSpec]:
    return {name: replace(size, rank=5) for name, size in adapter.modules.items()}


NAME = next(iter(SAFETY.modules))
BAD = {
    "another A": (
        replace(random_adapter(key="math"), info=MATH.info),
        r"A of .* in adapter 1 \(continual@math\) is not that of the safety adapter",
    ),
    "another start": (
        replace(MATH, info=MATH.info | {"parents": ["other"]}),
        r"adapter 1 \(continual@math\) was not trained from the given safety adapter .*other",
    ),
    "no record": (
        replace(MATH, info={"task": "math"}),
        r"adapter 1 \(math\) was not trained from .* parents none",
    ),
    "only calibrated by it": (
        replace(random_adapter(key="safety", seed=3), info=MATH.info),
        r"the mask of adapter 1 \(continual@math\) leaves out entries of the given safety adapter",
    ),
    "another rank": (replace(MATH, modules=wider(MATH)), "has rank 5"),
    "fewer modules": (
        replace(MATH, modules={n: m for n, m in MATH.modules.items() if n != NAME}),
        rf"adapter 1 \(continual@math\) has no {NAME}",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_adapters_that_do_not_start_from_the_safety_adapter_are_refused(what: str) -> None:
    adapter, message = BAD[what]
    with pytest.raises(AdapterError, match=message):
        merge("on_safety", [adapter], [0.5], start=SAFETY)


def test_the_safety_adapter_and_the_method_need_each_other() -> None:
    with pytest.raises(InputError, match="on_safety: name the safety adapter"):
        merge("on_safety", [MATH], [0.5])
    with pytest.raises(InputError, match="concat: only on_safety merges onto a safety adapter"):
        merge("concat", [MATH], [0.5], start=SAFETY)
    with pytest.raises(AdapterError, match="the safety adapter records no content key"):
        merge("on_safety", [MATH], [0.5], start=replace(SAFETY, info={}))


def test_the_command_and_the_function_merge_onto_a_named_safety_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, adapter in (("safety", SAFETY), ("math", MATH), ("code", CODE)):
        adapter_file.save(adapter, tmp_path / name)
    argv = ["merge", "math", "code", "--method", "on_safety", "--weights", "0.5", "-o"]
    assert main([*argv, "out", "--safety", "safety"]) == 0
    assert "out: on_safety of 2 adapters, rank 4" in capsys.readouterr().out
    same = api.merge(["math", CODE], method="on_safety", weights=0.5, safety="safety")
    found = adapter_file.load(tmp_path / "out")
    for name in found.modules:
        assert torch.equal(found.delta(name), same.delta(name))
    assert refused(capsys, *argv, "x").endswith(
        "--safety: on_safety needs the safety adapter that the others were trained from"
    )
    assert refused(capsys, *argv, "x", "--safety", "code").count("\n") == 0
    plain = ["merge", "math", "code", "--safety", "safety", "-o", "x"]
    assert "--safety: the method concat does not use it" in refused(capsys, *plain)
    assert not (tmp_path / "x").exists()
