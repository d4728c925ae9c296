"""A orthogonal to other tasks' inputs: exactly where it can be, with the seed, and in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lori_core import config
from lori_core.adapters.adapter import Adapter, ProjectionBlock, draw
from lori_core.adapters.masks.mask import magnitude
from lori_core.adapters.masks.structured_mask import top_structures
from lori_core.config import Params
from lori_core.core.errors import ConfigError
from lori_core.core.tracking import NullTracker
from lori_core.data.prompts import encode_all
from lori_core.data.sources import pulling
from lori_core.methods import finetuned_model, tuning
from lori_core.methods.loaded_model import LoadedModel, load_model
from lori_core.methods.lori import null_space
from lori_core.methods.lori.null_space import Avoid
from lori_core.pipeline import params_file

ROOT = Path(__file__).parents[3]
#: One short example: fewer tokens than a layer has inputs, so that its null space is not empty.
LENGTH = 40
ONE = Avoid(("safety",), 1)


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(
        count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Params]:
    values = params_file._plain(params_file._read(ROOT / "profiles" / "smoke.yaml"))
    values["tasks"] = {name: values["tasks"][name] for name in ("math", "safety")}
    values["continual"] = values["experiments"] = {}
    values["model"]["dtype"] = "float32"
    values["prompt"] = {"template": "plain"}
    values["lori"] |= {"rank": 4, "lora_alpha": 8}
    values["training"] |= {"max_steps": 2, "batch_size": 4, "max_length": LENGTH}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workspace"))
        params = config.parse(values, "params.yaml")
        pulling.pull(params)
        yield params


def tune(
    params: Params, method: str = "lori-d", seed: int = 1, avoid: Avoid | None = ONE, **more: Any
) -> Adapter:
    lori = params.lori.model_copy(update={"seed": seed})
    session = load_model(params.model_copy(update={"lori": lori}))
    section = params.phase("math", "training")
    run = tuning.Tuning("train@math", "math", method, section, avoid=avoid, **more)
    trained, _ = tuning.tune(session, run, NullTracker())
    assert isinstance(trained, Adapter)
    return trained


def inputs_of(session: LoadedModel, task: str, count: int) -> dict[str, Tensor]:
    """Return the inputs X [tokens, d_in], float64, of each module on a task's examples."""
    own = null_space._chosen(task, count, session.params.lori.seed)
    encoded = encode_all(own, session.params.prompt, session.tokenizer, LENGTH)
    seen: dict[str, list[Tensor]] = {name: [] for name in session.modules}
    hooks = [
        session.model.get_submodule(name).register_forward_pre_hook(
            lambda _, x, name=name: seen[name].append(x[0][0].double())
        )
        for name in session.modules
    ]
    with torch.inference_mode():
        for row in encoded:
            session.model(input_ids=torch.tensor([row.prompt + row.target]))
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def test_the_directions_span_the_null_space_where_it_is_large_enough() -> None:
    X = rows(20, 64)
    directions = null_space.least_directions(X.T @ X, 8)
    assert directions.shape == (64, 44)
    assert float((X @ directions).abs().max()) < 1e-12
    assert torch.allclose(directions.T @ directions, torch.eye(44, dtype=torch.float64))


def test_the_directions_are_the_least_eigenvectors_where_it_is_not() -> None:
    X = rows(200, 16)
    directions = null_space.least_directions(X.T @ X, 4)
    assert directions.shape == (16, 4)
    least = torch.linalg.svdvals(X)[-4:]
    assert torch.allclose(torch.linalg.svdvals(X @ directions), least)


def test_a_rank_above_the_inputs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lori\.rank: 17 is above a layer's 16 inputs"):
        null_space.least_directions(torch.eye(16, dtype=torch.float64), 17)


def test_moved_rows_are_orthogonal_with_the_norm_of_random_ones() -> None:
    drawn = draw((ProjectionBlock(1, "math", 8),), "layers.0.q_proj", 64)
    directions = null_space.least_directions(rows(20, 64).T @ rows(20, 64), 8)
    moved = null_space.moved_into(drawn, directions)
    assert moved.dtype == torch.float32
    square = float(drawn.double().norm() ** 2) / 8
    unit = square * torch.eye(8, dtype=torch.float64)
    assert torch.allclose(moved.double() @ moved.double().T, unit, atol=1e-6)


