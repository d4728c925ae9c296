import json
import random
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter, LayerSpec, OnDemand, ProjectionBlock, values_in_mask
from lori_core.adapters.masks.mask import magnitude, top
from lori_core.core.errors import AdapterError, InputError
from lori_core.models.base_model import BaseIdentity
from support import random_adapter

GOLDEN = Path(__file__).parents[1] / "golden"


def same(first: Adapter, second: Adapter) -> None:
    assert first.modules == second.modules
    assert (first.blocks, first.dtype, first.info) == (second.blocks, second.dtype, second.info)
    assert (first.use_rslora, first.matched_by) == (second.use_rslora, second.matched_by)
    assert (first.mask is None) == (second.mask is None)
    for name in first.modules:
        assert torch.equal(first.A(name), second.A(name))
        assert torch.equal(first.B(name), second.B(name))
        assert torch.equal(first.values[name], second.values[name])


@pytest.mark.parametrize("sparsity", ["0.9", "0.999", "0", None])
def test_an_adapter_comes_back_from_disk_exactly(tmp_path: Path, sparsity: str | None) -> None:
    adapter = random_adapter(sparsity=sparsity)
    adapter_file.save(adapter, tmp_path / "adapter")
    same(adapter_file.load(tmp_path / "adapter"), adapter)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(shapes, min_size=1, max_size=4),
    alphas=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    sparsity=st.sampled_from(["0", "0.5", "0.9", "0.999", None]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    keyed=st.booleans(),
    use_rslora=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_adapter_comes_back_exactly(  # type: ignore[no-untyped-def]
    tmp_path_factory, sizes, alphas, sparsity, dtype, keyed, use_rslora, seed
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rank = sizes[0][2]
    modules = {
        f"layers.{i}.proj": LayerSpec(d_in, d_out, rank if keyed else r, alphas[i])
        for i, (d_in, d_out, r) in enumerate(sizes)
    }
    B = {n: torch.randn(m.d_out, m.rank, generator=generator) for n, m in modules.items()}
    mask = None
    if sparsity is not None:
        mask, _ = top(magnitude(B), Decimal(sparsity), "model")
        B = {n: b * torch.from_numpy(mask.of(n)).view(b.shape) for n, b in B.items()}
    adapter = Adapter(
        base=BaseIdentity("base", "", "c", "w"),
        modules=modules,
        blocks=(ProjectionBlock(seed, "key", rank),) if keyed else (),
        mask=mask,
        values=values_in_mask(modules, B, mask, dtype),
        stored=None
        if keyed
        else {
            n: torch.randn(m.rank, m.d_in, generator=generator).to(dtype)
            for n, m in modules.items()
        },
        dtype=dtype,
        info={"task": "ünï"},
        use_rslora=use_rslora,
        matched_by=("proj",),
    )
    folder = tmp_path_factory.mktemp("any") / "adapter"
    adapter_file.save(adapter, folder)
    same(adapter_file.load(folder), adapter)


def test_equal_adapters_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        adapter_file.save(random_adapter(), tmp_path / name)
    for file in (adapter_file.JSON_FILE, adapter_file.TENSOR_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_two_hundred_damaged_files_are_all_refused_in_one_line(tmp_path: Path) -> None:
    adapter_file.save(random_adapter(rank=2), tmp_path / "adapter")
    chance = random.Random(0)
    for number in range(200):
        name = (adapter_file.JSON_FILE, adapter_file.TENSOR_FILE)[number % 2]
        file = tmp_path / "adapter" / name
        content = file.read_bytes()
        damaged = bytearray(content)
        if number % 4 < 2:
            damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(content)) :]
        file.write_bytes(bytes(damaged))
        with pytest.raises(InputError) as refusal:
            adapter_file.load(tmp_path / "adapter", verify_projection=False)
        assert str(refusal.value).startswith(str(tmp_path))
        assert "\n" not in str(refusal.value)
        file.write_bytes(content)
    adapter_file.load(tmp_path / "adapter")


def edited(folder: Path, **changes: object) -> None:
    """Change adapter.json as somebody would who also mends its checksum."""
    from lori_core.core.files.atomic import digest, json_text

    said = json.loads((folder / adapter_file.JSON_FILE).read_text()) | changes
    said.pop("checksum")
    (folder / adapter_file.JSON_FILE).write_text(json_text(said | {"checksum": digest(said)}))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapter_file.save(random_adapter(), folder)
    said = json.loads((folder / adapter_file.JSON_FILE).read_text())
    block = said["projection"]["blocks"][0]
    faults: list[tuple[dict[str, object], str]] = [
        ({"format": "lori-adapter/9"}, r"format is not known here \(known: lori-adapter/1, "),
        (
            {"projection": said["projection"] | {"generator": "philox-uniform/9"}},
            "A was drawn by 'philox-uniform/9'; this version draws with 'philox-uniform/1'",
        ),
        (
            {"projection": said["projection"] | {"blocks": [block | {"key": "code"}]}},
            "A drawn from the key 'code' is not the A it was trained with",
        ),
        ({"mask": said["mask"] | {"coding": "other/1"}}, "mask coding 'other/1' is not known"),
        ({"mask": said["mask"] | {"count": 5}}, r"entries kept, 5 expected"),
        ({"modules": said["modules"][:-1]}, "adapter.safetensors: "),
        ({"modules": []}, "adapter.json: damaged: modules is \\[\\]"),
        ({"modules": [*said["modules"], said["modules"][0]]}, "damaged: modules is "),
        ({"modules": [[*said["modules"][0][:4], "8"]]}, "damaged: modules is "),
        ({"modules": [[*sizes[:4], 10**400] for sizes in said["modules"]]}, "damaged: modules is "),
        ({"info": None}, "adapter.json: damaged: info is None"),
        ({"info": []}, r"damaged: info is \[\]"),
        ({"matched_by": [1]}, r"damaged: matched_by is \[1\]"),
        ({"fan_in_fan_out": "no"}, "damaged: fan_in_fan_out is 'no'"),
        ({"use_rslora": 1}, "damaged: use_rslora is 1"),
        ({"dtype": "nn"}, "damaged: dtype is 'nn'"),
        ({"mask": [1]}, "damaged: mask is "),
        (
            {"projection": said["projection"] | {"blocks": [block | {"seed": "1"}]}},
            "damaged: projection is ",
        ),
        ({"dtype": "bfloat16"}, r"B\..*expected"),
        ({"sha256": "0" * 64}, "damaged or missing .*restore it, or train again"),
    ]
    for change, message in faults:
        edited(folder, **(said | change))
        with pytest.raises(AdapterError, match=message):
            adapter_file.load(folder)
    edited(folder, **said)
    adapter_file.load(folder)
    with pytest.raises(AdapterError, match="no adapter here"):
        adapter_file.load(tmp_path)


def test_a_tensor_that_nothing_uses_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapter_file.save(random_adapter(sparsity=None), folder)
    said = json.loads((folder / adapter_file.JSON_FILE).read_text())
    edited(folder, modules=said["modules"][:-1], projection=said["projection"] | {"blocks": []})
    with pytest.raises(AdapterError):
        adapter_file.load(folder, verify_projection=False)
    edited(folder, modules=said["modules"][:-1], projection=said["projection"])
    with pytest.raises(AdapterError, match=r"damaged: no module or mask of it uses B\."):
        adapter_file.load(folder, verify_projection=False)


@pytest.mark.parametrize("alpha", [1e308, -1e40, float("nan")])
def test_a_scaling_that_float32_does_not_hold_is_refused(alpha: float) -> None:
    with pytest.raises(AdapterError, match=r"module model\.\S+: lora_alpha \S+ at rank 4 is no"):
        random_adapter(alpha=alpha)


def test_a_projection_can_be_left_for_later(tmp_path: Path) -> None:
    saved = adapter_file.save(random_adapter(), tmp_path / "adapter")
    wrong = replace(saved.blocks[0], sha256="0" * 64)
    adapter_file.save(replace(saved, blocks=(wrong,)), tmp_path / "adapter")
    adapter = adapter_file.load(tmp_path / "adapter", verify_projection=False)
    with pytest.raises(AdapterError, match="not the A it was trained with"):
        adapter_file.check_projection(adapter, tmp_path)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    adapter = random_adapter()
    adapter_file.save(adapter, tmp_path / "adapter")
    before = (tmp_path / "adapter" / adapter_file.TENSOR_FILE).read_bytes()

    def fail(name: str) -> torch.Tensor:
        raise RuntimeError(name)

    with pytest.raises(RuntimeError):
        values = OnDemand(adapter.modules, fail)
        adapter_file.save(replace(adapter, values=values), tmp_path / "adapter")
    assert (tmp_path / "adapter" / adapter_file.TENSOR_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("name", ["keyed", "concat", "stored"])
def test_version_1_is_read_for_ever(name: str) -> None:
    expected = json.loads((GOLDEN / "adapter-v1.json").read_text())[f"adapter-v1-{name}"]
    adapter = adapter_file.load(GOLDEN / f"adapter-v1-{name}")
    assert list(adapter.modules) == list(expected)
    for module, sums in expected.items():
        A, B = adapter.A(module).double(), adapter.B(module).double()
        found = [float(x) for x in (A.sum(), B.sum(), A.abs().sum(), B.abs().sum())]
        assert found == pytest.approx(sums, abs=1e-9)


def test_version_1_is_verified_too(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "adapter"
    shutil.copytree(GOLDEN / "adapter-v1-concat", folder)
    said = (folder / adapter_file.JSON_FILE).read_text()
    (folder / adapter_file.JSON_FILE).write_text(said.replace('"key": "math"', '"key": "music"'))
    with pytest.raises(AdapterError, match="not the A it was trained with"):
        adapter_file.load(folder)
    content = bytearray((folder / adapter_file.TENSOR_FILE).read_bytes())
    content[-1] ^= 1
    (folder / adapter_file.TENSOR_FILE).write_bytes(bytes(content))
    with pytest.raises(AdapterError, match="damaged or missing"):
        adapter_file.load(folder)
