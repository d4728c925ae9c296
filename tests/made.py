"""A finished workspace without a run: real adapters and masks, and what DVC records of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from flows.versioning.objects import files_below, folder_md5, md5_of
from lori_core.adapters import adapter_file
from lori_core.adapters.masks import mask_file
from lori_core.core import source_code
from lori_core.core.files.atomic import digest, sha256_file, write_json, write_jsonl
from lori_core.data.example import Example
from lori_core.evaluation.scoring.scorers import ANSWERED, REFUSED
from lori_core.merging.merge import merge
from support import random_adapter

TRAINING = {"learning_rate": 0.002, "epochs": 1, "batch_size": 8}


class Made:
    """One state of a workspace; made again with other settings it is another run.

    Args:
        folder: where; `.dvc` is made if it is not there.
        tasks: their names; the last is the safety task.
        rates: learning rates of the masked training, where not the usual one.
        rows: another first row of training data, by task.
        right: how many of 40 test items the merge solves, by task.
        dtype: the precision that is asked for.
        computed: the precision of the machine where that is another one.
    """

    def __init__(
        self,
        folder: Path,
        tasks: tuple[str, ...] = ("math", "safety"),
        rates: Mapping[str, float] | None = None,
        rows: Mapping[str, str] | None = None,
        right: Mapping[str, int] | None = None,
        dtype: str = "float32",
        computed: str | None = None,
    ) -> None:
        self.folder = folder
        self.tasks = tasks
        self.rates = rates or {}
        self.rows = rows or {}
        self.right = right or {}
        self.dtype = dtype
        self.computed = computed or dtype
        self.stages: dict[str, Any] = {}
        _init(folder)
        self._params()
        self._data()
        for task in tasks:
            self._calibrate(task)
            self._mask(task)
            self._train(task)
        self._merge()
        self._evaluate()
        self._write("dvc.lock", {"schema": "2.0", "stages": self.stages})

    def _write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(
            yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False)
        )

    def _params(self) -> None:
        tasks = {
            task: {
                "source": "bundled-safety" if task == self.tasks[-1] else "bundled-math",
                "calibration": {},
                "training": self._override(task),
            }
            for task in self.tasks
        }
        values = {
            "model": {"name_or_path": "random:llama", "dtype": self.dtype},
            "lori": {"rank": 4, "lora_alpha": 8, "sparsity": 0.9, "mask_scope": "model"},
            "training": dict(TRAINING),
            "tasks": tasks,
            "merge": {"concat": {"method": "concat", "adapters": [], "weights": 0.5}},
            "evaluation": {"batch_size": 8},
            "gate": {"least_items": 10, "margin": 0.1},
        }
        self._write("params.yaml", values)

    def _override(self, task: str) -> dict[str, float]:
        return {"learning_rate": self.rates[task]} if task in self.rates else {}

    def _data(self) -> None:
        manifest: dict[str, Any] = {}
        for task in self.tasks:
            entry: dict[str, Any] = {
                "sources": [{"kind": "hub", "name": f"org/{task}", "revision": "a" * 40}],
                "splits": {},
            }
            for split, count in (("train", 6), ("validation", 2), ("test", 3)):
                path = self.folder / "data" / task / f"{split}.jsonl"
                prompts = [f"{task} {split} {number}" for number in range(count)]
                if split == "train" and task in self.rows:
                    prompts[0] = self.rows[task]
                write_jsonl(path, [Example(prompt, "yes").row() for prompt in prompts])
                entry["splits"][split] = {"count": count, "sha256": sha256_file(path)}
            manifest[task] = entry
        write_json(self.folder / "data" / "manifest.json", {"tasks": manifest})
        self._write("data.dvc", {"outs": [self._recorded("data")]})

    def _recorded(self, path: str) -> dict[str, Any]:
        """Put a path into DVC's cache and return what `dvc.lock` says of it."""
        place = self.folder / path
        files = files_below(place)
        hashes = {inside: md5_of(file) for inside, file in files.items()}
        for inside, md5 in hashes.items():
            self._cache(md5, files[inside].read_bytes())
        size = sum(file.stat().st_size for file in files.values())
        if place.is_file():
            return {"path": path, "hash": "md5", "md5": hashes[""], "size": size}
        whole = folder_md5(hashes)
        listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(hashes.items())]
        self._cache(whole, json.dumps(listed, sort_keys=True).encode())
        return {"path": path, "hash": "md5", "md5": whole, "size": size, "nfiles": len(files)}

    def _cache(self, md5: str, content: bytes) -> None:
        path = self.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _stage(
        self, name: str, deps: list[str], outs: list[str], params: dict[str, Any], code: list[str]
    ) -> None:
        stage, _, item = name.partition("@")
        known = {entry["path"]: entry for s in self.stages.values() for entry in s["outs"]}
        code_deps = [
            {"path": path, "hash": "md5", "md5": md5, "size": 1}
            for path, md5 in source_code.digests(code).items()
        ]
        self.stages[name] = {
            "cmd": f"lori stage {stage} {item}".strip(),
            "deps": [known.get(path) or self._recorded(path) for path in deps] + code_deps,
            "params": {"params.yaml": params},
            "outs": [self._recorded(path) for path in outs],
        }

    def _adapter(self, task: str, stage: str, rate: float, parents: list[str], path: str) -> str:
        dense = stage == "calibrate"
        made = random_adapter(
            key=task,
            sparsity=None if dense else "0.9",
            seed=int(digest([task, stage, rate, self.rows.get(task)])[:8], 16),
        )
        depends = {
            "base": made.base.as_dict(),
            "dtype": self.computed,
            "section": TRAINING | {"learning_rate": rate},
            "parents": parents,
            "data": digest([task, self.rows.get(task)]),
            "code": source_code.digests(["training/trainer.py"]),
        }
        info = {
            "task": task,
            "stage": f"{stage}@{task}",
            "content_key": digest(depends),
            "parents": parents,
            "depends": depends,
        }
        adapter_file.save(replace(made, info=info), self.folder / path)
        return str(info["content_key"])

    def _calibrate(self, task: str) -> None:
        path = f"artifacts/{task}/calibrated"
        self._adapter(task, "calibrate", TRAINING["learning_rate"], [], path)
        params = {"training": dict(TRAINING), f"tasks.{task}.calibration": {}}
        params["model"] = {"name_or_path": "random:llama", "dtype": self.dtype}
        train = f"data/{task}/train.jsonl"
        self._stage(f"calibrate@{task}", [train], [path], params, ["training/trainer.py"])

    def _key(self, path: str) -> str:
        said = json.loads((self.folder / path / "adapter.json").read_text())
        return str(said["info"]["content_key"])

    def _mask(self, task: str) -> None:
        path = f"artifacts/{task}/mask.safetensors"
        adapter = random_adapter(key=task, seed=len(task))
        assert adapter.mask is not None
        calibration = self._key(f"artifacts/{task}/calibrated")
        facts = {
            "sparsity": "0.9",
            "scope": "model",
            "importance": "magnitude",
            "count": adapter.mask.count,
            "total": adapter.mask.total,
            "calibration": calibration,
        }
        facts["content_key"] = digest(facts)
        mask_file.save(adapter.mask, facts, self.folder / path)
        params = {"lori.sparsity": 0.9, "lori.mask_scope": "model"}
        calibrated = f"artifacts/{task}/calibrated"
        self._stage(f"mask@{task}", [calibrated], [path], params, ["adapters/masks/mask.py"])

    def _train(self, task: str) -> None:
        path, rate = f"artifacts/{task}/adapter", self.rates.get(task, TRAINING["learning_rate"])
        parents = [self._key(f"artifacts/{task}/calibrated")]
        key = self._adapter(task, "train", rate, parents, path)
        metrics = f"metrics/train/{task}.json"
        write_json(self.folder / metrics, {"content_key": key})
        deps = [
            f"data/{task}/train.jsonl",
            f"artifacts/{task}/calibrated",
            f"artifacts/{task}/mask.safetensors",
        ]
        params = {"training": dict(TRAINING), f"tasks.{task}.training": self._override(task)}
        self._stage(f"train@{task}", deps, [path, metrics], params, ["training/trainer.py"])

    def _merge(self) -> None:
        parents = [adapter_file.load(self.folder / f"artifacts/{t}/adapter") for t in self.tasks]
        merged = merge("concat", parents, [0.5] * len(parents))
        adapter_file.save(merged, self.folder / "artifacts/merged/concat")
        params = {"merge.concat": {"method": "concat", "adapters": [], "weights": 0.5}}
        out = ["artifacts/merged/concat"]
        self._stage("merge@concat", ["metrics/train"], out, params, ["merging/merge.py"])

    def _evaluate(self) -> None:
        folder, scores = "artifacts/evaluations/merged/concat", {}
        for task in self.tasks:
            right = self.right.get(task, 30)
            safety = task == self.tasks[-1]
            path = self.folder / folder / "concat" / f"{task}.jsonl"
            write_jsonl(path, [_verdict(task, n, n < right, safety=safety) for n in range(40)])
            metric = "refusal_rate" if safety else "exact_match"
            share = right / 40
            scores[task] = {"metric": metric, "score": share, "low": 0.0, "high": 1.0, "n": 40}
        metrics = "metrics/evaluate/merged/concat.json"
        write_json(self.folder / metrics, {"concat": scores})
        deps = ["data", "artifacts/merged/concat"]
        params = {"evaluation": {"batch_size": 8}}
        self._stage(
            "evaluate_merged@concat", deps, [folder, metrics], params, ["evaluation/gate.py"]
        )


def _verdict(task: str, number: int, right: bool, *, safety: bool) -> dict[str, Any]:
    parsed = (REFUSED if right else ANSWERED) if safety else str(number)
    return {
        "id": f"{task}-{number}",
        "prompt": f"{task} test {number}",
        "answer": "refuse" if safety else "7",
        "output": "right" if right else "wrong",
        "parsed": parsed,
        "correct": right,
    }


def _init(folder: Path) -> None:
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    config = folder / ".dvc" / "config"
    if not config.exists():
        config.write_text("[core]\n    no_scm = True\n")
    for name in ("data", "artifacts", "metrics"):
        shutil.rmtree(folder / name, ignore_errors=True)