def test_moved_rows_depend_on_the_span_and_the_seed_alone() -> None:
    first, second = (draw((ProjectionBlock(s, "math", 8),), "layers.0.q_proj", 64) for s in (1, 2))
    directions = null_space.least_directions(rows(20, 64).T @ rows(20, 64), 8)
    turned = directions @ torch.linalg.qr(rows(44, 44, 1))[0]
    moved = null_space.moved_into(first, directions)
    assert torch.allclose(moved, null_space.moved_into(first, turned), atol=1e-6)
    assert not torch.allclose(moved, null_space.moved_into(second, directions), atol=1e-2)


def test_the_sums_are_those_of_each_modules_inputs(workspace: Params) -> None:
    session = load_model(workspace)
    measured = null_space.measure_inputs(session, Avoid(("safety",), 3), "math", LENGTH)
    assert list(measured.grams) == list(session.modules)
    for name, X in inputs_of(session, "safety", 3).items():
        assert torch.allclose(measured.grams[name], X.T @ X, rtol=1e-6, atol=1e-9)
    q, k, o = (f"model.layers.0.self_attn.{part}_proj" for part in "qko")
    assert measured.grams[q] is measured.grams[k]
    assert measured.grams[q] is not measured.grams[o]
    assert not any(module._forward_pre_hooks for module in session.model.modules())


def test_an_adapter_does_nothing_to_the_inputs_it_avoids(workspace: Params, tmp_path: Path) -> None:
    trained = tune(workspace)
    finetuned_model.save_model(trained, tmp_path / "model")
    loaded = finetuned_model.open_model(tmp_path / "model")
    assert isinstance(loaded, Adapter)
    session = load_model(
        workspace.model_copy(update={"lori": workspace.lori.model_copy(update={"seed": 1})})
    )
    others, own = (inputs_of(session, task, 1) for task in ("safety", "math"))
    for name, size in loaded.modules.items():
        X = others[name]
        assert len(X) <= size.d_in - size.rank, name
        at_random = draw((ProjectionBlock(1, "math", 4),), name, size.d_in)
        usual = float((X @ at_random.double().T).norm())
        assert float((X @ loaded.A(name).double().T).norm()) < 1e-5 * usual
        assert float((own[name] @ loaded.A(name).double().T).norm()) > 0.01 * usual
        assert float(loaded.B(name).norm()) > 0
        assert torch.equal(loaded.A(name), trained.A(name))
    assert loaded.blocks == ()


def test_the_seed_and_the_others_data_decide_a_and_the_content_key(workspace: Params) -> None:
    first, again, other, more = (
        tune(workspace, seed=seed, avoid=avoid)
        for seed, avoid in ((1, ONE), (1, ONE), (2, ONE), (1, Avoid(("safety",), 2)))
    )
    keys = [trained.info["content_key"] for trained in (first, again, other, more)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    name = next(iter(first.modules))
    assert torch.equal(first.A(name), again.A(name))
    assert not torch.allclose(first.A(name), other.A(name), atol=1e-3)
    avoided = [trained.info["depends"]["avoid"] for trained in (first, more)]
    assert avoided[0]["tasks"] == ["safety"]
    assert avoided[0]["data"] != avoided[1]["data"]
    plain = tune(workspace, avoid=None)
    assert "avoid" not in plain.info["depends"]
    assert plain.blocks[0].key == "math"


def test_a_mask_and_further_training_keep_the_a_that_avoids(workspace: Params) -> None:
    before = tune(workspace)
    scores = magnitude({name: before.B(name) for name in before.modules})
    mask, _ = top_structures(scores, workspace.lori.exact_sparsity(), "model", "none")
    sparse = tune(workspace, "lori-s", avoid=None, mask=mask, calibrated=before)
    after = tune(workspace, avoid=None, start=before)
    for name in before.modules:
        assert torch.equal(sparse.A(name), before.A(name))
        assert torch.equal(after.A(name), before.A(name))
    assert sparse.mask is not None


@pytest.mark.parametrize(
    ("method", "avoid", "said"),
    [
        ("lora", ONE, "only where lori-d draws it, not where lora trains it"),
        ("lori-d", Avoid(("math",), 1), "name one or more tasks, and not math itself"),
        ("lori-d", Avoid((), 1), r"got: none"),
    ],
)
def test_what_cannot_avoid_is_refused(
    workspace: Params, method: str, avoid: Avoid, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        tune(workspace, method, avoid=avoid)


def test_an_adapter_that_is_gone_on_from_has_its_own_a(workspace: Params) -> None:
    with pytest.raises(ConfigError, match="where lori-d has it from an adapter"):
        tune(workspace, start=tune(workspace, avoid=None))
