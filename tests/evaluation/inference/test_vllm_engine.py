"""The interface to vLLM, against a stand-in.

`vllm` here is a few lines that record what they are given and return fixed token ids. So these
tests check what is passed to vLLM and what is made of its answer; the real engine has not been run.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from lori_core import config
from lori_core.adapters.adapter import LayerSpec
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError, ConfigError, DataError
from lori_core.evaluation.inference import vllm_engine
from lori_core.evaluation.inference.generation import Output, Request, Sampling, generate
from lori_core.evaluation.inference.vllm_engine import Engine
from lori_core.models import base_model
from support import random_adapter, tiny

END = 258
WRITTEN = [39, 72, END, 0]  # "Hi", the end, and "!" that must not be read


class StandIn:
    """`vllm.LLM`: keeps what it is given; sample i of a prompt is i times 65, then WRITTEN."""

    def __init__(self, **options: Any) -> None:
        self.options, self.calls, self.shut = options, [], 0
        core = SimpleNamespace(shutdown=self._shutdown)
        self.llm_engine = SimpleNamespace(engine_core=core)

    def _shutdown(self) -> None:
        self.shut += 1

    def generate(self, prompts: list[Any], **given: Any) -> list[Any]:
        self.calls.append(SimpleNamespace(prompts=prompts, **given))
        make_bar: Callable[..., Any] = given["use_tqdm"]
        assert list(make_bar(prompts, desc="Adding requests")) == prompts
        found = []
        with make_bar(total=len(prompts), desc="Processed prompts", dynamic_ncols=True) as progress:
            for params in given["sampling_params"]:
                ids = [tuple([65] * i + WRITTEN) for i in range(params.get("n", 1))]
                found.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=i) for i in ids]))
                progress.update(1)
        return found


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(content)
    return made


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        module("vllm", LLM=StandIn, SamplingParams=dict),
        module("vllm.inputs", TokensPrompt=dict),
        module("vllm.lora"),
        module("vllm.lora.request", LoRARequest=SimpleNamespace),
    ]
    for part in parts:
        monkeypatch.setitem(sys.modules, part.__name__, part)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60, 80))
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")


@pytest.fixture
def engine() -> Iterator[Engine]:
    opened = Engine(Path("base"), "bfloat16", 12)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return base_model.load_tokenizer(tiny("llama")[1])


def model(engine: Engine) -> StandIn:
    found: StandIn = engine._model
    return found


def ranked(rank: int) -> Any:
    adapter = random_adapter(sparsity=None)
    modules = {n: LayerSpec(m.d_in, m.d_out, rank, 1) for n, m in adapter.modules.items()}
    return replace(adapter, modules=modules)


def test_it_is_available_with_the_package_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert vllm_engine.available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not vllm_engine.available()


def test_it_is_not_available_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delitem(sys.modules, "vllm")
    monkeypatch.setattr(sys, "path", [])
    assert not vllm_engine.available()


def test_auto_takes_vllm_where_it_is_and_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(engine: str, *, there: bool = True, **model: Any) -> bool:
        monkeypatch.setattr(vllm_engine, "available", lambda: there)
        values = {
            "model": {"name_or_path": "random:llama", **model},
            "lori": {},
            "training": {},
            "tasks": {"t": {"source": "bundled-nlu", "calibration": {}, "training": {}}},
            "evaluation": {"engine": engine},
        }
        return vllm_engine.chosen(config.parse(values, "params.yaml"))

    assert chosen("auto", dtype="bfloat16")
    assert not chosen("auto", dtype="bfloat16", there=False)
    assert not chosen("auto", dtype="float32")
    assert not chosen("transformers", dtype="bfloat16")
    assert chosen("vllm", dtype="float32", there=False)  # named: refused later, with the reason


def test_the_base_is_loaded_once_with_room_for_adapters(engine: Engine) -> None:
    assert model(engine).options == {
        "model": "base",
        "dtype": "bfloat16",
        "seed": 0,
        "skip_tokenizer_init": True,
        "enable_lora": True,
        "max_lora_rank": 16,
        "gpu_memory_utilization": pytest.approx(0.675),
    }
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


def test_a_dtype_without_kernels_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^model.dtype: float32 cannot .* \(allowed: bfloat16, float16\)"
    ):
        Engine(Path("base"), "float32", 8)


def test_prompts_are_token_ids_and_greedy_outputs_end_before_the_end(
    engine: Engine, tokenizer: Any
) -> None:
    requests = [Request([1, 2, 3], 5), Request([4], 7, samples=2)]
    outputs = engine.generate(tokenizer, requests, None, "test")
    assert (
        outputs
        == [[Output("Hi", 2)], [Output("Hi", 2)] * 2]
        == [[Output(tokenizer.decode(WRITTEN[:2]), 2)] * n for n in (1, 2)]
    )
    (call,) = model(engine).calls
    assert call.prompts == [{"prompt_token_ids": [1, 2, 3]}, {"prompt_token_ids": [4]}]
    common = {"detokenize": False, "ignore_eos": True, "stop_token_ids": [END], "temperature": 0}
    assert call.sampling_params == [common | {"max_tokens": 5}, common | {"max_tokens": 7}]
    assert call.lora_request is None


def test_outputs_end_at_any_end_that_the_base_names(tmp_path: Path, tokenizer: Any) -> None:
    base, _, _ = tiny("llama")
    base.config.eos_token_id, base.generation_config.eos_token_id = 70, [END, WRITTEN[1]]
    base.save_pretrained(tmp_path)
    engine = Engine(tmp_path, "bfloat16", 8)
    assert engine.generate(tokenizer, [Request([1], 5)], None, "test") == [[Output("H", 1)]]
    (params,) = model(engine).calls[0].sampling_params
    assert params["stop_token_ids"] == [70, WRITTEN[1], END]
    engine.close()


def test_samples_are_drawn_with_a_seed_for_each_place(engine: Engine, tokenizer: Any) -> None:
    request = Request([1], 9, 3, Sampling(temperature=0.8, top_p=0.9, seed=4))
    other = replace(request, sampling=Sampling(0.8, 0.9, seed=5))
    for requests in ([request, request], [request, request], [other, other]):
        outputs = engine.generate(tokenizer, requests, None, "test")
        assert [output.tokens for output in outputs[0]] == [2, 3, 4]
    given = [call.sampling_params for call in model(engine).calls]
    assert {k: given[0][0][k] for k in ("n", "temperature", "top_p", "max_tokens")} == {
        "n": 3,
        "temperature": 0.8,
        "top_p": 0.9,
        "max_tokens": 9,
    }
    seeds = [params["seed"] for call in given for params in call]
    assert seeds[:2] == seeds[2:4]
    assert len(set(seeds)) == 4
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


def test_a_limit_of_0_tokens_gives_empty_outputs(engine: Engine, tokenizer: Any) -> None:
    requests = [Request([1], 0, 2), Request([2], 3), Request([3], 0)]
    base, _, _ = tiny("llama")
    outputs = engine.generate(tokenizer, requests, None, "test")
    assert outputs == [[Output("", 0)] * 2, [Output("Hi", 2)], [Output("", 0)]]
    assert outputs[::2] == generate(base, tokenizer, requests[::2], 4, "test")
    assert model(engine).calls[0].prompts == [{"prompt_token_ids": [2]}]
    assert engine.generate(tokenizer, [], None, "test") == []
    assert engine.generate(tokenizer, requests[::2], None, "test") == outputs[::2]
    assert len(model(engine).calls) == 1


def test_a_prompt_without_tokens_is_refused(engine: Engine, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="a prompt has no tokens"):
        engine.generate(tokenizer, [Request([1], 5), Request([], 5)], None, "test")
    assert model(engine).calls == []


def test_adapters_are_exported_once_and_swapped(engine: Engine, tokenizer: Any) -> None:
    first, second = random_adapter(key="math", rank=12), random_adapter(key="code", seed=2)
    for adapter in (first, second, first, None):
        engine.generate(tokenizer, [Request([1], 3)], adapter, "test")
    worn = [call.lora_request for call in model(engine).calls]
    assert worn[0] is worn[2]
    assert worn[3] is None
    assert [(w.lora_name, w.lora_int_id) for w in worn[:2]] == [("adapter-1", 1), ("adapter-2", 2)]
    for adapter, request, rank in ((first, worn[0], 16), (second, worn[1], 8)):
        served = peft_file.import_peft(Path(request.lora_path))
        assert served.rank == rank
        for name in adapter.modules:
            assert torch.allclose(served.delta(name), adapter.delta(name), atol=1e-6)


def test_ranks_that_cannot_be_served_are_refused(engine: Engine, tokenizer: Any) -> None:
    for rank, said in (
        (600, r"^rank 600 is larger than vLLM can serve \(512\)"),
        (
            17,
            r"^rank 17 is larger than this engine was opened for \(16\); open it with max_rank=17",
        ),
    ):
        with pytest.raises(AdapterError, match=said):
            engine.generate(tokenizer, [Request([1], 3)], ranked(rank), "test")
    assert model(engine).calls == []


def test_an_engine_for_larger_ranks_than_vllm_serves_has_the_largest() -> None:
    engine = Engine(Path("base"), "float16", 600)
    assert model(engine).options["max_lora_rank"] == 512
    engine.close()


def test_closing_ends_the_engine_and_deletes_the_adapters(tokenizer: Any) -> None:
    engine = Engine(Path("base"), "bfloat16", 8)
    engine.generate(tokenizer, [Request([1], 3)], random_adapter(), "test")
    folder = Path(model(engine).calls[0].lora_request.lora_path)
    assert folder.is_dir()
    engine.close()
    assert not folder.parent.exists()
    assert model(engine).shut == 1
