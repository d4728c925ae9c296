"""The first-order forecast of the excess loss: exact derivatives, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lori_core.adapters.adapter import Adapter
from lori_core.core.errors import InputError
from lori_core.data.batching import collate
from lori_core.data.prompts import Encoded
from lori_core.evaluation.preflight.excess_forecast import OTHERS, as_dict, forecast
from lori_core.merging.merge import merge
from lori_core.report import forecast_table
from lori_core.training.loss import sequence_loss
from support import random_adapter, tiny

TASKS = ("math", "code", "nlu")
WEIGHTS = {"math": 0.5, "code": -0.25, "nlu": 1.0}
ROWS = {
    task: [Encoded([5, 6, 7 + n], [8 + n, 9, 3], False) for n in range(number)]
    for number, task in enumerate(TASKS, start=1)
}


def adapters(architecture: str) -> dict[str, Adapter]:
    return {
        task: random_adapter(architecture, key=task, rank=2 + seed, alpha=0.5, seed=seed)
        for seed, task in enumerate(TASKS)
    }


def loss_at(architecture: str, dtype: torch.dtype, *updates: tuple[Adapter, float]) -> Any:
    """Return a base model whose own weights are W0 + Σ w·ΔW, in a dtype."""
    model = tiny(architecture)[0].to(dtype)
    for adapter, weight in updates:
        for name in adapter.modules:
            delta = weight * adapter.delta(name)
            linear = model.get_submodule(name)
            linear.weight.data += (delta.T if adapter.fan_in_fan_out else delta).to(dtype)
    return model


def mean_loss(model: Any, task: str) -> torch.Tensor:
    losses = [sequence_loss(model, collate([row], 0)) for row in ROWS[task]]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_forecast_is_the_inner_product_with_the_dense_gradient(architecture: str) -> None:
    every = adapters(architecture)
    found = forecast(tiny(architecture)[0].double(), every, WEIGHTS, ROWS, 0)
    merged = {
        "concat": merge("concat", list(every.values()), list(WEIGHTS.values())),
        **{m: merge(m, list(every.values()), list(WEIGHTS.values()), OTHERS[m]) for m in OTHERS},
    }
    for task in TASKS:
        model = loss_at(architecture, torch.float64, (every[task], WEIGHTS[task]))
        linears = {name: model.get_submodule(name).weight for name in every[task].modules}
        for weight in linears.values():
            weight.requires_grad_()
        mean_loss(model, task).backward()

        def inner(adapter: Adapter, linears: dict[str, torch.Tensor] = linears) -> float:
            total = 0.0
            for name, weight in linears.items():
                delta = adapter.delta(name).double()
                assert weight.grad is not None
                total += float((weight.grad * (delta.T if adapter.fan_in_fan_out else delta)).sum())
            return total

        own = WEIGHTS[task] * inner(every[task])
        for other, term in found[task].terms.items():
            assert term == pytest.approx(WEIGHTS[other] * inner(every[other]), rel=1e-5, abs=1e-7)
        for method, adapter in merged.items():
            expected = inner(adapter) - own
            assert found[task].methods[method].excess == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("architecture", "dtype", "step", "error"),
    [
        ("gpt2", torch.float64, 1e-4, 1e-5),
        # The normalisation of llama computes in float32, which limits the differences.
        ("llama", torch.float64, 2e-3, 5e-3),
        ("llama", torch.float32, 2e-2, 2e-2),
    ],
)
def test_a_term_is_the_slope_of_the_loss_by_finite_differences(
    architecture: str, dtype: torch.dtype, step: float, error: float
) -> None:
    every = adapters(architecture)
    found = forecast(tiny(architecture)[0].to(dtype), every, WEIGHTS, ROWS, 0)["nlu"]
    for other in ("math", "code"):
        own = (every["nlu"], WEIGHTS["nlu"])
        with torch.no_grad():
            ends = [
                float(mean_loss(loss_at(architecture, dtype, own, (every[other], h)), "nlu"))
                for h in (step, -step)
            ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert found.terms[other] == pytest.approx(
            WEIGHTS[other] * slope, rel=error, abs=error / 10
        )


def test_losses_and_the_measured_excess_are_those_of_the_dense_sum() -> None:
    every = adapters("llama")
    model = tiny("llama")[0]
    found = forecast(model, every, WEIGHTS, ROWS, 0)
    pairs = [(every[task], WEIGHTS[task]) for task in TASKS]
    with torch.no_grad():
        for task, row in found.items():
            base, whole = loss_at("llama", torch.float32), loss_at("llama", torch.float32, *pairs)
            own = loss_at("llama", torch.float32, (every[task], WEIGHTS[task]))
            assert row.base_loss == pytest.approx(float(mean_loss(base, task)), rel=1e-5)
            assert row.own_loss == pytest.approx(float(mean_loss(own, task)), rel=1e-4)
            assert row.merged_loss == pytest.approx(float(mean_loss(whole, task)), rel=1e-4)
            assert row.measured == row.merged_loss - row.own_loss
            assert row.examples == len(ROWS[task])
        assert torch.equal(mean_loss(model, "nlu"), mean_loss(tiny("llama")[0], "nlu"))
    assert found["math"].methods["concat"].low is None
    assert found["nlu"].methods["concat"].low < found["nlu"].methods["concat"].excess


def test_the_method_that_loses_least_on_average_is_recommended_and_its_trust_is_said() -> None:
    found = as_dict(forecast(tiny("llama")[0], adapters("llama"), WEIGHTS, ROWS, 0))
    assert list(found["shares"]) == ["concat", "linear", "ties"]
    assert found["shares"][found["recommended"]] == min(found["shares"].values())
    text = forecast_table.text({"weights": WEIGHTS} | found)
    assert f"Recommended method by the forecast: {found['recommended']}: " in text
    assert "weights math 0.5, code -0.25, nlu 1" in text
    # A task of another name, so that no column of the table runs into the next.
    long = {"weights": {}, **found, "tasks": {}}
    names = {"math": "bundled-mathematics", "code": "bundled-code", "nlu": "bundled-nlu"}
    for task, row in found["tasks"].items():
        terms = {names[other]: term for other, term in row["terms"].items()}
        long["tasks"][names[task]] = row | {"terms": terms}
    header = forecast_table.text(long).splitlines()[1]
    assert header.split("  ")[-1] == "from bundled-nlu"
    assert f"  from {names['math']}" in header
    measured = sum(row["measured"] for row in found["tasks"].values())
    assert f"concat has {measured:+.3f} nats measured" in text


def test_a_loss_that_is_not_finite_is_refused() -> None:
    every = adapters("llama")
    values = {name: torch.full_like(v, 1e30) for name, v in every["code"].values.items()}
    every["code"] = replace(every["code"], values=values)
    with pytest.raises(InputError, match=r"the loss of (math|code), or its derivative"):
        forecast(tiny("llama")[0], every, WEIGHTS, ROWS, 0)
