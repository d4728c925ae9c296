"""The baselines that protect a safety adapter, each against its literal definition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core import config
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.masks.mask import Mask, magnitude, top
from lori_core.config import Params
from lori_core.core.errors import ConfigError, DataError
from lori_core.core.tracking import NullTracker
from lori_core.data.pulled import read_examples
from lori_core.data.sources import pulling
from lori_core.methods import catalogue, loaded_model, tuning
from lori_core.methods.baselines import kept_directions
from lori_core.methods.baselines.protection import SLAO_SHARE
from lori_core.methods.training_method import METHODS
from lori_core.pipeline import params_file, running

ROOT = Path(__file__).parents[2]
PLAIN = {"lora": "lora", "lori-d": "lori-d", "lori-s": "lori-s"}
KINDS = ("ewc", "orthogonal", "slao", "mix")


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Params]:
    values = params_file._plain(params_file._read(ROOT / "profiles" / "smoke.yaml"))
    values["tasks"] = {name: values["tasks"][name] for name in ("math", "safety")}
    values["continual"] = {"safety_task": "safety", "tasks": ["math"], "training": {}}
    values["experiments"] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("keeping"))
        made = config.parse(values, "params.yaml")
        pulling.pull(made)
        yield made


@pytest.fixture(scope="module")
def starts(params: Params) -> dict[str, Adapter]:
    """A safety adapter of each plain method, and a mask for LoRI-S."""
    found = {name: tuned(params, name, task="safety") for name in ("lora", "lori-d")}
    return found | {"lori-s": found["lori-d"]}


@pytest.fixture(scope="module")
def mask(starts: dict[str, Adapter]) -> Mask:
    from decimal import Decimal

    start = starts["lori-d"]
    return top(magnitude({name: start.B(name) for name in start.modules}), Decimal("0.5"), "model")[
        0
    ]


def tuned(
    params: Params,
    method: str,
    *,
    task: str = "math",
    start: Adapter | None = None,
    mask: Mask | None = None,
    options: dict[str, Any] | None = None,
    safety: str | None = None,
    measure: tuning.Measure | None = None,
    **section: Any,
) -> Adapter:
    session = loaded_model.load_model(params)
    chosen = params.phase(task, "training").model_copy(
        update={"batch_size": 8, "learning_rate": 1e-2, "max_steps": 3} | section
    )
    run = tuning.Tuning(
        "keeping@math", task, method, chosen, options or {}, start=start, mask=mask, safety=safety
    )
    adapter, _ = tuning.tune(session, run, NullTracker(), measure)
    loaded_model.forget_checkpoints("keeping@math")
    assert isinstance(adapter, Adapter)
    return adapter


def base_of(method: str) -> str:
    return next(name for name in PLAIN if method.startswith(name))


def changes(adapter: Adapter, start: Adapter) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield each module with the change of its B and of its A."""
    for name in start.modules:
        yield name, adapter.B(name) - start.B(name), adapter.A(name) - start.A(name)


def test_the_methods_there_are() -> None:
    names = [f"{plain}-{kind}" for plain in PLAIN for kind in KINDS]
    assert sorted(catalogue.KEEPING) == sorted([*names, "lora-olora"])
    for name in names:
        plain = METHODS[base_of(name)]
        assert METHODS[name].goes_on_from(plain)
        assert METHODS[name].calibrated_by == plain.calibrated_by
    assert not METHODS["lora-ewc"].goes_on_from(METHODS["lori-d"])
    assert not METHODS["lori-d-ewc"].goes_on_from(METHODS["lora"])
    assert not METHODS["lora"].keeps_safety


@pytest.mark.parametrize("method", ["lora-ewc", "lora-orthogonal", "lora-slao", "lora-olora"])
def test_without_a_safety_adapter_a_method_trains_as_lora(params: Params, method: str) -> None:
    plain, other = tuned(params, "lora", max_steps=1), tuned(params, method, max_steps=1)
    for name in plain.modules:
        assert torch.equal(plain.B(name), other.B(name))
        assert torch.equal(plain.A(name), other.A(name))
    assert plain.info["content_key"] != other.info["content_key"]


