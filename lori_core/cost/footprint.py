"""Forecast the memory that one process needs for training, from sizes alone.

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
the fragmentation of the C library's allocator. A base that is converted while it is loaded also has
its file in memory.
"""

from __future__ import annotations

from lori_core.config import TrainingSection
from lori_core.cost.bases import Base
from lori_core.cost.devices import Device
from lori_core.methods.catalogue import METHODS

WEIGHT_BYTES = {"4bit": 0.56, "8bit": 1.03}
DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
#: Bytes of Python, torch and transformers before anything is loaded. On a GPU, only torch's
#: allocations count, as in `memory.memory_gb`, without the 0.5 GB of the CUDA context.
PROCESS = {"cpu": 0.58e9, "gpu": 0.0}
#: Freed memory that glibc does not return, as a multiple of a layer's gradients. It fragments as
#: batches differ in size; measured values are 5 to 13, depending on the order of the batches.
HOLES = {"cpu": 8.0, "gpu": 0.0}


def width(dtype: str, quantized: bool, on: Device) -> float:
    """Return the bytes of a number in the precision in which a device computes.

    Args:
        dtype: `model.dtype`.
        quantized: whether the base is quantised.
        on: the device.
    """
    half = dtype == "float16" or on.bfloat16
    return DTYPE_BYTES[dtype] if half or quantized else DTYPE_BYTES["float32"]


def weights(base: Base, quantization: str | None, number: float) -> float:
    """Return the bytes of a base model in memory.

    Args:
        base: its sizes.
        quantization: `model.quantization`.
        number: the bytes of a parameter that is not quantised.
    """
    return base.total * WEIGHT_BYTES.get(quantization or "", number)


def training(
    base: Base,
    section: TrainingSection,
    method: str,
    tokens: float,
    target: float,
    number: float,
    kind: str,
) -> float:
    """Return the bytes that training needs besides the weights and the trained state.

    Args:
        base: the sizes of the base model.
        section: gives batch size and gradient checkpointing.
        method: one of `lori_core.methods.catalogue.METHODS`.
        tokens: the tokens of the largest batch.
        target: the tokens of an example's target.
        number: the bytes of a number in the computing precision.
        kind: gpu or cpu.
    """
    from lori_core.training.loss import LOGIT_CHUNK

    known = METHODS[method]
    lean, whole = known.lean, known.result == "weights"
    wide, inner = base.hidden, base.intermediate
    low = 0 if whole else base.rank * base.linear_layers
    norms = 2 * wide * (4 if whole else number)
    attended = _attended(base, tokens / section.batch_size, number, kind)
    layer = number * (wide + 2 * base.keys + attended + 2 * inner + low) + norms
    if not lean and (number == 4 or whole):
        layer += number * (3 * wide + inner)
    elif not lean:  # a float32 copy for each linear layer, and of x Aᵀ
        layer += 4 * (6 * wide + inner) + (4 - number) * low
    saved = base.layers * layer
    if section.gradient_checkpointing:
        saved = base.layers * number * wide + layer
    gradients = tokens * number * (4 * inner + 4 * wide)
    holes = HOLES[kind] * gradients
    positions = min(section.batch_size * target, LOGIT_CHUNK)
    logits = positions * base.vocabulary * _logit_bytes(whole, number, kind)
    if lean and number == 4:  # W + s B A of gate and up
        gradients += number * 2 * inner * wide
    adapter = 0.0 if whole else number * base.adapter
    if section.gradient_checkpointing:  # the logits are freed before a layer is computed again
        work = max(logits, gradients + holes)
    else:
        work = max(logits, gradients) + holes
    return adapter + saved * tokens + work + PROCESS[kind]


def _attended(base: Base, length: float, number: float, kind: str) -> float:
    """Return how many numbers attention saves for each token besides query, key and value."""
    from lori_core.training.kernels.plain_attention import BLOCK, SAVED_LENGTH

    if kind == "gpu" or number == 4:
        return base.hidden
    return base.heads * (length + BLOCK) / 2 if length <= SAVED_LENGTH else 0.0


def _logit_bytes(whole: bool, number: float, kind: str) -> float:
    """Return the bytes of one logit while its chunk is in memory, with its share of the softmax."""
    from lori_core.training.loss import LOGIT_CHUNK, SOFTMAX_ROWS

    if not whole:  # logits in half precision get a float32 copy
        softmax = 4 if number == 4 else 8
        return number + softmax * (SOFTMAX_ROWS / LOGIT_CHUNK if kind == "cpu" else 1)
    if number == 4:  # the head is trained, so its logits have a gradient
        return 8
    return number + (12 if kind == "cpu" else 8)


def loading(base: Base, number: float, kind: str) -> float:
    """Return the peak bytes while weights are loaded; the CPU may hold them in both precisions.

    Args:
        base: the sizes of the base model.
        number: the bytes of a parameter in memory.
        kind: gpu or cpu.
    """
    converted = kind == "cpu" and number != base.stored
    return PROCESS[kind] + base.total * (number + (base.stored if converted else 0.0))
