"""Generation with vLLM: one engine has the base model, and requests choose an adapter.

An optional replacement of `generation.generate` on CUDA, if the package `vllm` is installed;
otherwise nothing of it is imported. It follows vLLM's source code (V1 engine): `LLM` as of commit
10fdb8f, `SamplingParams` as of 00388f6, seeds of samples as of 003d3ee. It was not run with any
release.

Outputs differ from those of `generate`: vLLM rounds differently, keeps an adapter's factors in the
base model's dtype, draws other random numbers, and stops at the model's last position.
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

#: The dtypes of vLLM's LoRA kernels.
DTYPES = ("bfloat16", "float16")


def available() -> bool:
    """Return whether vLLM is installed and there is a CUDA GPU."""
    return find_spec("vllm") is not None and torch.cuda.is_available()


def chosen(params: Params) -> bool:
    """Return whether to use vLLM: `evaluation.engine` names it, or is `auto` and vLLM fits."""
    if params.evaluation.engine != "auto":
        return params.evaluation.engine == "vllm"
    return available() and params.model.quantization is None and params.model.dtype in DTYPES


@cache
def opened(folder: Path, dtype: str) -> Engine:
    """Return this process's engine for a base model; it is created by the first call.

    Raises:
        ConfigError: vLLM is not installed, has no GPU, or does not support the dtype.
    """
    if not available():
        raise ConfigError(
            "evaluation.engine: vllm needs the package vllm and a CUDA GPU (pip install vllm); "
            "or set transformers"
        )
    return Engine(folder, dtype, VLLM_RANKS[-1])


class Engine:
    """A base model in vLLM, with the adapters that were used so far."""

    def __init__(self, folder: Path, dtype: str, max_rank: int) -> None:
        """Load the base model into 0.9 of the free GPU memory.

        Args:
            folder: the base model's folder.
            dtype: the model's dtype, one of `DTYPES`.
            max_rank: the largest rank of adapters.

        Raises:
            ConfigError: vLLM does not support adapters in this dtype.
        """
        if dtype not in DTYPES:
            raise ConfigError(
                f"model.dtype: {dtype} cannot be used with vLLM (allowed: {', '.join(DTYPES)}); "
                "set one of these, or generate without vLLM"
            )
        # Turns vLLM's usage statistics off; of DO_NOT_TRACK vLLM only accepts the value 1.
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
        # vLLM evicts adapters and reads them again, so the exported folders stay until `close`.
        self._folder = TemporaryDirectory()
        self._requests: list[tuple[Adapter, Any]] = []

    def generate(
        self, tokenizer: Any, requests: Sequence[Request], adapter: Adapter | None, what: str
    ) -> list[list[Output]]:
        """Generate outputs as `generation.generate` does; seeds also depend on a request's place.

        Args:
            tokenizer: the base model's tokenizer.
            requests: the prompts.
            adapter: an adapter of this base model; None for the base model alone.
            what: the progress bar's name.

        Raises:
            AdapterError: the adapter's rank is larger than vLLM or this engine supports.
            DataError: a prompt has no tokens.
        """
        check_prompts(requests, what)
        # A request with a limit of 0 tokens gets empty outputs.
        results = [[Output("", 0)] * request.samples for request in requests]
        rows = [row for row, request in enumerate(requests) if request.limit]
        if not rows:
            return results
        tokens_prompt = import_module("vllm.inputs").TokensPrompt
        ends = folder_end_ids(tokenizer, self._base)
        completions = self._model.generate(
            [tokens_prompt(prompt_token_ids=requests[row].prompt) for row in rows],
            sampling_params=[self._sampling(requests[row], row, ends) for row in rows],
            use_tqdm=_bars(what),
            lora_request=None if adapter is None else self._lora_request(adapter),
        )
        for row, completion in zip(rows, completions, strict=True):
            ids = [until_end(each.token_ids, ends) for each in completion.outputs]
            outputs = [output(tokenizer, each) for each in ids]
            # Greedy decoding generates one output for all samples.
            results[row] = outputs * (requests[row].samples // len(outputs))
        return results

    def close(self) -> None:
        """Shut the engine down, which frees the GPU, and delete the exported adapters."""
        self._model.llm_engine.engine_core.shutdown()
        self._folder.cleanup()

    def _sampling(self, request: Request, row: int, ends: list[int]) -> Any:
        """Return vLLM's sampling parameters; vLLM gives each sample of a request its own seed."""
        # We name the end-of-sequence tokens, so that both engines stop at the same ones.
        options = {"max_tokens": request.limit, "ignore_eos": True, "stop_token_ids": ends}
        sampling, temperature = request.sampling, request.sampling.temperature
        if temperature > 0:
            # With one seed for all rows, each prompt would get the same random numbers.
            seed = int(np.random.SeedSequence((sampling.seed, row)).generate_state(1)[0])
            options |= {"n": request.samples, "top_p": sampling.top_p, "seed": seed}
        return self._vllm.SamplingParams(temperature=temperature, detokenize=False, **options)

    def _lora_request(self, adapter: Adapter) -> Any:
        """Return vLLM's request for an adapter; the first call exports the adapter."""
        for known, request in self._requests:
            if known is adapter:
                return request
        # vLLM would only notice in its own process, which would then end.
        if self._max_rank < adapter.rank <= VLLM_RANKS[-1]:
            raise AdapterError(
                f"rank {adapter.rank} is larger than this engine was opened for "
                f"({self._max_rank}); open it with max_rank={adapter.rank}"
            )
        number = len(self._requests) + 1
        folder = Path(self._folder.name) / str(number)
        export_peft(adapter, folder, serving="vllm")
        # vLLM identifies cached prefixes by the name and loaded adapters by the number.
        request = import_module("vllm.lora.request").LoRARequest(
            lora_name=f"adapter-{number}", lora_int_id=number, lora_path=str(folder)
        )
        self._requests.append((adapter, request))
        return request


def _bars(what: str) -> Callable[..., Any]:
    """Return a factory of progress bars: ours for generated outputs, none for queued requests."""
    return lambda queued=None, *, total=0, **_: queued or bar(total, what, "example")