@pytest.mark.parametrize("method", ["lora-ewc", "lori-d-ewc", "lori-s-ewc"])
def test_the_penalty_holds_values_near_the_safety_adapter(
    params: Params, starts: dict[str, Adapter], mask: Mask, method: str
) -> None:
    start = starts[base_of(method)]
    more: dict[str, Any] = {"start": start, "mask": mask if "lori-s" in method else None}
    moved = {
        strength: sum(
            float(b.square().sum() + a.square().sum())
            for _, b, a in changes(
                tuned(params, method, options={"strength": strength}, **more), start
            )
        )
        for strength in (1e-6, 1e3)
    }
    assert moved[1e3] < 0.1 * moved[1e-6]


def test_the_penalty_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(1)
    now, before, weight = (torch.randn(3, 4, generator=generator) for _ in range(3))
    literal = 0.0
    for i in range(3):
        for j in range(4):
            literal += 0.7 / 2 * float(weight[i, j]) * float(now[i, j] - before[i, j]) ** 2
    found = kept_directions.quadratic([(now, before, weight)], 0.7)
    assert float(found) == pytest.approx(literal, rel=1e-5)


def test_accumulated_batches_have_one_penalty(params: Params, starts: dict[str, Adapter]) -> None:
    """A step over the two halves of all examples is the step over all of them."""
    count = len(read_examples("math", "train"))
    more: dict[str, Any] = {"start": starts["lori-d"], "options": {"strength": 1e4}}
    more |= {"max_steps": 2, "epochs": 2, "clipping": "none"}
    whole = tuned(params, "lori-d-ewc", batch_size=count, **more)
    halves = tuned(
        params, "lori-d-ewc", batch_size=count // 2, gradient_accumulation_steps=2, **more
    )
    assert count % 2 == 0
    difference = sum(float((whole.B(n) - halves.B(n)).abs().mean()) for n in whole.modules)
    moved = sum(float(of_b.abs().mean()) for _, of_b, _ in changes(whole, starts["lori-d"]))
    assert difference < 0.02 * moved


@pytest.mark.parametrize("method", ["lora-orthogonal", "lori-d-orthogonal", "lori-s-orthogonal"])
def test_changes_are_orthogonal_to_the_safety_adapter(
    params: Params, starts: dict[str, Adapter], mask: Mask, method: str
) -> None:
    start = starts[base_of(method)]
    masked = mask if "lori-s" in method else None
    adapter = tuned(params, method, start=start, mask=masked)
    moved = 0.0
    for name, of_b, of_a in changes(adapter, start):
        assert (start.B(name).T @ of_b).abs().max() < 1e-5
        assert (of_a @ start.A(name).T).abs().max() < 1e-5
        moved += float(of_b.abs().sum())
        if masked is not None:
            outside = ~torch.from_numpy(masked.of(name)).view(of_b.shape)
            assert not of_b[outside].any()
    assert moved > 0
    # For an input in the row space of A_s, the outputs along B_s are those of the safety adapter.
    name = next(iter(start.modules))
    kept = start.B(name).T @ (adapter.delta(name) - start.delta(name)) @ start.A(name).T
    assert kept.abs().max() < 1e-4


def test_the_projection_of_a_dense_change_is_osfs() -> None:
    """PEFT projects gradients with `dU - U (Uᵀ dU)`; ours is the same map."""
    from peft.tuners.osf.utils import project_gradient_to_orthogonal_space

    generator = torch.Generator().manual_seed(2)
    U = kept_directions.column_basis(torch.randn(12, 3, generator=generator))
    V = kept_directions.column_basis(torch.randn(9, 3, generator=generator))
    low = {
        "U_high": U,
        "V_high": V.T.contiguous(),
        "U_low": torch.nn.Parameter(torch.zeros(12, 4)),
        "S_low": torch.nn.Parameter(torch.zeros(4)),
        "V_low": torch.nn.Parameter(torch.zeros(4, 9)),
    }
    change_u, change_v = torch.randn(12, 4, generator=generator), torch.randn(4, 9)
    low["U_low"].grad, low["V_low"].grad = change_u.clone(), change_v.clone()
    project_gradient_to_orthogonal_space(low)
    assert torch.allclose(kept_directions.without(change_u, U), low["U_low"].grad, atol=1e-6)
    ours = kept_directions.without(change_v.T, V).T
    assert torch.allclose(ours, low["V_low"].grad, atol=1e-6)


