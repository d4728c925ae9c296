"""Generation by vLLM: one engine holds the base, adapters are swapped on it.

An optional way to do what `generation.generate` does, on CUDA where the package `vllm` is
installed; nothing of it is imported otherwise. Written by vLLM's sources (V1 engine): `LLM` as of
commit 10fdb8f, `SamplingParams` as of 00388f6, seeds of samples as of 003d3ee; not run against any.

Outputs are not token for token those of `generate`: vLLM rounds otherwise, keeps an adapter's
factors in the base's dtype, draws other random numbers, and stops at the model's last position.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lori_core.adapters.adapter import Adapter
from lori_core.adapters.peft_format.peft_file import VLLM_RANKS, export_peft
from lori_core.config import Params
from lori_core.core.errors import AdapterError, ConfigError
from lori_core.core.progress import bar
from lori_core.evaluation.inference.decoding import folder_end_ids, until_end
from lori_core.evaluation.inference.generation import Output, Request, check_prompts, output

#: What vLLM's LoRA kernels compute in.
DTYPES = ("bfloat16", "float16")


def available() -> bool:
    """Say whether vLLM is installed and there is a CUDA GPU for it."""
    return find_spec("vllm") is not None and torch.cuda.is_available()


def chosen(params: Params) -> bool:
    """Say whether these parameters mean vLLM here: by name, or because it is there and suits."""
    if params.evaluation.engine != "auto":
        return params.evaluation.engine == "vllm"
    return available() and params.model.quantization is None and params.model.dtype in DTYPES


@cache
def opened(folder: Path, dtype: str) -> Engine:
    """Return this process's engine for a base, opened the first time.

    Raises:
        ConfigError: where vLLM is not installed or has no GPU, or for a dtype it cannot use.
    """
    if not available():
        raise ConfigError(
            "evaluation.engine: vllm needs the package vllm and a CUDA GPU (pip install vllm); "
            "or set transformers"
        )
    return Engine(folder, dtype, VLLM_RANKS[-1])


class Engine:
    """A base model in vLLM, and the adapters that it has worn."""

    def __init__(self, folder: Path, dtype: str, max_rank: int) -> None:
        """Load the base, for adapters of up to `max_rank`, into 0.9 of the GPU memory now free.

        Raises:
            ConfigError: for a dtype in which vLLM has no adapters.
        """
        if dtype not in DTYPES:
            raise ConfigError(
                f"model.dtype: {dtype} cannot be used with vLLM (allowed: {', '.join(DTYPES)}); "
                "set one of these, or generate without vLLM"
            )
        # vLLM reports its use otherwise; of DO_NOT_TRACK it heeds no value but 1.
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        self._vllm, self._base = import_module("vllm"), folder
        self._max_rank = next((rank for rank in VLLM_RANKS if rank >= max_rank), VLLM_RANKS[-1])
        free, total = torch.cuda.mem_get_info()
        self._model = self._vllm.LLM(
            model=str(folder),
            dtype=dtype,
            seed=0,
            skip_tokenizer_init=True,
            enable_lora=True,
            max_lora_rank=self._max_rank,
            gpu_memory_utilization=0.9 * free / total,
        )
        # vLLM drops adapters and reads them again: the exported ones stay until the engine goes.
        self._folder = TemporaryDirectory()
        self._worn: list[tuple[Adapter, Any]] = []

    def generate(
        self, tokenizer: Any, requests: Sequence[Request], adapter: Adapter | None, what: str
    ) -> list[list[Output]]:
        """Continue each prompt as `generation.generate` does; a request's place adds to its seed.

        Args:
            tokenizer: the base's tokenizer.
            requests: what to continue.
            adapter: what the base wears, made for this base; None for the base itself.
            what: the progress bar's name.

        Raises:
            AdapterError: if the adapter's rank is larger than vLLM, or this engine, can serve.
            DataError: for a prompt without tokens.
        """
        check_prompts(requests, what)
        # Where nothing may be written, nothing is.
        results = [[Output("", 0)] * request.samples for request in requests]
        rows = [row for row, request in enumerate(requests) if request.limit]
        if not rows:
            return results
        tokens_prompt = import_module("vllm.inputs").TokensPrompt
        ends = folder_end_ids(tokenizer, self._base)
        found = self._model.generate(
            [tokens_prompt(prompt_token_ids=requests[row].prompt) for row in rows],
            sampling_params=[self._sampling(requests[row], row, ends) for row in rows],
            use_tqdm=_bars(what),
            lora_request=None if adapter is None else self._served(adapter),
        )
        for row, written in zip(rows, found, strict=True):
            ids = [until_end(each.token_ids, ends) for each in written.outputs]
            outputs = [output(tokenizer, each) for each in ids]
            # vLLM writes the likeliest tokens once only.
            results[row] = outputs * (requests[row].samples // len(outputs))
        return results

    def close(self) -> None:
        """End the engine, which frees the GPU, and delete the exported adapters."""
        self._model.llm_engine.engine_core.shutdown()
        self._folder.cleanup()

    def _sampling(self, request: Request, row: int, ends: list[int]) -> Any:
        """Return vLLM's parameters; it gives each sample of a request a seed of its own."""
        # The ends are ours to name, so that both engines stop at the same tokens.
        options = {"max_tokens": request.limit, "ignore_eos": True, "stop_token_ids": ends}
        sampling, temperature = request.sampling, request.sampling.temperature
        if temperature > 0:
            # One seed for all rows would draw the same noise for every prompt.
            seed = int(np.random.SeedSequence((sampling.seed, row)).generate_state(1)[0])
            options |= {"n": request.samples, "top_p": sampling.top_p, "seed": seed}
        return self._vllm.SamplingParams(temperature=temperature, detokenize=False, **options)

    def _served(self, adapter: Adapter) -> Any:
        """Return vLLM's name for an adapter, exporting it the first time."""
        for known, request in self._worn:
            if known is adapter:
                return request
        # vLLM would find out in its own process, and that would be its end.
        if self._max_rank < adapter.rank <= VLLM_RANKS[-1]:
            raise AdapterError(
                f"rank {adapter.rank} is larger than this engine was opened for "
                f"({self._max_rank}); open it with max_rank={adapter.rank}"
            )
        number = len(self._worn) + 1
        folder = Path(self._folder.name) / str(number)
        export_peft(adapter, folder, serving="vllm")
        # vLLM tells cached prefixes apart by the name, loaded adapters by the number.
        request = import_module("vllm.lora.request").LoRARequest(
            lora_name=f"adapter-{number}", lora_int_id=number, lora_path=str(folder)
        )
        self._worn.append((adapter, request))
        return request


def _bars(what: str) -> Callable[..., Any]:
    """Make our bar of what vLLM has written, and none of what it only queues."""
    return lambda queued=None, *, total=0, **_: queued or bar(total, what, "example")
