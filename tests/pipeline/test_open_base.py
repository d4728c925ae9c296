"""The base model that a stage loads."""

from pathlib import Path

import pytest
import torch

from lori_core.models.base_model import device
from lori_core.pipeline.base import open_base
from support import smoke_params


@pytest.mark.skipif(device() != "cpu", reason="the device is a GPU")
def test_a_stage_says_in_one_line_that_it_computes_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"})
    params = smoke_params()
    assert open_base(params).model.dtype == torch.float32
    assert capsys.readouterr().err == ""
    half = params.model_copy(update={"model": params.model.model_copy(update={"dtype": "float16"})})
    assert open_base(half).model.dtype == torch.float32
    assert capsys.readouterr().err.startswith("model.dtype: float16 has no fast arithmetic on ")
