"""Train and score one method, and collect the measurements of PEFT's result file."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.peft_comparison import data as texts
from benchmarks.peft_comparison.scoring import accuracy, article_loss
from benchmarks.peft_comparison.settings import TASK, Run
from benchmarks.peft_comparison.training import Loaded, Steps, Training, train
from lori_core.adapters.adapter import Adapter
from lori_core.methods.catalogue import METHODS
from lori_core.methods.lori.calibration import take_mask


@dataclass
class Measured:
    """What a run measured.

    Attributes:
        steps: the measurements of all optimizer steps, those of a calibration run included.
        metrics: PEFT's rows: one for each validation, and one for the test.
        train_time: the seconds from the first to the last score, without the validations; PEFT's
            definition.
        trained: the number of trained values.
        total: the number of values of base and adapter.
        peak: the most bytes that the GPU had reserved for the run; 0 without a GPU.
    """

    steps: Steps = field(default_factory=Steps)
    metrics: list[dict[str, float]] = field(default_factory=list)
    train_time: float = 0.0
    trained: int = 0
    total: int = 0
    peak: int = 0


def compare(run: Run, loaded: Loaded, data: texts.Data) -> tuple[Adapter, Measured]:
    """Train a method's adapter, and score it.

    Raises:
        DivergedError: a loss is not finite.
    """
    measured, start = Measured(), time.perf_counter()
    rows = texts.training_ids(run, data, loaded.tokenizer)
    before = article_loss(loaded.model.eval(), loaded.tokenizer, data.articles, run.train)
    training = _training(run, loaded, rows, measured.steps)
    validating = 0.0

    def evaluate(model: Any, step: int) -> None:
        nonlocal validating
        if step % run.train.eval_steps == 0:
            began = time.perf_counter()
            row = _validation_row(run, model, loaded, data, measured.steps, step)
            seconds = time.perf_counter() - began
            validating += seconds
            elapsed = time.perf_counter() - start
            measured.metrics.append(row | {"eval time": seconds, "elapsed time": elapsed})
        if step == run.train.max_steps:
            measured.metrics.append(_test_row(run, model, loaded, data, measured.steps, before))

    adapter, measured.trained = train(training, loaded, rows, measured.steps, evaluate)
    measured.train_time = time.perf_counter() - start - validating
    sizes = [spec.rank * (spec.d_in + spec.d_out) for spec in adapter.modules.values()]
    measured.total = loaded.model.num_parameters() + sum(sizes)
    if torch.cuda.is_available():
        measured.peak = torch.cuda.max_memory_reserved() - loaded.reserved
    return adapter, measured


def _training(run: Run, loaded: Loaded, rows: list[list[int]], steps: Steps) -> Training:
    """Return the run's training, for LoRI-S after the calibration run that its mask comes from."""
    calibrated_by = METHODS[run.method].calibrated_by
    if calibrated_by is None:
        return Training(run, run.method, run.train.max_steps)
    calibration = Training(run, calibrated_by, run.calibration_steps)
    calibrated, _ = train(calibration, loaded, rows, steps)
    mask, _ = take_mask(_not_loaded, calibrated, run.lori, TASK)
    parents = (str(calibrated.info["content_key"]),)
    return Training(run, run.method, run.train.max_steps, mask, parents)


def _not_loaded() -> Any:
    raise AssertionError("the importance `magnitude` needs no gradients")


def _recent_loss(run: Run, steps: Steps) -> float:
    recent = steps.losses[-run.train.eval_steps :]
    return sum(recent) / len(recent)


def _validation_row(
    run: Run, model: Any, loaded: Loaded, data: texts.Data, steps: Steps, step: int
) -> dict[str, float]:
    recent = slice(-run.train.eval_steps, None)
    seconds = sum(steps.seconds[recent])
    count = len(steps.seconds[recent])
    return {
        "step": step,
        "valid accuracy": accuracy(
            model, loaded.tokenizer, data.validation, run.train, "validation"
        ),
        "train loss": _recent_loss(run, steps),
        "train samples": steps.samples,
        "train time": seconds,
        "tokens / sec": sum(steps.tokens[recent]) / seconds,
        "mem allocated avg": sum(steps.allocated[recent]) / count,
        "mem reserved avg": sum(steps.reserved[recent]) / count,
    }


def _test_row(
    run: Run, model: Any, loaded: Loaded, data: texts.Data, steps: Steps, before: float
) -> dict[str, float]:
    after = article_loss(model, loaded.tokenizer, data.articles, run.train)
    return {
        "step": run.train.max_steps,
        "test accuracy": accuracy(model, loaded.tokenizer, data.test, run.train, "test"),
        "train loss": _recent_loss(run, steps),
        "train samples": steps.samples,
        "train total tokens": sum(steps.tokens),
        "forgetting": after - before,
    }
