"""Run LoRI in PEFT's method comparison, and write PEFT's result file.

    LORI_DATASETS=DIR python -m benchmarks.peft_comparison --base DIR --model-id OWNER/NAME
    python -m benchmarks.peft_comparison --tiny          # a tiny model and made-up data, on a CPU
    python -m benchmarks.peft_comparison --check FILE…   # are these files in PEFT's form?

Trains on MetaMathQA and tests on GSM8K with the data preparation, prompt, steps, batches, optimizer
and metrics of `method_comparison/MetaMathQA` in PEFT's repository (see docs/experiments.md).
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
import time
import traceback
from pathlib import Path

import torch

from benchmarks.peft_comparison import comparison, data, options, result, schema
from benchmarks.peft_comparison.settings import Run
from benchmarks.peft_comparison.training import Loaded
from lori_core.core.errors import LoriError, one_line
from lori_core.core.files.atomic import read_json
from lori_core.models import base_model, peft_names


def run(chosen: Run, texts: data.Data, files: result.Files) -> None:
    """Train, score and write one method's files."""
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    loaded = load(chosen)
    adapter, measured = comparison.compare(chosen, loaded, texts)
    took = time.perf_counter() - clock
    created_at = started.replace(microsecond=0).isoformat()
    result.write(files, chosen, adapter, measured, result.Clock(created_at, took))
    last = measured.metrics[-1]
    print(
        f"{chosen.experiment}: test accuracy {last['test accuracy']:.3f}, forgetting "
        f"{last['forgetting']:+.4f}, {measured.trained:,} trained values, "
        f"{measured.train_time:.0f} s\n{files.result}\n{files.exported}",
        flush=True,
    )


def load(chosen: Run) -> Loaded:
    """Load a run's base model.

    Raises:
        ModelError: the model is missing or cannot be used.
        ConfigError: a target module matches nothing.
    """
    reserved = 0
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        reserved = torch.cuda.memory_reserved()
    folder = base_model.prepare(chosen.model)
    tokenizer = base_model.load_tokenizer(folder)
    identity = base_model.identity(chosen.model, folder)
    model = base_model.load(chosen.model, folder)
    peft_names.target_shapes(model, chosen.lori.target_modules)
    return Loaded(model, tokenizer, identity, reserved)


def check(paths: list[Path]) -> int:
    """Print what differs from the form of PEFT's results; return 1 if anything does."""
    differing = 0
    for path in paths:
        found = schema.faults(read_json(path))
        differing += bool(found)
        print("\n".join(f"{path}: {fault}" for fault in found or ["in PEFT's form"]))
    return 1 if differing else 0


def _main(given: argparse.Namespace) -> int:
    if given.check:
        return check(given.check)
    chosen = list(options.runs(given))
    files = [result.Files.of(given.out, each) for each in chosen]
    for own in files:
        own.check()
    texts = data.made(chosen[0]) if given.tiny else data.read(data.paths(), chosen[0])
    if not torch.cuda.is_available() and not given.tiny:
        print(
            "no GPU: memory is written as 0, and times do not compare with PEFT's", file=sys.stderr
        )
    code = 0
    for each, own in zip(chosen, files, strict=True):
        try:
            run(each, texts, own)
        except Exception as error:  # the next method may run for hours and must not be lost
            if isinstance(error, LoriError) and error.exit_code != LoriError.exit_code:
                raise  # a wrong input, which all methods have in common
            if not isinstance(error, LoriError):
                traceback.print_exc()
            print(f"error: {each.experiment}: {one_line(error)}", file=sys.stderr, flush=True)
            code = LoriError.exit_code
        gc.collect()
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0 if it is done, 1 if the work failed, 2 if the input is wrong."""
    given = options.parse(argv, __doc__)
    try:
        return _main(given)
    except LoriError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
