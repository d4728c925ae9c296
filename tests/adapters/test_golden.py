"""Adapters, masks and merged adapters that version 0.1.0 wrote are read, with the same values."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.masks import mask_file

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "artifacts"
#: SHA-256 over each module's name, dense B and A in float32, in the order of their names.
ADAPTERS = {
    "math/adapter": "7c2b610c4b2cf2a24c7844f38ea8f14dfd3b109c02cf34625149f7b9947f94fb",
    "continual/math/adapter": "2fa38a58e3b7cf5776abd8611718f90fbaf90154ea9f7d2975addfcbc2f746f2",
    "merged/concat": "24eae779ba5909f36917a72ef69d6f0b5793578092a862a0ca833b2fafc60f21",
    "merged/linear": "c22a215b70713ce2bde8ccad66d6492c8b0ca832734d660d95ed5b53083cf774",
}


def digest(adapter: Adapter) -> str:
    found = hashlib.sha256()
    for name in sorted(adapter.modules):
        found.update(name.encode())
        found.update(adapter.B(name).float().numpy().tobytes())
        found.update(adapter.A(name).float().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_version_0_1_0_has_the_values_it_had(name: str) -> None:
    assert digest(adapter_file.load(GOLDEN / name)) == ADAPTERS[name]


def test_a_mask_of_version_0_1_0_is_that_of_the_adapter_trained_inside_it() -> None:
    mask, facts = mask_file.load(GOLDEN / "math" / "mask.safetensors")
    adapter = adapter_file.load(GOLDEN / "math" / "adapter")
    assert (facts["count"], facts["total"], facts["sparsity"]) == (820, 8192, "0.9")
    assert adapter.mask is not None
    for name in adapter.modules:
        assert (mask.of(name) == adapter.mask.of(name)).all()
