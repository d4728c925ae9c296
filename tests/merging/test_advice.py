"""The recommendation of a merge method from adapters' files."""

from dataclasses import replace

import pytest
import torch
from test_on_safety import MATH, SAFETY
from test_on_safety import continual as trained_from_safety

from lori_core.adapters.adapter import Adapter
from lori_core.merging.advice import advise, overlap
from lori_core.merging.interference import measure
from support import random_adapter, three


def method_of(adapters: dict[str, Adapter]) -> str:
    return advise(adapters, measure(adapters)).method


def test_the_overlap_is_that_of_dense_projections() -> None:
    one, other = three((4, 3, 4), None)[:2]
    for name in list(one.modules)[:3]:
        left, _ = torch.linalg.qr(one.B(name).double())
        right, _ = torch.linalg.qr(one.A(name).double().T)
        delta = other.delta(name).double()
        inside = left @ left.T @ delta @ right @ right.T
        expected = float(inside.norm() ** 2 / delta.norm() ** 2)
        assert overlap(one, other, name) == pytest.approx(expected, rel=1e-6)
        assert overlap(one, one, name) == pytest.approx(1.0)
        assert overlap(one, replace(one, modules=one.modules), name) == pytest.approx(1.0)


def test_an_update_of_zero_meets_nothing() -> None:
    one = random_adapter()
    empty = replace(one, values={name: torch.zeros_like(v) for name, v in one.values.items()})
    for name in list(one.modules)[:2]:
        assert (overlap(one, empty, name), overlap(empty, one, name)) == (0.0, 0.0)


def test_adapters_that_do_not_meet_are_summed() -> None:
    pair = {"math": random_adapter(key="math"), "code": random_adapter(key="code", seed=2)}
    found = advise(pair, measure(pair))
    assert (found.method, found.overlap < 0.05) == ("concat", True)
    assert "From the files alone" in found.trust


def test_copies_are_averaged_and_opposites_vote() -> None:
    one = random_adapter()
    assert method_of({"a": one, "b": replace(one, info={})}) == "linear"
    against = replace(one, values={name: -value for name, value in one.values.items()})
    assert method_of({"a": one, "b": against}) == "ties"


def test_adapters_trained_from_one_safety_adapter_are_merged_onto_it() -> None:
    pair = {"math": MATH, "code": trained_from_safety("code", 2)}
    found = advise(pair, measure(pair))
    assert found.method == "on_safety"
    assert SAFETY.info["content_key"] in found.reason
