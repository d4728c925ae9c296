"""How the cost of training grows: ten times the examples, a hundred tasks instead of four.

A two-layer model on the CPU shows the growth of our own work and the engine's rather than of the
arithmetic. Time is CPU seconds; the base is loaded once for all tasks, as in one session. Memory is
the peak of a process that trains a few steps, by the number of rows in the task's file.

    python -m benchmarks.training_growth
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adapters import show
from lori_core.adapters import attach
from lori_core.adapters.adapter import ProjectionBlock, draw, uniform
from lori_core.config import ModelSection, TrainingSection
from lori_core.core.files.atomic import write_jsonl
from lori_core.core.tracking import NullTracker
from lori_core.data.prompts import Encoded
from lori_core.models import base_model, peft_names
from lori_core.pipeline import params_file
from lori_core.training.memory import memory_gb
from lori_core.training.trainer import train

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS, TASKS, RANK = 128, (4, 100), 4
EXAMPLES = (10_000, 1_000_000)
ROOT = Path(__file__).parents[1]


def rows() -> list[dict[str, Any]]:
    """Measure; return a row for each measurement."""
    torch.set_num_threads(1)
    base = base_model.load(_section(), base_model.prepare(_section()))
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
    """Train an adapter on some examples; return the CPU seconds."""
    start = time.process_time()
    shapes = peft_names.target_shapes(base, TARGETS)
    blocks = (ProjectionBlock(42, key, RANK),)
    model = attach.attach(
        base, uniform(shapes, RANK, 2 * RANK), lambda name: draw(blocks, name, shapes[name][0])
    )
    attach.make_trainable(model, None, None)
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
    attach.trained_B(model, None, None)
    model.unload()
    return time.process_time() - start


def _streamed() -> list[dict[str, Any]]:
    peaks = {}
    for count in EXAMPLES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            settings = ["training.max_steps=3", "lori.rank=4"]
            _, text = params_file.changed(ROOT / "params.yaml", "smoke", settings)
            (folder / "params.yaml").write_text(text, encoding="utf-8")
            texts = ({"prompt": f"What is {n} + 1?", "target": f"{n + 1}"} for n in range(count))
            write_jsonl(folder / "data" / "math" / "train.jsonl", texts)
            command = [sys.executable, "-m", "benchmarks.training_growth", "--here", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            peaks[count] = float(done.stdout.splitlines()[-1])
    few, many = EXAMPLES
    return [
        *(
            {"what": f"peak memory, {count:,} rows", "value": 1e3 * peak, "unit": "MB"}
            for count, peak in peaks.items()
        ),
        {
            "what": "memory of a row more",
            "value": 1e9 * (peaks[many] - peaks[few]) / (many - few),
            "unit": "bytes",
        },
    ]


def _train_here(folder: Path) -> None:
    """Train a few steps on a folder's rows and print the peak memory in GB."""
    from lori_core.methods.loaded_model import load_model
    from lori_core.methods.tuning import Tuning, tune

    os.chdir(folder)
    params = params_file.load(Path("params.yaml"))
    run = Tuning("growth", "math", "lori-d", params.phase("math", "training"))
    tune(load_model(params), run, NullTracker())
    print(memory_gb())


def main() -> None:
    """Measure and print; `--here FOLDER` runs one process, `--streamed` measures only memory."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--here", type=Path)
    parser.add_argument("--streamed", action="store_true")
    options = parser.parse_args()
    if options.here:
        _train_here(options.here)
    else:
        show(_streamed() if options.streamed else rows())


if __name__ == "__main__":
    main()
