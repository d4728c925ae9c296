"""LoRI-S against LoRI-D in one process, micro-batch by micro-batch: the cost of the mask.

Between two runs a machine's speed changes by more than the two methods differ. So both models are
in one process and take each micro-batch in turn, forward and backward, alternately first; after
four micro-batches both step (clipping and AdamW, with the engine's settings). A step's ratio is the
seconds of LoRI-D over those of LoRI-S; the mean and its 95 % interval (Student's) are printed.

    LORI_DATASETS=DIR python -m benchmarks.training_pair [--data nlu] [--steps 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import training_peers as peers
from benchmarks.adapters import show
from benchmarks.training import DATA, DTYPE, MODEL, ROWS
from lori_core.config import TrainingSection
from lori_core.data.prompts import Encoded
from lori_core.evaluation.statistics import mean_interval
from lori_core.training.computing import computing, packer_of
from lori_core.training.kernels.flat_values import FlatValues
from lori_core.training.loss import sequence_loss
from lori_core.training.trainer import clip_gradients, trainable

MICRO, PARTS = 8, 4


@dataclass
class Side:
    """One of the two methods: a model that computes as in training, and its optimizer."""

    model: Any
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    section: TrainingSection
    collate: Callable[[Sequence[Encoded]], dict[str, Any]]
    flat: FlatValues | None

    @classmethod
    def build(cls, work: peers.Work, sparse: bool, ways: ExitStack) -> Side:
        """Attach an adapter to a base of its own, set up as in `training.train`."""
        model = peers.lori_model(work, sparse).train()
        section = TrainingSection(clipping="per_tensor" if sparse else "global")
        packer = packer_of(model, work.base, work.pad, section, None)
        flat = ways.enter_context(computing(model, work.base, packs=packer.packed))
        parameters = list(trainable(model).values())
        optimizer = torch.optim.AdamW(parameters, lr=peers.RATE, weight_decay=0.0)
        return cls(model, parameters, optimizer, section, packer.collate, flat)

    def learn(self, part: dict[str, Any]) -> None:
        """Run forward and backward of a micro-batch; accumulate its gradients."""
        device = self.parameters[0].device
        part = {n: x.to(device) if isinstance(x, Tensor) else x for n, x in part.items()}
        if self.flat is not None:
            self.flat.begin_pass()
        (sequence_loss(self.model, part) / (MICRO * PARTS)).backward()

    def step(self) -> None:
        """Clip the gradients, step, and clear the gradients."""
        if self.flat is not None:
            self.flat.end_step()
        clip_gradients(self.parameters, self.section)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _seconds(work: Callable[..., None], *args: Any) -> float:
    start = time.perf_counter()
    work(*args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(data: str, steps: int) -> np.ndarray[Any, Any]:
    """Return the seconds of each step of LoRI-D and LoRI-S, [steps, 2], after a warm-up step."""
    order = {"data": data, "rows": ROWS, "batch": MICRO * PARTS, "micro": MICRO, "steps": steps,
             "model": MODEL, "dtype": DTYPE}  # fmt: skip
    with ExitStack() as ways:
        works = [peers.prepare(order) for _ in range(2)]
        sides = [Side.build(work, bool(n), ways) for n, work in enumerate(works)]
        return np.array([_step(sides, batch) for batch in works[0].batches][1:])


def _step(sides: list[Side], batch: list[Any]) -> list[float]:
    seconds = [0.0, 0.0]
    for number, start in enumerate(range(0, len(batch), MICRO)):
        part = sides[0].collate(batch[start : start + MICRO])
        for index in (0, 1) if number % 2 else (1, 0):
            seconds[index] += _seconds(sides[index].learn, part)
    for index, side in enumerate(sides):
        seconds[index] += _seconds(side.step)
    return seconds


def table(data: str, seconds: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Return the rows of one data set's measurement."""
    ratios = seconds[:, 0] / seconds[:, 1]
    low, high = mean_interval(ratios.tolist())
    what = f"{data}: LoRI-S / LoRI-D, speed of {len(ratios)} steps in turns"
    return [
        {"what": what, "value": float(ratios.mean()), "unit": "x", "goal": ">= 1"},
        {"what": f"{what}: 95 % from", "value": low, "unit": "x"},
        {"what": f"{what}: 95 % to", "value": high, "unit": "x"},
    ]


def rows() -> list[dict[str, Any]]:
    """Measure on GSM8K and on short multiple-choice rows; return a row for each measurement."""
    return [row for data in DATA for row in table(data, measure(data, 15))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", choices=DATA, nargs="+", default=DATA)
    parser.add_argument("--steps", type=int, default=15, help="of 32 rows each")
    options = parser.parse_args()
    for data in options.data:
        show(table(data, measure(data, options.steps)))


if __name__ == "__main__":
    main()
