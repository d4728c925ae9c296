"""Liger's kernels: by Triton's interpreter where the package is installed, and their checks."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lori_core.training.kernels import liger, pointwise
from support import tiny

HERE = Path(__file__).parent
INTERPRETED = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
import numpy as np, torch, triton.language as tl
from triton.runtime import interpreter

plain = interpreter._implicit_cvt
def converted(arg):  # the interpreter leaves numbers as they are, which the compiler does not
    if isinstance(arg, float):
        handle = interpreter.TensorHandle(np.array([arg], dtype=np.float32), tl.float32)
        return tl.tensor(handle, tl.float32)
    return plain(arg)
interpreter._implicit_cvt = converted

from test_packed_attention import PAD, adapted, batch, losses_and_gradients
from lori_core.data.batching import collate
from lori_core.training.kernels import liger, pointwise

liger.usable = lambda device: True
used = []
gated = liger.gated
liger.gated = lambda *x: (used.append("gated"), gated(*x))[1]
model = adapted({architecture!r})
inputs = collate(batch(), PAD)
expected, gradients = losses_and_gradients(model, inputs, False)
with pointwise.installed(model) as count, liger.rotating(model) as files:
    used.clear()
    found, ours = losses_and_gradients(model, inputs, False)
assert torch.allclose(found, expected, rtol=1e-5), (found, expected)
for name, gradient in gradients.items():
    assert (ours[name] - gradient).norm() < 1e-4 * gradient.norm(), name
assert (count, files) == (7, 1), (count, files)
assert len(used) == 2, used
print("equal")
"""


@pytest.mark.skipif(not liger._installed(), reason="needs the packages liger-kernel and triton")
@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_training_with_the_kernels_has_the_same_losses_and_gradients(architecture: str) -> None:
    code = INTERPRETED.format(tests=str(HERE.parents[1]), here=str(HERE), architecture=architecture)
    env = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("equal")


def test_the_kernels_are_for_cuda() -> None:
    assert not liger.usable(torch.device("cpu"))
    assert liger.usable(torch.device("cuda")) is (find_spec("liger_kernel") is not None)
    model, _, _ = tiny("llama")
    with liger.rotating(model) as count:
        assert count == 0


def test_a_kernel_agrees_if_results_and_gradients_do(capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert liger.agrees(torch.sin, torch.sin, x)
    assert not liger.agrees(torch.cos, torch.sin, x)

    class _OtherGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.sin()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient

    assert not liger.agrees(_OtherGradient.apply, torch.sin, x)
    assert capsys.readouterr().err == ""

    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no compiler\nmore")

    assert not liger.agrees(fails, torch.sin, x)
    assert capsys.readouterr().err == "a kernel of Liger is not used: no compiler\n"


def test_a_kernel_that_disagrees_gives_way_to_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = tiny("llama")
    wrong = [lambda x: x * 2.0]
    monkeypatch.setattr(liger, "usable", lambda _: True)
    monkeypatch.setattr(liger, "norm_forwards", lambda *_: list(wrong))
    monkeypatch.setattr(liger, "gated", lambda gate, value: gate * value)
    rows = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))
    norm: nn.Module = model.model.norm
    expected = norm(rows[..., : len(norm.weight)])
    with pointwise.installed(model) as count:
        assert count == 7
        assert torch.allclose(norm(rows[..., : len(norm.weight)]), expected, atol=1e-6)
