"""What every implementation trains: a model of real shapes with random weights, and random rows.

Nothing is downloaded and no tokenizer is needed. The rows have the lengths and the shared
beginnings of real ones, counted with SmolLM2's tokenizer and chat template.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr

from benchmarks.training_peers import RANK, TARGETS, Work
from lori_core.adapters.masks.mask import Mask
from lori_core.data.prompts import Encoded
from lori_core.models import peft_names

#: The sizes of the models, as in their published configurations.
SHAPES: dict[str, dict[str, Any]] = {
    "8b": {  # Llama-3-8B
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
    },
    "1b": {  # Llama-3.2-1B
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
    },
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048,
    },
}  # fmt: skip
PAD, BOS, EOS, FIRST_TOKEN = 0, 1, 2, 3
#: The tokens of GSM8K's prompts and targets at the quantiles 0, 0.05, ..., 1, of 2,000 rows.
GSM8K_PROMPT = (53, 81, 85, 88, 91, 93, 96, 98, 101, 103, 105,
                108, 110, 113, 116, 120, 125, 130, 138, 150, 232)  # fmt: skip
GSM8K_TARGET = (35, 62, 69, 76, 82, 89, 94, 99, 105, 112, 118,
                125, 132, 140, 148, 158, 169, 182, 199, 234, 459)  # fmt: skip
#: The rank correlation of the two lengths.
GSM8K_CORRELATION = 0.5
#: The tokens of the prompts of four multiple choice sets at the same quantiles; the shorter half
#: has one instruction (true or false), the longer half another (choose an answer).
CHOICE_PROMPT = (59, 59, 60, 60, 60, 61, 61, 62, 62, 63, 65,
                 82, 85, 87, 90, 94, 98, 103, 109, 122, 237)  # fmt: skip
#: Tokens that all prompts begin with (the system turn), and that an instruction adds.
SYSTEM, INSTRUCTION = 24, 11
CHOICE_TARGET = (6, 7)
LONG = 2048


@dataclass(frozen=True)
class Rows:
    """A kind of rows.

    Attributes:
        batch: the rows of an optimizer step.
        at_once: the rows of the first pass to try; more and fewer are tried from there.
        what: what the rows are like.
    """

    batch: int
    at_once: int
    what: str


KINDS = {
    "gsm8k": Rows(32, 8, "lengths of GSM8K"),
    "short": Rows(32, 16, "multiple choice with shared beginnings"),
    "long": Rows(8, 4, "2,048 tokens"),
}
#: What batches and lengths of rows are divided by, for shapes that only test this program.
SMALLER = {"tiny": 8}


def rows_of(kind: str, shape: str) -> Rows:
    """Return a kind of rows as it is used with a shape."""
    rows, divisor = KINDS[kind], SMALLER.get(shape, 1)
    return replace(
        rows, batch=max(rows.batch // divisor, 2), at_once=max(rows.at_once // divisor, 1)
    )


def batches(kind: str, shape: str, number: int, count: int) -> list[list[Encoded]]:
    """Return batches of random rows.

    Args:
        kind: one of `KINDS`.
        shape: one of `SHAPES`.
        number: the number of the set of batches; different numbers have different rows.
        count: the number of batches.
    """
    batch, divisor = rows_of(kind, shape).batch, SMALLER.get(shape, 1)
    vocabulary = SHAPES[shape]["vocab_size"]
    random = np.random.default_rng([list(KINDS).index(kind), number])
    fixed = np.random.default_rng(7)  # the shared beginnings are the same in every set
    system = fixed.integers(FIRST_TOKEN, vocabulary, SYSTEM // divisor).tolist()
    instructions = fixed.integers(FIRST_TOKEN, vocabulary, (2, INSTRUCTION // divisor)).tolist()

    def ids(length: int) -> list[int]:
        return [int(n) for n in random.integers(FIRST_TOKEN, vocabulary, max(length, 1))]

    rows = []
    for prompt, target, instruction in _lengths(kind, count * batch, random):
        start = [] if kind == "long" else system
        if instruction is not None:
            start = start + instructions[instruction]
        end = [*ids(target // divisor - 1), EOS]
        rows.append(Encoded(start + ids(prompt // divisor - len(start)), end, False))
    return [rows[n : n + batch] for n in range(0, len(rows), batch)]


def _lengths(kind: str, count: int, random: Any) -> Iterator[tuple[int, int, int | None]]:
    """Yield the tokens of prompt and target and the number of the instruction of each row."""
    quantiles = np.linspace(0, 1, len(GSM8K_PROMPT))
    first, second = random.standard_normal((2, count))
    share = ndtr(first)
    if kind == "long":
        yield from [(LONG // 2, LONG - LONG // 2, None)] * count
    elif kind == "gsm8k":
        mixed = GSM8K_CORRELATION * first + math.sqrt(1 - GSM8K_CORRELATION**2) * second
        prompts = np.interp(share, quantiles, GSM8K_PROMPT)
        targets = np.interp(ndtr(mixed), quantiles, GSM8K_TARGET)
        yield from ((round(p), round(t), None) for p, t in zip(prompts, targets, strict=True))
    else:
        prompts = np.interp(share, quantiles, CHOICE_PROMPT)
        for prompt, below in zip(prompts, share, strict=True):
            choice = int(below > 0.5)
            yield round(prompt), CHOICE_TARGET[choice], choice


def base(shape: str, device: str) -> Any:
    """Return a frozen Llama with random weights: bfloat16 on a GPU, float32 on a CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = AutoConfig.for_model(
        "llama", **SHAPES[shape], bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.requires_grad_(False)
    model.config.use_cache = False
    return model


def adapter(model: Any) -> tuple[dict[str, torch.Tensor], Mask]:
    """Return A of each linear layer, [RANK, d_in] float32, and a random mask at sparsity 0.9."""
    shapes = peft_names.target_shapes(model, TARGETS)
    generator = torch.Generator(model.device).manual_seed(1)
    A = {
        name: torch.empty(RANK, d_in, device=model.device).uniform_(
            -(d_in**-0.5), d_in**-0.5, generator=generator
        )
        for name, (d_in, _) in shapes.items()
    }
    sizes = {name: (d_out, RANK) for name, (_, d_out) in shapes.items()}
    total = sum(rows * columns for rows, columns in sizes.values())
    inside = np.random.default_rng(2).random(total, dtype=np.float32) < 0.1
    return A, Mask.from_flat(sizes, inside)


def of(model: Any, A: Any, mask: Mask, rows: list[list[Encoded]], at_once: int) -> Work:
    """Return the input of `benchmarks.training_peers` for some batches."""
    return Work(model, rows, PAD, A, mask, at_once)


@dataclass(frozen=True)
class Sizes:
    """The sizes that the number of operations depends on.

    Attributes:
        linear: the parameters of the adapted linear layers.
        low_rank: the entries of A and B together.
        B: the entries of B.
        head: the parameters of the head.
        attention: the layers times the size of all query heads.
    """

    linear: int
    low_rank: int
    B: int
    head: int
    attention: int

    @classmethod
    def of(cls, model: Any) -> Sizes:
        """Return the sizes of a model."""
        shapes = peft_names.target_shapes(model, TARGETS)
        config = model.config
        return cls(
            linear=sum(d_in * d_out for d_in, d_out in shapes.values()),
            low_rank=RANK * sum(d_in + d_out for d_in, d_out in shapes.values()),
            B=RANK * sum(d_out for _, d_out in shapes.values()),
            head=config.vocab_size * config.hidden_size,
            attention=config.num_hidden_layers * config.hidden_size,
        )

    def needed(self, rows: list[Encoded]) -> float:
        """Return the FLOP that rows need with A frozen, without padding.

        These are: forward pass and input gradient of each linear layer and of the low-rank layers;
        B's gradient; the head at targets, forward and backward; and attention's products, of which
        the causal mask leaves half: 2 n² forward and 5 n² backward.
        """
        tokens = sum(map(len, rows))
        targets = sum(len(row.target) for row in rows)
        squares = sum(len(row) ** 2 for row in rows)
        layers = tokens * (4 * self.linear + 4 * self.low_rank + 2 * self.B)
        return layers + 4 * targets * self.head + 7 * squares * self.attention
