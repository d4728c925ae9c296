"""A finished run made by hand: metrics and verdicts of four tasks, two merges, three continuals."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lori_core import config
from lori_core.config import Params
from lori_core.core.files.atomic import write_json, write_jsonl
from lori_core.data.example import Example
from lori_core.evaluation.scoring.scorers import Verdict, summarise, summarise_samples
from lori_core.pipeline import params_file

ROOT = Path(__file__).parent.parent.parent
TASKS = ("nlu", "math", "code", "safety")
SCORERS = {"nlu": "choice", "math": "number", "code": "code", "safety": "refusal"}
SKILL = {"base": 0.3, "lori-d": 0.85, "own": 0.8, "merge": 0.6, "continual": 0.7}
N = 40


def examples(task: str) -> list[Example]:
    """Return test examples of two kinds; the last quarter of those of safety is to answer."""
    found = []
    for number in range(N):
        harmless = task == "safety" and number >= 3 * N // 4
        answer = ("comply" if harmless else "refuse") if task == "safety" else "1"
        kind = "harmless" if harmless else f"{task}-{number % 2}"
        found.append(Example(f"{task} {number}", "", SCORERS[task], answer, kind))  # type: ignore[arg-type]
    return found


def _evaluated(path: Path, task: str, correct: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Write verdicts (by example and sample) as an evaluation does, and return their summary."""
    verdicts = [
        [Verdict(flag, _parsed(example, flag)) for flag in flags]
        for example, flags in zip(examples(task), correct, strict=True)
    ]
    write_jsonl(
        path,
        (
            {"id": example.id, "sample": number, "answer": example.answer, **vars(verdict)}
            for example, given in zip(examples(task), verdicts, strict=True)
            for number, verdict in enumerate(given)
        ),
    )
    if len(correct[0]) > 1:
        return summarise_samples(examples(task), verdicts)
    return summarise(examples(task), [given[0] for given in verdicts])


def _parsed(example: Example, correct: bool) -> str:
    refused = (example.answer == "refuse") == correct
    return ("refused" if refused else "answered") if example.scorer == "refusal" else "1"


def _drawn(role: str, task: str, seed: str) -> list[list[bool]]:
    chance = random.Random(f"{role} {task} {seed}".replace("own", "lori-s"))
    samples = 10 if task == "code" else 1
    return [[chance.random() < SKILL[role] for _ in range(samples)] for _ in range(N)]


class Workspace:
    """The folders a report is made from."""

    def __init__(self, folder: Path) -> None:
        path = ROOT / "profiles" / "smoke.yaml"
        values = params_file._plain(params_file._read(path))
        self.params: Params = config.parse(values, str(path))
        self.metrics = folder / "metrics"
        self.evaluations = folder / "artifacts" / "evaluations"
        self.report = folder / "report"

    def fill(self) -> None:
        """Write all metrics and verdicts."""
        self._evaluations()
        self._training()

    def verdicts(self, group: str, row: str, task: str) -> Path:
        folder = "base" if group == "base/base" else group
        return self.evaluations / folder / row / f"{task}.jsonl"

    def scores(self, group: str) -> Path:
        return self.metrics / "evaluate" / f"{group}.json"

    def _evaluations(self) -> None:
        self._score("base/base", {"base": ("base", TASKS)})
        for task in TASKS:
            rows = {"lori-d": ("lori-d", (task,)), "adapter": ("own", (task,))}
            self._score(f"adapters/{task}", rows)
        for name in self.params.merge:
            self._score(f"merged/{name}", {name: ("merge", TASKS)})
        for task in self.params.continual.tasks:
            self._score(f"continual/{task}", {"continual": ("continual", (task, "safety"))})

    def _score(self, group: str, rows: dict[str, tuple[str, Sequence[str]]]) -> None:
        results: dict[str, Any] = {}
        for row, (role, tasks) in rows.items():
            results[row] = {
                task: _evaluated(self.verdicts(group, row, task), task, _drawn(role, task, group))
                for task in tasks
            }
        write_json(self.scores(group), results)

    def _training(self) -> None:
        size = {"trainable_parameters": 1000, "adapter_bytes": 5000, "trainable_share": 0.001}
        kept = {
            "layer": {"0": 0.05, "1": 0.15},
            "projection": {"q_proj": 0.08, "k_proj": 0.02, "down_proj": 0.2},
        }
        for task in TASKS:
            for phase in ("calibrate", "train"):
                write_json(self.metrics / phase / f"{task}.json", size)
            write_json(self.metrics / "mask" / f"{task}.json", {"kept": kept})
        pair = {
            "mean_abs_cosine": 0.002,
            "max_abs_cosine": 0.01,
            "within_bound": 1.0,
            "mask_overlap": 0.02,
            "expected_overlap": 0.01,
        }
        pairs = {f"{a}+{b}": pair for i, a in enumerate(TASKS) for b in TASKS[i + 1 :]}
        write_json(self.metrics / "interference.json", {"adapter": pairs, "lori-d": pairs})


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    Workspace(folder).fill()
    return folder


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Workspace:
    """Return a finished run that the test may change."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)
