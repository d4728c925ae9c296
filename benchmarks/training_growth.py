"""How training's cost grows: ten times the examples, a hundred tasks in place of four.

A two-layer model on the CPU, so that what grows is our own work and the engine's, not arithmetic.
Counted are the seconds that the process computes; the base is loaded once for all tasks, as in one
session. Memory: what the process holds at its peak, before and after a set of a million tokens is
tokenised and read from disk.

    python -m benchmarks.training_growth
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adapters import show
from lori_core import attaching, models, peft_names
from lori_core.adapter import ProjectionBlock, draw, uniform
from lori_core.config import ModelSection, TrainingSection
from lori_core.data.prompts import Encoded
from lori_core.data.tokens import TokenStore, write
from lori_core.memory import memory_gb
from lori_core.tracking import NullTracker
from lori_core.training import train

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS, TASKS, RANK = 128, (4, 100), 4


def rows() -> list[dict[str, Any]]:
    """Measure; a row a measurement."""
    torch.set_num_threads(1)
    base = models.load(_section(), models.prepare(_section()))
    _task(base, "warm", 64)
    few, many = (_task(base, "size", count) for count in (4 * ROWS, 40 * ROWS))
    tasks = {n: sum(_task(base, f"task{i}", 32) for i in range(n)) for n in TASKS}
    return [
        {"what": "ten times the examples, cost / 10", "value": many / few / 10, "unit": "x"}
        | {"goal": "<= 1.1"},
        {"what": "100 tasks / 4, cost / 25", "value": tasks[100] / tasks[4] / 25, "unit": "x"}
        | {"goal": "<= 1.1"},
        *_streamed(),
    ]


def _section() -> ModelSection:
    return ModelSection(name_or_path="random:llama", dtype="float32")


def _random_rows(count: int, length: int = 48) -> Any:
    random = np.random.default_rng(0)
    for _ in range(count):
        ids = random.integers(0, 256, length).tolist()
        yield Encoded(ids[: length // 2], ids[length // 2 :], False)


def _task(base: Any, key: str, count: int) -> float:
    """Train an adapter on so many examples; return the seconds computed."""
    start = time.process_time()
    shapes = peft_names.target_shapes(base, TARGETS)
    blocks = (ProjectionBlock(42, key, RANK),)
    model = attaching.attach(
        base, uniform(shapes, RANK, 2 * RANK), lambda name: draw(blocks, name, shapes[name][0])
    )
    attaching.make_trainable(model, None, None)
    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            list(_random_rows(count)),
            TrainingSection(batch_size=8, save_steps=10**6),
            pad_token_id=259,
            seed=0,
            checkpoints=Path(folder),
            tracker=NullTracker(),
            what=key,
        )
    attaching.trained_B(model, None, None)
    model.unload()
    return time.process_time() - start


def _streamed() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = memory_gb()
        write(_random_rows(100_000, 100), folder)
        store = TokenStore(folder)
        total = sum(len(store[n].target) for n in range(0, len(store), 10))
        size = sum(file.stat().st_size for file in folder.iterdir())
    return [
        {"what": "ten million tokens on disk", "value": size / 1e6, "unit": "MB"},
        {"what": "memory they take", "value": 1e3 * (memory_gb() - before), "unit": "MB"},
        {"what": "targets read", "value": total / 1e6, "unit": "M"},
    ]


def main() -> None:
    """Measure and print."""
    show(rows())


if __name__ == "__main__":
    main()