def test_the_projection_inside_a_mask_is_the_nearest_allowed_change() -> None:
    generator = torch.Generator().manual_seed(3)
    d_out, rank = 15, 4
    B = torch.randn(d_out, rank, generator=generator)
    basis = kept_directions.column_basis(B)
    inside = torch.rand(d_out, rank, generator=generator) < 0.6
    inside[:, 3] = False
    inside[:2, 3] = True  # fewer entries than directions: nothing may change there
    positions = inside.reshape(-1).nonzero().reshape(-1)
    positions = positions[torch.randperm(len(positions), generator=generator)]
    change = torch.randn(len(positions), generator=generator)
    found = kept_directions.MaskedColumns(basis, positions, rank).project(change)
    dense = torch.zeros(d_out * rank)
    dense[positions] = found
    dense = dense.view(d_out, rank)
    assert (B.T @ dense).abs().max() < 1e-5
    assert dense[:, 3].abs().max() < 1e-6
    original = torch.zeros(d_out * rank)
    original[positions] = change
    for column in range(rank):
        rows = inside[:, column]
        U, c = basis[rows], original.view(d_out, rank)[rows, column]
        nearest = c - U @ torch.linalg.lstsq(U, c.unsqueeze(1), driver="gelsd").solution[:, 0]
        assert torch.allclose(dense[rows, column], nearest, atol=1e-5)


def test_a_basis_leaves_out_directions_that_a_matrix_does_not_span() -> None:
    matrix = torch.zeros(6, 3)
    matrix[:, 0] = torch.arange(6.0)
    assert kept_directions.column_basis(matrix).shape == (6, 1)
    assert kept_directions.column_basis(torch.zeros(6, 3)).shape == (6, 0)
    batch = kept_directions.column_basis(torch.stack([matrix, torch.zeros(6, 3)]))
    assert batch.shape == (2, 6, 3)
    assert torch.linalg.matrix_rank(batch).tolist() == [1, 0]


