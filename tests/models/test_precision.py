from pathlib import Path

import pytest
import torch

from lori_core.config import ModelSection
from lori_core.models import base_model, precision


def test_x86_needs_instructions_for_the_precision() -> None:
    plain = {"avx512_f": True, "avx512_bf16": False}
    assert not precision.x86_has("bfloat16", plain)
    assert precision.x86_has("bfloat16", plain | {"avx512_bf16": True})
    assert precision.x86_has("bfloat16", plain | {"amx_bf16": True})
    assert not precision.x86_has("float16", {"avx512_bf16": True, "amx_bf16": True})
    assert precision.x86_has("float16", {"amx_fp16": True})


def test_intel_needs_amx_for_bfloat16() -> None:
    intel = {"cpu_name": "Intel Xeon", "avx512_bf16": True, "avx512_fp16": True}
    assert not precision.x86_has("bfloat16", intel)
    assert precision.x86_has("bfloat16", intel | {"amx_bf16": True})
    assert precision.x86_has("float16", intel)
    assert precision.x86_has("bfloat16", intel | {"cpu_name": "AMD EPYC 9R14"})


def test_float32_is_float32_without_a_notice() -> None:
    assert precision.compute_dtype("float32", "cpu") == torch.float32
    assert precision.notice("float32", "cpu") is None


@pytest.mark.parametrize("wanted", ["bfloat16", "float16"])
@pytest.mark.parametrize("there", [False, True])
def test_what_the_cpu_cannot_multiply_is_named_with_what_it_gets_instead(
    wanted: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16")
    found = {"architecture": "x86_64"} | dict.fromkeys(names, there)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    dtype, line = precision.compute_dtype(wanted, "cpu"), precision.notice(wanted, "cpu")
    if there:
        assert (dtype, line) == (getattr(torch, wanted), None)
    else:
        assert (dtype, line) == (
            torch.float32,
            f"model.dtype: {wanted} has no fast arithmetic on this CPU; computing in float32 "
            "(the weights are the same numbers, in twice the memory)",
        )


def test_a_half_precision_model_is_the_same_numbers_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = base_model.prepare(ModelSection(name_or_path="random:llama"))
    model = base_model.load(ModelSection(name_or_path=str(source), dtype="float32"), source)
    half = model.to(torch.bfloat16)
    half.save_pretrained(tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"})
    found = base_model.load(ModelSection(name_or_path=str(tmp_path)), tmp_path)
    assert found.dtype == torch.float32
    for name, values in half.state_dict().items():
        assert torch.equal(found.state_dict()[name], values.float())
