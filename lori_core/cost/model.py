"""What a stage costs before it runs: floating point operations, bytes moved, memory, seconds.

A stated model, of shapes and counts alone (T tokens, N parameters of the base without its
embeddings, n of the adapter as dense matrices, h hidden size, V vocabulary):

    training     4 N T through the frozen base (forward, and backward to the activations alone),
                 6 n T through the adapter, 4 h V for each supervised token; 2 N T more with
                 gradient checkpointing; 6 N T where the base itself is trained
    scoring      2 (N + h V) for each token read
    generating   the same for the prompts; then each step reads the weights and the keys and values
                 of the batch once, and does 2 (N + h V) for each sequence
    a stage      LOAD_SECONDS to begin, and its weights once from the disk

Seconds are operations over the device's peak times `USE`, or bytes over its bandwidth times
`BANDWIDTH_USE`, whichever is more. What a step really reaches depends on shapes and kernels:
within a factor of two is a good forecast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lori_core.config import Params, TrainingSection
from lori_core.cost import footprint
from lori_core.cost.bases import base_of, outline
from lori_core.cost.devices import Device
from lori_core.cost.examples import TOKENS, Splits
from lori_core.methods import catalogue

#: Python, torch and transformers, from a warm disk.
LOAD_SECONDS = 10.0
#: Bytes a second at which weights come from a local disk.
DISK = 1.0e9
#: Share of the peak that matrix products of a training step reach.
USE = {"gpu": 0.35, "cpu": 0.55}
#: Share of the memory bandwidth that generation reaches.
BANDWIDTH_USE = 0.5
#: How many of the allowed new tokens are written on average.
WRITTEN = 0.6
#: Outputs of an evaluation, for each example.
VERDICT_BYTES = 2_000


@dataclass(frozen=True)
class Estimate:
    """What one stage costs on one device."""

    seconds: float
    flops: float
    memory: float
    """The most GPU (or process) memory at once, bytes."""
    written: float
    """Outputs, bytes."""


#: A stage that does little but start.
START = Estimate(LOAD_SECONDS, 0.0, 0.0, 1e6)


class Model:
    """The model of cost of one run on one device."""

    def __init__(self, params: Params, splits: Splits, on: Device) -> None:
        self.params, self.splits, self.device = params, splits, on
        self.shapes = outline(params.model)
        self.base = base_of(params, self.shapes)
        quantization = params.model.quantization
        self.width = footprint.width(params.model.dtype, bool(quantization), on)
        self.weights = footprint.weights(self.base, quantization, self.width)
        self._costs: dict[str, catalogue.Cost] = {}

    def stage(self, name: str) -> Estimate:
        """Return what a stage (`train@math`) costs; one that is not known costs its start."""
        known = self._known(name)
        return known() if known else START

    def knows(self, name: str) -> bool:
        """Say whether there is a model of this stage's cost."""
        return self._known(name) is not None

    def _known(self, name: str) -> Callable[[], Estimate] | None:
        step, _, item = name.partition("@")
        return {
            "calibrate": lambda: self._calibrate(item),
            "train": lambda: self._train(item, "training", self._method(item)),
            "continual": lambda: self._train(item, "continual", self._method(item)),
            "mask": lambda: self._mask(item),
            "evaluate_base": lambda: self._evaluate(list(self.params.tasks), 1),
            "evaluate_adapters": lambda: self._evaluate([item], 2),
            "evaluate_merged": lambda: self._evaluate(list(self.params.tasks), 1),
            "evaluate_continual": lambda: self._evaluate(
                [item, str(self.params.continual.safety_task)], 1
            ),
            "excess": lambda: self._excess(item),
            "merge": lambda: self._merge(item),
        }.get(step)

    def _method(self, task: str) -> str:
        return self.params.tasks[task].method_name

    def _cost(self, method: str) -> catalogue.Cost:
        if method not in self._costs:
            chosen = catalogue.options(method, {}, "method")
            fresh = outline(self.params.model)
            self._costs[method] = catalogue.cost(method, fresh, self.params.lori, chosen)
        return self._costs[method]

    def _seconds(self, flops: float, moved: float = 0.0) -> float:
        use = USE[self.device.kind]
        work = max(
            flops / (self.device.flops * use), moved / (self.device.bandwidth * BANDWIDTH_USE)
        )
        return LOAD_SECONDS + self.weights / DISK + work

    def _train(self, task: str, phase: Any, method: str) -> Estimate:
        section, data, base = self.params.phase(task, phase), self.splits[task]["train"], self.base
        passes = data.examples * section.epochs
        if section.max_steps:
            per_step = section.batch_size * section.gradient_accumulation_steps
            passes = min(passes, section.max_steps * per_step)
        tokens = min(data.tokens, section.max_length)
        whole = catalogue.METHODS[method].result == "weights"
        through = 6 if whole else 4 + 2 * section.gradient_checkpointing
        each = through * base.body + 6 * base.adapter * (not whole)
        flops = passes * (tokens * each + data.target * 4 * base.hidden * base.vocabulary)
        cost = self._cost(method)
        largest = data.largest(section.batch_size, section.max_length)
        memory = self._training(section, method, largest, data.target) + cost.state_bytes
        if not self.params.model.quantization:
            memory = max(memory, footprint.loading(base, self.width, self.device.kind))
        return Estimate(self._seconds(flops), flops, memory, cost.artifact_bytes)

    def _training(
        self, section: TrainingSection, method: str, tokens: float, target: float
    ) -> float:
        """Return the weights and what training takes beside them and the trained state, bytes."""
        width, kind = self.width, self.device.kind
        beside = footprint.training(self.base, section, method, tokens, target, width, kind)
        return self.weights + beside

    def _calibrate(self, task: str) -> Estimate:
        method = catalogue.METHODS[self._method(task)].calibrated_by
        return self._train(task, "calibration", method) if method else START

    def _mask(self, task: str) -> Estimate:
        method = catalogue.METHODS[self._method(task)].calibrated_by
        if method is None:
            return START
        scored = self._cost(method).trainable
        size = math.ceil(scored / 8)
        if self.params.lori.importance == "magnitude":
            return Estimate(LOAD_SECONDS + scored * 60e-9, 0.0, 0.0, size)
        trained = self._train(task, "calibration", method)
        return Estimate(trained.seconds, trained.flops, trained.memory, size)

    def _evaluate(self, tasks: list[str], copies: int) -> Estimate:
        base, settings = self.base, self.params.evaluation
        each = 2 * (base.body + base.hidden * base.vocabulary)
        flops = moved = memory = written = 0.0
        for task in tasks:
            data = self.splits[task]["test"]
            batch = min(settings.batch_size, max(1, data.examples))
            new = WRITTEN * max(settings.new_tokens.values())
            prompt = min(data.tokens, settings.max_prompt_length)
            steps = math.ceil(data.examples / batch) * new * settings.samples
            held = 2 * self.width * base.layers * base.keys * batch * (prompt + new)
            flops += data.examples * (prompt + new * settings.samples) * each
            moved += steps * (self.weights + held)
            memory = max(memory, held + batch * base.vocabulary * 8)
            written += data.examples * VERDICT_BYTES
        flops, moved = copies * flops, copies * moved
        memory += self.weights + footprint.PROCESS[self.device.kind]
        return Estimate(self._seconds(flops, moved), flops, memory, copies * written)

    def _excess(self, merge: str) -> Estimate:
        base, flops = self.base, 0.0
        for task in self.params.merged_tasks(merge):
            data = self.splits[task].get("validation") or self.splits[task]["test"]
            # Once with the merge, once with the task's own adapter.
            flops += (
                4
                * data.examples
                * (
                    data.tokens * (base.body + base.adapter)
                    + data.target * base.hidden * base.vocabulary
                )
            )
        # Without gradients a layer's states go as the next one's come, as with checkpointing.
        section = self.params.training.model_copy(update={"gradient_checkpointing": True})
        memory = self._training(section, "lori-s", section.batch_size * TOKENS, TOKENS)
        return Estimate(self._seconds(flops), flops, memory, 1e4)

    def _merge(self, name: str) -> Estimate:
        parents = [self._method(task) for task in self.params.merged_tasks(name)]
        size = float(sum(self._cost(method).artifact_bytes for method in parents))
        return Estimate(LOAD_SECONDS + size / 50e6, 0.0, 0.0, size)