@pytest.mark.parametrize("method", ["lora-slao", "lori-d-slao", "lori-s-slao"])
def test_slao_merges_b_and_keeps_the_trained_a(
    params: Params,
    starts: dict[str, Adapter],
    mask: Mask,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lori_core.methods.baselines import protection

    start = starts[base_of(method)]
    more: dict[str, Any] = {"start": start, "mask": mask if "lori-s" in method else None}
    merged = tuned(params, method, **more)
    monkeypatch.setattr(protection, "SLAO_SHARE", 1.0)
    trained = tuned(params, method, **more)
    assert pytest.approx(2**-0.5) == SLAO_SHARE
    for name in start.modules:
        expected = start.B(name) + (trained.B(name) - start.B(name)) / 2**0.5
        assert torch.allclose(merged.B(name), expected, atol=1e-6)
        assert torch.equal(merged.A(name), trained.A(name))


@pytest.mark.parametrize("method", ["lora-slao", "lori-d-slao"])
def test_what_is_measured_is_the_merged_adapter(
    params: Params, starts: dict[str, Adapter], method: str
) -> None:
    from lori_core.models import peft_names

    measured: dict[str, torch.Tensor] = {}

    def measure(model: Any) -> None:
        for name, layer in peft_names.lora_layers(model).items():
            measured[name] = layer.lora_B["default"].weight.detach().clone()

    adapter = tuned(params, method, start=starts[base_of(method)], measure=measure, max_steps=1)
    for name in adapter.modules:
        assert torch.equal(measured[name], adapter.B(name))


def test_slao_starts_from_orthonormal_rows(params: Params, starts: dict[str, Adapter]) -> None:
    start = starts["lora"]
    begun = tuned(params, "lora-slao", start=start, max_steps=1, learning_rate=1e-9)
    for name in start.modules:
        A, before = begun.A(name), start.A(name)
        assert torch.allclose(A @ A.T, torch.eye(len(A)), atol=1e-5)
        mixing = before @ A.T  # lower triangular with a positive diagonal: A_s = Rᵀ Qᵀ
        assert torch.allclose(mixing @ A, before, atol=1e-5)
        assert torch.allclose(mixing, mixing.tril(), atol=1e-5)
        assert (mixing.diagonal() > 0).all()


def test_olora_adds_a_second_update_beside_the_frozen_one(
    params: Params, starts: dict[str, Adapter]
) -> None:
    start = starts["lora"]
    rank = params.lori.rank
    loose, strict = (
        tuned(
            params, "lora-olora", start=start, options={"orthogonality": strength, "l2": 1e-3},
            weight_decay=0.1, max_steps=8,
        )
        for strength in (1e-6, 10.0)
    )  # fmt: skip
    overlaps = []
    for adapter in (loose, strict):
        assert {module.rank for module in adapter.modules.values()} == {2 * rank}
        for name in start.modules:
            assert torch.equal(adapter.A(name)[:rank], start.A(name))
            assert torch.equal(adapter.B(name)[:, :rank], start.B(name))
            assert adapter.scaling(name) == pytest.approx(start.scaling(name))
        pairs = [(adapter.A(n)[rank:], start.A(n)) for n in start.modules]
        overlaps.append(float(kept_directions.overlap(pairs)))
        literal = sum(abs(float(row @ other)) for A, B in pairs for row in A for other in B)
        assert overlaps[-1] == pytest.approx(literal, rel=1e-4)
    assert overlaps[1] < 0.8 * overlaps[0]
    assert any(strict.B(name)[:, rank:].any() for name in start.modules)


@pytest.mark.parametrize("method", ["lora-mix", "lori-d-mix"])
def test_a_share_of_safety_examples_is_mixed_in(
    params: Params, starts: dict[str, Adapter], method: str
) -> None:
    own = len(read_examples("math", "train"))
    chosen = loaded_model.mixed_in("math", "safety", 0.2, 1)
    assert len(chosen) == round(own * 0.25)
    assert {e.id for e in chosen} <= {e.id for e in read_examples("safety", "train")}
    assert chosen == loaded_model.mixed_in("math", "safety", 0.2, 1)
    assert chosen != loaded_model.mixed_in("math", "safety", 0.2, 2)
    session = loaded_model.load_model(params)
    section = params.phase("math", "training")
    rows, key = loaded_model.training_rows(session, "math", section, chosen)
    assert len(rows) == own + len(chosen)
    assert key != loaded_model.training_rows(session, "math", section)[1]
    more: dict[str, Any] = {"start": starts[base_of(method)], "max_steps": 2}
    mixed = tuned(params, method, safety="safety", options={"share": 0.2}, **more)
    plain = tuned(params, method, options={"share": 0.2}, **more)
    assert mixed.info["depends"]["data"] != plain.info["depends"]["data"]
    assert mixed.info["depends"]["options"] == {"share": 0.2}


def test_the_continual_phase_has_a_method_of_its_own(params: Params) -> None:
    values = params.model_dump(mode="json")
    for task in values["tasks"].values():
        task["method"] = "lori-d"
    values["continual"]["method"] = {"name": "lori-d-mix", "share": 0.2}
    own = config.parse(values, "params.yaml")
    catalogue.check(own)
    assert own.method("math").name == "lori-d"
    assert own.method("math", "continual") == ("lori-d-mix", {"share": 0.2}, "continual.method")
    for stage, task in (("calibrate", "safety"), ("mask", "safety"), ("train", "safety")):
        running.run(own, stage, task, NullTracker())
    running.run(own, "calibrate", "math", NullTracker())
    running.run(own, "mask", "math", NullTracker())
    running.run(own, "continual", "math", NullTracker())
    trained = json.loads(Path("metrics/continual/math.json").read_text())
    assert trained["method"] == "lori-d-mix"
    assert trained["examples"] == round(1.25 * len(read_examples("math", "train")))


@pytest.mark.parametrize(
    ("own", "continual", "message"),
    [
        ("lori-d", "lori-s-mix", "continual.method: lori-s-mix trains inside a mask, and lori-d"),
        (
            "lori-d",
            "lora-mix",
            "continual.method: lora-mix cannot start from the adapter of safety, which lori-d",
        ),
        ("lori-d", {"name": "lori-d-mix", "share": 2}, "continual.method"),
        ("lori-d", "lori-mix", "continual.method: method 'lori-mix' is unknown"),
    ],
)
def test_a_wrong_method_of_the_continual_phase_is_refused(
    params: Params, own: str, continual: Any, message: str
) -> None:
    values = params.model_dump(mode="json")
    for task in values["tasks"].values():
        task["method"] = own
    values["continual"]["method"] = continual
    with pytest.raises(ConfigError, match=message):
        catalogue.check(config.parse(values, "params.yaml"))


@pytest.mark.parametrize(
    ("method", "task", "continual", "message"),
    [
        ("lori-s", {"lora_alpha": 4}, {}, None),
        ("lori-s", {"lora_alpha": 4}, {"lora_alpha": 16}, None),
        ("lori-s", {}, {"lora_alpha": 4}, r"continual\.training\.lora_alpha: 4, but .* is 16"),
        ("lora", {"lora_alpha": 4}, {}, r"tasks\.math\.training\.lora_alpha: 4, but .* is 16"),
        ("lora", {"lora_alpha": 4}, {"lora_alpha": 16}, None),
    ],
)
def test_the_continual_phase_keeps_the_safety_adapters_alpha(
    params: Params, method: str, task: Any, continual: Any, message: str | None
) -> None:
    values = params.model_dump(mode="json")
    values["lori"]["lora_alpha"] = 16
    for section in values["tasks"].values():
        section["method"] = method
    values["tasks"]["math"]["training"] |= task
    values["continual"]["training"] = continual
    refused = nullcontext() if message is None else pytest.raises(ConfigError, match=message)
    with refused:
        catalogue.check(config.parse(values, "params.yaml"))


@pytest.mark.parametrize("method", ["lori-mix", {"name": "lori-d-mix", "share": 2}])
def test_a_wrong_method_of_the_continual_phase_is_refused_without_tasks(
    params: Params, method: Any
) -> None:
    values = params.model_dump(mode="json")
    values["continual"] = {"method": method}
    with pytest.raises(ConfigError, match=r"continual\.method"):
        catalogue.check(config.parse(values, "params.yaml"))


def test_too_large_a_share_is_refused(params: Params) -> None:
    with pytest.raises(
        DataError, match=r"data/safety/train.jsonl: has \d+ examples .* share of 0.9"
    ):
        loaded_model.mixed_in("math", "safety", 0.9, 1)


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("lora-ewc", {"strength": 0}, "strength"),
        ("lora-ewc", {"importance": "fisher"}, "importance"),
        ("lora-mix", {"share": 1.0}, "share"),
        ("lora-mix", {"share": 0}, "share"),
        ("lora-olora", {"l2": -1.0}, "l2"),
        ("lora-slao", {"share": 0.5}, "lora-slao has no options"),
    ],
)
def test_wrong_options_are_refused(method: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalogue.options(method, values, "tasks.math.method")


def test_sharded_parameters_are_refused(params: Params, starts: dict[str, Adapter]) -> None:
    with pytest.raises(ConfigError, match=r"training.sharding: full cannot be used .* lori-d-ewc"):
        tuned(params, "lori-d-ewc", start=starts["lori-d"], sharding="full")
