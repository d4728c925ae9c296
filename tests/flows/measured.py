"""A finished run with all that a gate can judge by, and how `why` and the gate take to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from made import Made, _verdict

from flows.lineage import why
from flows.lineage.verification.verify import verify
from flows.serving import gate
from flows.tracking.registry import CHAMPION, Registry
from lori_core.core.errors import InputError, LoriError
from lori_core.core.files.atomic import write_json, write_jsonl
from lori_core.pipeline import params_file

MERGED = "artifacts/merged/concat"
EXCESS = "metrics/excess/concat.json"
ROWS = "artifacts/evaluations/merged/concat/concat/math.jsonl"
ALONE = "artifacts/evaluations/adapters/safety/adapter/safety.jsonl"
RULES = {"excess.math": {"at_most": 0.1}, "forgetting": {"at_most": 0.3}}

GATE = "lori_core/evaluation/gate.py"


class Measured(Made):
    """A finished run whose gate has rules about all that can be measured, and its `dvc.yaml`.

    The candidate is refused: it costs math too much, and it has forgotten refusals.
    """

    def __init__(self, folder: Path, excess: float = 0.5, alone: int = 40, **made: Any) -> None:
        self.excess = excess
        self.alone = alone
        super().__init__(folder, **made)
        self._write("dvc.yaml", {"vars": ["params.yaml"], "stages": pipeline()})

    def _params(self) -> None:
        super()._params()
        values = yaml.safe_load((self.folder / "params.yaml").read_text())
        values["gate"] |= {"rules": RULES, "candidate": MERGED}
        values["continual"] = {"safety_task": "safety", "tasks": []}
        values["evaluation"] = {"batch_size": 8}
        self._write("params.yaml", values)

    def _evaluate(self) -> None:
        super()._evaluate()
        params = {"evaluation": {"batch_size": 8}}
        folder, metrics = (
            "artifacts/evaluations/adapters/safety",
            "metrics/evaluate/adapters/safety.json",
        )
        rows = [_verdict("safety", n, n < self.alone, safety=True) for n in range(40)]
        write_jsonl(self.folder / ALONE, rows)
        score = {
            "metric": "refusal_rate",
            "score": self.alone / 40,
            "low": 0.0,
            "high": 1.0,
            "n": 40,
        }
        write_json(self.folder / metrics, {"adapter": {"safety": score}})
        deps = ["data/safety/test.jsonl", "artifacts/safety/adapter"]
        self._stage(
            "evaluate_adapters@safety", deps, [folder, metrics], params, ["evaluation/gate.py"]
        )
        row = {"excess": self.excess, "low": 0.0, "high": 1.0}
        write_json(self.folder / EXCESS, {"excess": {"math": row, "safety": row}})
        self._stage("excess@concat", ["data", MERGED], [EXCESS], {}, ["training/loss.py"])
        deps = ["artifacts/evaluations", "data/manifest.json", "metrics"]
        (self.folder / "report").mkdir(exist_ok=True)
        (self.folder / "report/index.html").write_text("<p>page</p>")
        self._stage("report", deps, ["report"], {}, ["evaluation/gate.py"])


def each(things: Any, step: str, key: str, **parts: list[str]) -> dict[str, Any]:
    """Return a stage of `dvc.yaml` for each of some things."""
    return {"foreach": things, "do": {"cmd": f"lori stage {step} {key}", **parts}}


def pipeline() -> dict[str, Any]:
    """Return that run's `dvc.yaml`, written as the project's own."""
    key, item = "${key}", "${item}"
    train, adapter = f"data/{key}/train.jsonl", f"artifacts/{key}/adapter"
    calibrated, mask = f"artifacts/{key}/calibrated", f"artifacts/{key}/mask.safetensors"
    merged = f"artifacts/merged/{key}"
    return {
        "calibrate": each(
            "${tasks}",
            "calibrate",
            key,
            deps=[train, "lori_core/training/trainer.py"],
            params=["training", "model", f"tasks.{key}.calibration"],
            outs=[calibrated],
        ),
        "mask": each(
            "${tasks}",
            "mask",
            key,
            deps=[calibrated, "lori_core/adapters/masks/mask.py"],
            params=["lori.sparsity", "lori.mask_scope"],
            outs=[mask],
        ),
        "train": each(
            "${tasks}",
            "train",
            key,
            deps=[train, calibrated, mask, "lori_core/training/trainer.py"],
            params=["training", f"tasks.{key}.training"],
            outs=[adapter],
            metrics=[f"metrics/train/{key}.json"],
        ),
        "merge": each(
            "${merge}",
            "merge",
            key,
            deps=["metrics/train/", "lori_core/merging/merge.py"],
            params=[f"merge.{key}"],
            outs=[merged],
        ),
        "evaluate_merged": each(
            "${merge}",
            "evaluate_merged",
            key,
            deps=["data", merged, GATE],
            params=["evaluation"],
            outs=[f"artifacts/evaluations/merged/{key}"],
            metrics=[f"metrics/evaluate/merged/{key}.json"],
        ),
        "evaluate_adapters": each(
            ["safety"],
            "evaluate_adapters",
            item,
            deps=[f"data/{item}/test.jsonl", f"artifacts/{item}/adapter", GATE],
            params=["evaluation"],
            outs=[f"artifacts/evaluations/adapters/{item}"],
            metrics=[f"metrics/evaluate/adapters/{item}.json"],
        ),
        "excess": each(
            "${merge}",
            "excess",
            key,
            deps=["data", merged, "lori_core/training/loss.py"],
            metrics=[f"metrics/excess/{key}.json"],
        ),
        "report": {
            "cmd": "lori stage report",
            "deps": ["metrics", "artifacts/evaluations", "data/manifest.json", GATE],
            "outs": ["report"],
        },
    }


def judge() -> gate.Outcome:
    return gate.run_gate(Path(), params_file.load(), send=False)


def untouched() -> bool:
    """Whether nothing was promoted, and no verdict written."""
    return not Path("gate").exists() and Registry(Path()).at("lori", CHAMPION) is None


def told(word: str = MERGED) -> str:
    """Return what `lori why` finds, or how it refuses."""
    try:
        found = verify(why.lineage_of(why.resolve(word, Path()), remote=False))
    except LoriError as error:
        return str(error)
    return "\n".join(map(str, found))


def refusal() -> str:
    """Return how the gate refuses to judge: in one line, and without a verdict."""
    with pytest.raises(InputError) as raised:
        judge()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def lock_of(workspace: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((workspace / "dvc.lock").read_text()))


def write_lock(workspace: Path, lock: dict[str, Any]) -> None:
    (workspace / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
