"""The memory that training needs besides weights and trained state, from sizes alone.

For hidden size h, intermediate size f, size k of all key heads, rank r and n adapted linear layers
per transformer layer, a transformer layer saves for each token until its backward pass

    h + 2 k   query, key, value
    h         the attention's output; or the weights of short rows (`kernels.plain_attention`)
    2 f       gate and up
    n r       x Aᵀ of each adapted linear layer
    2 h       the inputs of the two norms; in float32 if they are trained

in the computing precision, and nothing else: layers with frozen weights save no inputs
(`training.kernels.lora_linear`, `training.kernels.pointwise`). PEFT's own layers, which other
methods use, also save the inputs of A, 3 h + f; if the base is not in float32 like A, each linear
layer saves its own float32 copy, 6 h + f. With gradient checkpointing, each layer saves its input
only, and one layer at a time everything above. In addition come the larger of one chunk of logits
with its float32 softmax and the widest gradients of one layer; on the CPU, the process itself and
the fragmentation of the C library's allocator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lori_core.config import TrainingSection

#: Bytes of Python, torch and transformers before anything is loaded. On a GPU, only torch's
#: allocations count, as in `memory.memory_gb`, without the 0.5 GB of the CUDA context.
PROCESS = {"cpu": 0.58e9, "gpu": 0.0}
#: Freed memory that glibc does not return, as a multiple of a layer's gradients. It fragments as
#: batches differ in size; measured values are 5 to 13, depending on the order of the batches.
HOLES = {"cpu": 8.0, "gpu": 0.0}
#: The share of a GPU's memory that a forecast may fill; the rest is for the CUDA context, the
#: libraries' workspaces and fragmentation.
USABLE = 0.85


@dataclass(frozen=True)
class Sizes:
    """The sizes of a base model and of its adapter on which the memory depends.

    Attributes:
        hidden: the hidden size.
        intermediate: the intermediate size of the MLP.
        heads: the number of query heads.
        keys: the size of all key (or value) heads together.
        layers: the number of transformer layers.
        vocabulary: the size of the vocabulary.
        adapter: the number of entries of A and B together, dense.
        rank: the rank of the adapter.
        linear_layers: the number of adapted linear layers per transformer layer.
    """

    hidden: int
    intermediate: int
    heads: int
    keys: int
    layers: int
    vocabulary: int
    adapter: int
    rank: int
    linear_layers: float


@dataclass(frozen=True)
class Layers:
    """Which layers a method uses.

    Attributes:
        lean: whether its layers save no inputs (`kernels.lora_linear`).
        whole: whether it trains all weights of the base.
        number: the bytes of a number in the computing precision.
        kind: gpu or cpu.
    """

    lean: bool
    whole: bool
    number: float
    kind: str


def working_bytes(
    sizes: Sizes, section: TrainingSection, layers: Layers, tokens: float, target: float
) -> float:
    """Return the bytes that a pass needs besides the weights and the trained state.

    Args:
        sizes: the sizes of the base model.
        section: gives batch size and gradient checkpointing.
        layers: which layers the method uses.
        tokens: the tokens of the pass.
        target: the tokens of an example's target.
    """
    from lori_core.training.loss import LOGIT_CHUNK

    number, kind, whole = layers.number, layers.kind, layers.whole
    layer = _layer_bytes(sizes, layers, tokens / section.batch_size)
    saved = sizes.layers * layer
    if section.gradient_checkpointing:
        saved = sizes.layers * number * sizes.hidden + layer
    gradients = tokens * number * (4 * sizes.intermediate + 4 * sizes.hidden)
    holes = HOLES[kind] * gradients
    positions = min(section.batch_size * target, LOGIT_CHUNK)
    logits = positions * sizes.vocabulary * _logit_bytes(layers)
    if layers.lean and number == 4:  # W + s B A of gate and up
        gradients += number * 2 * sizes.intermediate * sizes.hidden
    adapter = 0.0 if whole else number * sizes.adapter
    if section.gradient_checkpointing:  # the logits are freed before a layer is computed again
        work = max(logits, gradients + holes)
    else:
        work = max(logits, gradients) + holes
    return adapter + saved * tokens + work + PROCESS[kind]


def tokens_that_fit(
    sizes: Sizes, section: TrainingSection, layers: Layers, room: float, most: int
) -> int:
    """Return the largest number of tokens of a pass, from 1 to `most`, that fits into `room` bytes.

    Args:
        sizes: the sizes of the base model.
        section: gives batch size and gradient checkpointing.
        layers: which layers the method uses.
        room: the bytes of memory besides the weights and the trained state.
        most: the most tokens to return.
    """
    from lori_core.training.loss import LOGIT_CHUNK

    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if working_bytes(sizes, section, layers, middle, LOGIT_CHUNK) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _layer_bytes(sizes: Sizes, layers: Layers, length: float) -> float:
    """Return the bytes that a transformer layer saves for each token of rows of this length."""
    number, wide, inner = layers.number, sizes.hidden, sizes.intermediate
    low = 0 if layers.whole else sizes.rank * sizes.linear_layers
    norms = 2 * wide * (4 if layers.whole else number)
    attended = _attended(sizes, layers, length)
    layer = number * (wide + 2 * sizes.keys + attended + 2 * inner + low) + norms
    if not layers.lean and (number == 4 or layers.whole):
        layer += number * (3 * wide + inner)
    elif not layers.lean:  # a float32 copy for each linear layer, and of x Aᵀ
        layer += 4 * (6 * wide + inner) + (4 - number) * low
    return layer


def _attended(sizes: Sizes, layers: Layers, length: float) -> float:
    """Return how many numbers attention saves for each token besides query, key and value."""
    from lori_core.training.kernels.plain_attention import BLOCK, SAVED_LENGTH

    if layers.kind == "gpu" or layers.number == 4:
        return sizes.hidden
    return sizes.heads * (length + BLOCK) / 2 if length <= SAVED_LENGTH else 0.0


def _logit_bytes(layers: Layers) -> float:
    """Return the bytes of one logit while its chunk is in memory, with its share of the softmax."""
    from lori_core.training.loss import LOGIT_CHUNK, SOFTMAX_ROWS

    number, kind = layers.number, layers.kind
    if not layers.whole:  # logits in half precision get a float32 copy
        softmax = 4 if number == 4 else 8
        return number + softmax * (SOFTMAX_ROWS / LOGIT_CHUNK if kind == "cpu" else 1)
    if number == 4:  # the head is trained, so its logits have a gradient
        return 8
    return number + (12 if kind == "cpu" else 8)


def sizes_of(base: Any, rank: int, adapted: int, adapter: int = 0) -> Sizes:
    """Return the sizes of a base model, loaded or on the meta device.

    Args:
        base: the base model.
        rank: the rank of the adapter.
        adapted: the number of adapted linear layers of the whole model.
        adapter: the number of entries of A and B together; 0 if they are in memory already.

    Raises:
        AttributeError, TypeError, ZeroDivisionError: the configuration does not name its sizes.
    """
    config = base.config.get_text_config()
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Sizes(
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        heads=heads,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * head,
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        adapter=adapter,
        rank=rank,
        linear_layers=adapted / config.num_hidden_layers,
    )
