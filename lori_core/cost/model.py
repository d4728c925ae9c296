"""Forecast the cost of a stage: floating point operations, bytes moved, memory, seconds.

The cost model uses sizes and counts only. For T tokens, N parameters of the base without its
embeddings, n entries of the dense adapter, hidden size h and vocabulary V, the operations are

    training     4 N T for the frozen base (forward pass, and backward pass to the activations
                 only), 6 n T for the adapter, 4 h V for each supervised token; 2 N T more with
                 gradient checkpointing; 6 N T if the base itself is trained
    scoring      2 (N + h V) for each token
    generating   the same for the prompts; then each step reads the weights and the keys and values
                 of the batch once, and takes 2 (N + h V) for each sequence
    a stage      LOAD_SECONDS to start, plus reading its weights from disk once

Seconds are the larger of operations / (peak of the device · share) and bytes / (bandwidth · share).
The shares are those of `cost.rates`, measured or guessed. The actual speed depends on shapes and
kernels; a forecast within a factor of two is good.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lori_core.config import Params, TrainingSection
from lori_core.config.training_overrides import Phase
from lori_core.cost import footprint
from lori_core.cost.bases import base_of, outline
from lori_core.cost.devices import Device
from lori_core.cost.examples import TOKENS, Splits
from lori_core.cost.rates import Rate, inference, training_rate
from lori_core.methods import catalogue
from lori_core.training.working_memory import PROCESS, USABLE

#: Seconds to import Python, torch and transformers, with warm disk caches.
LOAD_SECONDS = 10.0
#: Bytes per second at which weights are read from a local disk.
DISK = 1.0e9
#: The mean share of the allowed new tokens that is generated.
GENERATED = 0.6
#: Bytes that an evaluation writes for each example.
VERDICT_BYTES = 2_000


@dataclass(frozen=True)
class Estimate:
    """The cost of one stage on one device.

    Attributes:
        seconds: its duration.
        flops: its floating point operations.
        memory: its peak memory, of the GPU or the process, bytes.
        written: the size of its outputs, bytes.
    """

    seconds: float
    flops: float
    memory: float
    written: float


#: The cost of a stage that does little more than start.
START = Estimate(LOAD_SECONDS, 0.0, 0.0, 1e6)


class Model:
    """The cost model of one run on one device.

    Args:
        params: the run.
        splits: the sizes of each task's splits.
        on: the device.

    Raises:
        InputError: the base model is unknown (`bases.outline`).
    """

    def __init__(self, params: Params, splits: Splits, on: Device) -> None:
        self.params, self.splits, self.device = params, splits, on
        self.shapes = outline(params.model)
        self.base = base_of(params, self.shapes)
        quantization = params.model.quantization
        self.width = footprint.width(params.model.dtype, bool(quantization), on)
        self.weights = footprint.weights(self.base, quantization, self.width)
        self._costs: dict[str, catalogue.Cost] = {}
        self._rates: dict[Rate, None] = {}

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The rates that the forecasts so far have used."""
        return tuple(self._rates)

    def stage(self, name: str) -> Estimate:
        """Return the cost of a stage, as `train@math`; `START` for a stage without a model."""
        estimate = self._estimator(name)
        return estimate() if estimate else START

    def knows(self, name: str) -> bool:
        """Return whether a stage has a cost model."""
        return self._estimator(name) is not None

    def training(self, task: str, phase: Phase, method: str) -> Estimate:
        """Return the cost of training a task by a method, with the settings of a phase.

        Args:
            task: the task.
            phase: calibration, training or continual.
            method: a name of the training methods.
        """
        return self._train(task, phase, method)

    def scoring(self, task: str) -> Estimate:
        """Return the cost of scoring one model on a task's test set."""
        return self._evaluate([task], 1)

    def losses(self, task: str) -> float:
        """Return the seconds to measure one model's loss on each example of a task's test set."""
        base, data = self.base, self.splits[task]["test"]
        head = data.target * base.hidden * base.vocabulary
        each = 2 * (data.tokens * (base.body + base.adapter) + head)
        computing, _ = inference(self.device)
        return self._seconds(data.examples * each, computing) - self.start_seconds

    @property
    def start_seconds(self) -> float:
        """The seconds in which a stage starts and reads its weights."""
        return LOAD_SECONDS + self.weights / DISK

    def _estimator(self, name: str) -> Callable[[], Estimate] | None:
        """Return the function that estimates a stage; None for a stage without a model."""
        step, _, item = name.partition("@")
        return {
            "calibrate": lambda: self._calibrate(item),
            "train": lambda: self._train(item, "training", self._method(item)),
            "continual": lambda: self._continual(item),
            "mask": lambda: self._mask(item),
            "evaluate_base": lambda: self._evaluate(list(self.params.tasks), 1),
            "evaluate_adapters": lambda: self._evaluate([item], 2),
            "evaluate_merged": lambda: self._evaluate(list(self.params.tasks), 1),
            "evaluate_continual": lambda: self._evaluate(
                [item, str(self.params.continual.safety_task)], 1
            ),
            "search": lambda: self._search(item),
            "excess": lambda: self._excess(item),
            "merge": lambda: self._merge(item),
        }.get(step)

    def _method(self, task: str) -> str:
        return self.params.method(task).name

    def _cost(self, method: str) -> catalogue.Cost:
        """Return the cost of a training method on the base, computed once."""
        if method not in self._costs:
            chosen = catalogue.options(method, {}, "method")
            fresh = outline(self.params.model)
            self._costs[method] = catalogue.cost(method, fresh, self.params.lori, chosen)
        return self._costs[method]

    def _seconds(self, flops: float, rate: Rate, moving: float = 0.0) -> float:
        """Return the seconds of a stage that does `flops` operations at a rate.

        Args:
            flops: the operations.
            rate: the share of the device's peak that they reach.
            moving: the least seconds, in which memory is read.
        """
        self._rates[rate] = None
        work = max(flops / (self.device.flops * rate.share), moving)
        return self.start_seconds + work

    def _continual(self, task: str) -> Estimate:
        name, chosen, where = self.params.method(task, "continual")
        valid = catalogue.options(name, chosen, where)
        share = catalogue.safety_share(name, self.params.lori, valid)
        return self._train(task, "continual", name, share)

    def _train(self, task: str, phase: Phase, method: str, mixed: float = 0.0) -> Estimate:
        section, data, base = self.params.phase(task, phase), self.splits[task]["train"], self.base
        passes = examples_seen(section, data.examples / (1 - mixed))
        tokens = min(data.tokens, section.max_length)
        whole = catalogue.METHODS[method].result == "weights"
        through = 6 if whole else 4 + 2 * section.gradient_checkpointing
        each = through * base.body + 6 * base.adapter * (not whole)
        flops = passes * (tokens * each + data.target * 4 * base.hidden * base.vocabulary)
        cost = self._cost(method)
        rows = section.batch_size
        if footprint.splits(section, self.device):
            rows *= section.gradient_accumulation_steps
        largest = footprint.tokens_at_once(
            base,
            section,
            method,
            data.largest(rows, section.max_length),
            data.largest(1, section.max_length),
            self.width,
            self.device,
            self.device.memory * USABLE - self.weights - cost.state_bytes,
        )
        memory = self._training(section, method, largest, data.target) + cost.state_bytes
        if not self.params.model.quantization:
            memory = max(memory, footprint.loading(base, self.width, self.device.kind))
        lean = catalogue.METHODS[method].lean
        at_once = max(tokens, min(tokens * min(rows, data.examples), largest))
        rate = training_rate(self.device, lean, tokens, at_once)
        return Estimate(self._seconds(flops, rate), flops, memory, cost.artifact_bytes)

    def _training(
        self, section: TrainingSection, method: str, tokens: float, target: float
    ) -> float:
        """Return the bytes that training needs, without the trained state."""
        width, kind = self.width, self.device.kind
        working = footprint.training(self.base, section, method, tokens, target, width, kind)
        return self.weights + working

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
            rounds = 1 + (len(settings.setups) if task == self.params.continual.safety_task else 0)
            batch = min(settings.batch_size, max(1, data.examples))
            new = GENERATED * max(settings.new_tokens.values())
            prompt = min(data.tokens, settings.max_prompt_length)
            steps = math.ceil(data.examples / batch) * new * settings.samples
            cache = 2 * self.width * base.layers * base.keys * batch * (prompt + new)
            flops += rounds * data.examples * (prompt + new * settings.samples) * each
            moved += rounds * steps * (self.weights + cache)
            memory = max(memory, cache + batch * base.vocabulary * 8)
            written += rounds * data.examples * VERDICT_BYTES
        flops, moved = copies * flops, copies * moved
        computing, reading = inference(self.device)
        self._rates[reading] = None
        moving = moved / (self.device.bandwidth * reading.share)
        memory += self.weights + PROCESS[self.device.kind]
        seconds = self._seconds(flops, computing, moving)
        return Estimate(seconds, flops, memory, copies * written)

    def _excess(self, merge: str) -> Estimate:
        base, flops = self.base, 0.0
        for task in self.params.merged_tasks(merge):
            data = self.splits[task].get("validation") or self.splits[task]["test"]
            # Scored twice: with the merged adapter, and with the task's own.
            flops += (
                4
                * data.examples
                * (
                    data.tokens * (base.body + base.adapter)
                    + data.target * base.hidden * base.vocabulary
                )
            )
        # Without gradients, one layer's activations are in memory at a time, as with checkpointing.
        section = self.params.training.model_copy(update={"gradient_checkpointing": True})
        memory = self._training(section, "lori-s", section.batch_size * TOKENS, TOKENS)
        computing, _ = inference(self.device)
        return Estimate(self._seconds(flops, computing), flops, memory, 1e4)

    def _search(self, merge: str) -> Estimate:
        settings = self.params.merge[merge].search
        if settings is None:
            return START
        base, forward, written = self.base, 0.0, 0.0
        for task in self.params.searched_tasks(merge):
            data = self.splits[task].get("validation") or self.splits[task]["test"]
            each = 2 * data.tokens * (base.body + base.adapter)
            each += 2 * data.target * base.hidden * base.vocabulary
            # Passes of the base and the own adapter and of each candidate; a step is two more.
            passes = min(settings.examples, data.examples) * (2 + settings.candidates)
            steps = settings.steps * (1 + (settings.candidates - 2) / 2)
            forward += each * (passes + 3 * settings.batch * max(1.0, steps))
            written += 100
        section = self.params.training.model_copy(update={"gradient_checkpointing": False})
        tokens = settings.batch * max(
            self.splits[task]["test"].tokens for task in self.params.searched_tasks(merge)
        )
        memory = self._training(section, "lori-s", tokens, tokens)
        computing, _ = inference(self.device)
        return Estimate(self._seconds(forward, computing), forward, memory, written)

    def _merge(self, name: str) -> Estimate:
        parents = [self._method(task) for task in self.params.merged_tasks(name)]
        size = float(sum(self._cost(method).artifact_bytes for method in parents))
        return Estimate(LOAD_SECONDS + size / 50e6, 0.0, 0.0, size)


def examples_seen(section: TrainingSection, examples: float) -> float:
    """Return how many examples a training run sees, of `examples` each epoch; also repeatedly.

    `max_steps` replaces `epochs`, as in `transformers.Trainer`.
    """
    if section.max_steps:
        return section.max_steps * section.batch_size * section.gradient_accumulation_steps
    return examples * section.epochs
