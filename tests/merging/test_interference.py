import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError
from lori_core.merging.interference import compare, measure, module_pair, shared_projection
from lori_core.report import interference_table
from support import NAMES, peft_folder, random_adapter, three


def test_interference_is_the_inner_product_of_the_updates() -> None:
    first, second, _ = three((4, 6, 4))
    for name in first.modules:
        pair = module_pair(first, second, name)
        dense_s, dense_t = first.delta(name).double(), second.delta(name).double()
        inner = float((dense_s * dense_t).sum())
        assert pair.inner == pytest.approx(inner, abs=1e-5)
        cosine = inner / float(dense_s.norm() * dense_t.norm())
        assert pair.cosine == pytest.approx(cosine, abs=1e-5)
        assert pair.bound is not None
        assert abs(pair.inner) <= pair.bound


def test_pairs_are_compared() -> None:
    adapters = dict(zip(NAMES, three(), strict=True))
    pairs = compare(adapters)
    assert list(pairs) == ["math+code", "math+nlu", "code+nlu"]
    facts = pairs["math+code"]
    assert facts["within_bound"] == 1.0
    first, second = adapters["math"], adapters["code"]
    assert first.mask is not None
    assert second.mask is not None
    both = first.mask.flat & second.mask.flat
    assert facts["mask_overlap"] == both.mean()
    assert facts["expected_overlap"] == pytest.approx(0.01, rel=0.01)
    signs = [
        np.concatenate([a.B(n).sign().reshape(-1) for n in a.modules]) for a in (first, second)
    ]
    assert facts["sign_collisions"] == (signs[0] * signs[1] < 0)[both].mean()


def test_a_shared_projection_is_called_out() -> None:
    math, twin = random_adapter(key="math"), random_adapter(key="math", seed=9)
    with pytest.raises(AdapterError, match="math and twin share the projection key 'math'"):
        compare({"math": math, "twin": twin})
    text = interference_table.text(interference_table.measure({"math": math, "twin": twin}))
    assert "WARNING: math and twin SHARE the projection key 'math'" in text


def test_a_shared_projection_is_seen_without_its_key(tmp_path: Path) -> None:
    math, code = random_adapter(key="math"), random_adapter(key="code")
    stored = replace(math, blocks=(), stored={n: math.A(n) for n in math.modules})
    assert shared_projection(math, stored) == "rows of A (in model.layers.0.self_attn.q_proj)"
    assert shared_projection(stored, code) is None


def test_adapters_of_peft_are_compared_where_both_adapt(tmp_path: Path) -> None:
    peft_folder(tmp_path / "q", r=4, target_modules=["q_proj", "v_proj"])
    peft_folder(tmp_path / "v", r=6, target_modules=["v_proj", "up_proj"])
    q, v = (peft_file.open_adapter(tmp_path / name) for name in "qv")
    modules = measure({"q": q, "v": v})["q+v"]
    assert {name.rsplit(".", 1)[1] for name in modules} == {"v_proj"}
    for name, pair in modules.items():
        expected = float((q.delta(name).double() * v.delta(name).double()).sum())
        assert pair.inner == pytest.approx(expected, abs=1e-5)
        assert (pair.bound, pair.entries) == (None, 0)
    assert set(compare({"q": q, "v": v})["q+v"]) == {"mean_abs_cosine", "max_abs_cosine"}


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    math = random_adapter(key="math")
    with pytest.raises(AdapterError, match="1 adapter given; at least two"):
        measure({"math": math})
    with pytest.raises(AdapterError, match="a and b were made for different base models"):
        measure({"a": math, "b": random_adapter("mistral")})
    (first, *_, last) = math.modules
    one, other = ({n: math.modules[n]} for n in (first, last))
    with pytest.raises(AdapterError, match="a\\+b: no module is adapted by both"):
        measure({"a": replace(math, modules=one), "b": replace(math, modules=other)})


def test_a_table_a_picture_and_json_come_out(tmp_path: Path) -> None:
    adapters = dict(zip(NAMES, three(), strict=True))
    result = interference_table.measure(adapters)
    table = interference_table.text(result, every_module=True)
    assert table.splitlines()[1].split()[0] == "math+code"
    assert sum("q_proj" in line for line in table.splitlines()) == 3 * 2
    assert "WARNING" not in table
    interference_table.write(result, list(adapters), tmp_path / "out")
    said = json.loads((tmp_path / "out" / "interference.json").read_text())
    assert said["pairs"] == result["pairs"]
    assert (tmp_path / "out" / "interference.png").stat().st_size > 10_000


def test_one_update_that_is_nothing_has_no_cosine() -> None:
    math = random_adapter(sparsity=None)
    nothing = replace(
        random_adapter(key="code", sparsity=None),
        values={n: torch.zeros(m.d_out * m.rank) for n, m in math.modules.items()},
    )
    (name, *_) = math.modules
    assert module_pair(math, nothing, name).cosine == 0.0


@pytest.mark.parametrize("scale", [1.0, 1e-15, 1e15])
def test_factors_whose_product_cancels_have_no_cosine(scale: float) -> None:
    """A and B are not zero, but B @ A is, up to the rounding of floats."""
    math = random_adapter(sparsity=None)
    A = {name: math.A(name)[:1] for name in math.modules}
    B = {name: scale * math.B(name)[:, :1] for name in math.modules}
    cancelled = replace(
        math,
        blocks=(),
        stored={n: torch.cat([A[n], A[n] / 3, A[n], A[n] / 3]) for n in A},
        values={n: torch.cat([B[n], 3 * B[n], -B[n], -3 * B[n]], dim=1).reshape(-1) for n in B},
    )
    for name in math.modules:
        for other in (math, cancelled):
            found = module_pair(cancelled, other, name)
            assert (found.inner, found.cosine) == (0.0, 0.0)
        assert module_pair(math, math, name).cosine == pytest.approx(1.0)


def test_no_mask_is_null_in_json(tmp_path: Path) -> None:
    adapters = {name: random_adapter(key=name, sparsity=None) for name in ("math", "code")}
    interference_table.write(interference_table.measure(adapters), list(adapters), tmp_path)
    modules = json.loads((tmp_path / "interference.json").read_text())["modules"]["math+code"]
    assert {module["expected"] for module in modules.values()} == {None}
