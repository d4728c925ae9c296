"""The stages on a two-layer model, through files, without any engine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core import config
from lori_core.adapters import adapter_file
from lori_core.adapters.masks import mask_file
from lori_core.core.errors import DataError
from lori_core.core.files.atomic import digest
from lori_core.core.tracking import FileTracker, NullTracker
from lori_core.data.sources import pulling
from lori_core.pipeline import params_file, results, running

ROOT = Path(__file__).parents[2]
SEARCH = {"examples": 4, "steps": 2, "batch": 2, "candidates": 2, "task_weights": {"safety": 2.0}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run every stage once, on two tasks."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        values = params_file._plain(params_file._read(Path("params.yaml")))
        values["tasks"] = {name: values["tasks"][name] for name in ("math", "safety")}
        values["continual"]["tasks"] = ["math"]
        values["merge"]["safe"] = {"method": "on_safety", "stage": "continual", "search": SEARCH}
        for rule in ("refusal", "over_refusal", "forgetting"):
            values["gate"]["rules"][rule] = {"at_most": 0.9}
        params = config.parse(values, "params.yaml")
        pulling.pull(params)
        tracker = NullTracker()
        for name, items in {
            "calibrate": ["math", "safety"],
            "mask": ["math", "safety"],
            "train": ["math", "safety"],
            "continual": ["math"],
            "search": ["concat", "safe"],
            "merge": ["concat", "linear", "safe"],
            "interference": [None],
            "evaluate_base": [None],
            "evaluate_adapters": ["math", "safety"],
            "evaluate_merged": ["concat", "linear", "safe"],
            "evaluate_continual": ["math"],
            "excess": ["concat", "linear", "safe"],
            "report": [None],
        }.items():
            for item in items:
                running.run(params, name, item, tracker)
        yield folder, params


def test_the_masked_adapter_uses_the_calibrations_a_and_only_its_mask(finished: Any) -> None:
    folder, _ = finished
    calibrated = adapter_file.load(folder / results.calibrated_path("math"))
    sparse = adapter_file.load(folder / results.adapter_path("math"))
    mask, facts = mask_file.load(folder / results.mask_path("math"))
    assert sparse.blocks == calibrated.blocks
    assert sparse.blocks[0].key == "math"
    assert facts["count"] == mask.count == sparse.count
    assert mask.count == mask.total - int(0.9 * mask.total)
    assert facts["calibration"] == calibrated.info["content_key"]
    assert sparse.info["parents"] == [calibrated.info["content_key"]]
    for adapter in (sparse, calibrated):
        assert digest(adapter.info["depends"]) == adapter.info["content_key"]
        assert "lori_core/training/trainer.py" in adapter.info["depends"]["code"]
    for name in sparse.modules:
        b = sparse.B(name)
        outside = torch.ones(b.numel(), dtype=torch.bool)
        outside[mask.positions()[name]] = False
        assert not bool(b.reshape(-1)[outside].any())
        assert torch.equal(sparse.A(name), calibrated.A(name))


def test_tasks_have_projections_of_their_own(finished: Any) -> None:
    folder, _ = finished
    math, safety = (adapter_file.load(folder / results.adapter_path(t)) for t in ("math", "safety"))
    name = next(iter(math.modules))
    assert not torch.equal(math.A(name), safety.A(name))


def test_continual_keeps_safety_bit_for_bit_outside_the_tasks_mask(finished: Any) -> None:
    folder, _ = finished
    safety = adapter_file.load(folder / results.adapter_path("safety"))
    continued = adapter_file.load(folder / results.continual_path("math"))
    mask, _ = mask_file.load(folder / results.mask_path("math"))
    assert continued.blocks == safety.blocks
    changed = 0
    for name in continued.modules:
        b = continued.B(name)
        outside = torch.ones(b.numel(), dtype=torch.bool)
        outside[mask.positions()[name]] = False
        before = safety.B(name).reshape(-1)
        assert torch.equal(b.reshape(-1)[outside], before[outside])
        changed += int((b.reshape(-1) != before).sum())
    assert 0 < changed <= mask.count


def test_a_concatenated_merge_is_the_weighted_sum(finished: Any) -> None:
    folder, params = finished
    merged = adapter_file.load(folder / results.merged_path("concat"))
    parents = [adapter_file.load(folder / results.adapter_path(t)) for t in ("math", "safety")]
    weight = params.merge["concat"].weights
    for name in merged.modules:
        expected = sum(weight * parent.delta(name) for parent in parents)
        assert torch.allclose(merged.delta(name), expected, atol=1e-6)


def test_the_summary_has_every_model_and_the_page_every_picture(finished: Any) -> None:
    folder, _ = finished
    summary = json.loads((folder / "report" / "summary.json").read_text())
    assert [row["model"] for row in summary["table"]] == [
        "base",
        "LoRI-D, each on its own",
        "LoRI-S, each on its own",
        "LoRI-S merged, concat",
        "LoRI-S merged, linear",
        "LoRI-S merged, safe",
        "safety, then math",
    ]
    page = (folder / "report" / "index.html").read_text()
    for name in ("scores", "sparsity", "overlap", "interference", "excess", "pareto"):
        assert f'src="{name}.png"' in page
        assert (folder / "report" / f"{name}.svg").stat().st_size > 1000
    assert summary["interference"]["adapter"]["math+safety"]["within_bound"] == 1.0
    compared = {(c["model"], c["against"], c["task"]) for c in summary["comparisons"]}
    own = "LoRI-S, each on its own"
    assert {("safety, then math", against, "safety") for against in ("base", own)} <= compared
    assert len(compared) == 2 * 2 + 3 * 2 * 2 + 2 * 2  # own adapters, merges, continual


def test_metrics_hold_nothing_that_time_decides(finished: Any) -> None:
    folder, params = finished
    before = (folder / "metrics" / "train" / "math.json").read_bytes()
    adapter = (folder / results.adapter_path("math") / "adapter.safetensors").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        running.run(params, "train", "math", NullTracker())
    assert (folder / "metrics" / "train" / "math.json").read_bytes() == before
    again = (folder / results.adapter_path("math") / "adapter.safetensors").read_bytes()
    assert again == adapter


def test_every_generation_is_kept(finished: Any) -> None:
    folder, _ = finished
    path = folder / "artifacts" / "evaluations" / "adapters" / "math" / "adapter" / "math.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 12
    assert set(rows[0]) == {
        "id", "sample", "kind", "protocol", "prompt", "cut", "output", "answer", "correct",
        "counted", "parsed", "reason",
    }  # fmt: skip


@pytest.mark.parametrize("importance", ["fisher", "snip"])
def test_other_importances_give_masks_of_the_same_count(finished: Any, importance: str) -> None:
    folder, params = finished
    values = params.model_dump(mode="json")
    values["lori"]["importance"] = importance
    other = config.parse(values, "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        kept = {
            p: p.read_bytes() for p in (results.mask_path("math"), Path("metrics/mask/math.json"))
        }
        by_magnitude, _ = mask_file.load(results.mask_path("math"))
        running.run(other, "mask", "math", NullTracker())
        mask, facts = mask_file.load(results.mask_path("math"))
        for path, content in kept.items():
            path.write_bytes(content)
    assert facts["importance"] == importance
    assert mask.count == by_magnitude.count
    assert mask.bits.tobytes() != by_magnitude.bits.tobytes()


def test_a_search_writes_its_weights_its_candidates_and_its_choice(finished: Any) -> None:
    folder, _ = finished
    assert json.loads((folder / results.weights_path("concat")).read_text()) == {"searched": False}
    found = json.loads((folder / results.weights_path("safe")).read_text())
    facts = json.loads((folder / "metrics/search/safe.json").read_text())
    assert found["by"] == "task"
    assert list(found["weights"]) == ["math"]
    assert [c["name"] for c in facts["candidates"]] == ["given weights", "learned weights"]
    chosen = facts["candidates"][facts["chosen"]]
    assert chosen["weights"]["weights"] == found["weights"]
    assert set(chosen["losses"]) == set(chosen["retained"]) == {"math", "safety"}
    assert set(chosen["rules"]) >= {"refusal", "over_refusal", "forgetting", "size_mb"}
    assert f"andidate {facts['chosen'] + 1} of 2" in facts["sentence"]
    merged = adapter_file.load(folder / results.merged_path("safe"))
    parents = merged.info["recipe"]["parents"]
    assert [(p["task"], p["weight"]) for p in parents] == [
        ("safety", 1.0), ("math", found["weights"]["math"]["all"]),
    ]  # fmt: skip
    excess = json.loads((folder / "metrics/excess/safe.json").read_text())
    assert list(excess["excess"]) == ["math", "safety"]
    row = excess["excess"]["math"]
    gain = row["base_loss"] - row["adapter_loss"]
    kept = (row["base_loss"] - row["merged_loss"]) / gain if gain > 0 else None
    assert row["retained"] == (None if kept is None else pytest.approx(kept))
    page = (folder / "report" / "index.html").read_text()
    assert f"Weights of the merge safe: {facts['sentence']}".split("'")[0] in page


def test_a_search_never_reads_test_examples_repeats_itself_and_reports_its_candidates(
    finished: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, params = finished
    monkeypatch.chdir(folder)
    before = results.weights_path("safe").read_bytes()
    hidden = {path: path.read_bytes() for path in Path("data").glob("*/test.jsonl")}
    assert len(hidden) == 2
    try:
        for path in hidden:
            path.unlink()
        running.run(params, "search", "safe", FileTracker(tmp_path / "rows.jsonl"))
    finally:
        for path, content in hidden.items():
            path.write_bytes(content)
    assert results.weights_path("safe").read_bytes() == before
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    reported = [row for row in rows if row["type"] == "metrics" and row["step"] is not None]
    assert [row["step"] for row in reported] == [0, 1]
    facts = json.loads((folder / "metrics/search/safe.json").read_text())
    for row, candidate in zip(reported, facts["candidates"], strict=True):
        values = row["values"]
        assert values["candidate.objective"] == candidate["objective"]
        assert values["candidate.retained.math"] == candidate["retained"]["math"]
        assert values["candidate.refusal"] == candidate["rules"]["refusal"]


def test_a_search_without_validation_examples_is_refused_and_writes_nothing(
    finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = finished
    monkeypatch.chdir(folder)
    path = Path("data/math/validation.jsonl")
    content, before = path.read_bytes(), results.weights_path("safe").stat().st_mtime_ns
    try:
        path.write_bytes(b"")
        with pytest.raises(DataError, match=r"data/math/validation\.jsonl: no validation examples"):
            running.run(params, "search", "safe", NullTracker())
    finally:
        path.write_bytes(content)
    assert results.weights_path("safe").stat().st_mtime_ns == before


def test_a_merge_whose_weights_were_not_searched_yet_is_refused(
    finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = finished
    monkeypatch.chdir(folder)
    path = results.weights_path("safe")
    content = path.read_bytes()
    try:
        path.unlink()
        with pytest.raises(DataError, match="missing; search the weights first: lori stage search"):
            running.run(params, "merge", "safe", NullTracker())
        path.write_text('{"searched": false}')
        with pytest.raises(DataError, match="no searched weights of a merge; run its search again"):
            running.run(params, "merge", "safe", NullTracker())
    finally:
        path.write_bytes(content)
