"""The memory that one process takes to train, from shapes alone.

For T tokens in the largest batch, hidden size h, feed-forward size f, all key heads k, rank r and
n adapted maps in a layer, a layer keeps for each token until its backward pass

    h + 2 k   query, key, value
    h         what attention gave; or the weights of short rows (`training.kernels.plain_attention`)
    2 f       gate and up
    n r       x Aᵀ of each map
    2 h       what the two norms read; in float32 where they are trained

in the computing precision, and nothing else: frozen weights need no inputs
(`training.kernels.lora_linear`, `training.kernels.pointwise`). PEFT's own layers, which other
methods use, keep the inputs of A too, 3 h + f more; where the base is not in float32 as A is, each
linear layer keeps a copy of its own in float32, 6 h + f. With gradient checkpointing a layer keeps
its input alone, and one at a time all of that. On top: one chunk of logits with its softmax in
float32; or the widest gradients of one layer, whichever is more. On the CPU also the process
itself, and the holes that the C library's allocator leaves. A base that is converted while it is
read has its file in memory too.
"""

from __future__ import annotations

from lori_core.config import TrainingSection
from lori_core.cost.bases import Base
from lori_core.cost.devices import Device
from lori_core.methods.catalogue import METHODS

WEIGHT_BYTES = {"4bit": 0.56, "8bit": 1.03}
DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
#: Resident before anything is loaded, bytes: Python, torch and transformers. On a GPU what torch
#: allocates is counted, as `memory.memory_gb` does: CUDA's own half gigabyte comes on top.
PROCESS = {"cpu": 0.58e9, "gpu": 0.0}
#: What glibc holds of freed tensors beside those in use, in layers' gradients; found by measuring.
#: Batches of unlike sizes leave holes: 5 to 13 were seen, by the order of the batches.
HOLES = {"cpu": 8.0, "gpu": 0.0}


def width(dtype: str, quantized: bool, on: Device) -> float:
    """Return the bytes of a number in the precision that a device computes in."""
    half = dtype == "float16" or on.bfloat16
    return DTYPE_BYTES[dtype] if half or quantized else DTYPE_BYTES["float32"]


def weights(base: Base, quantization: str | None, number: float) -> float:
    """Return the bytes of a base in memory, `number` bytes each where it is not quantised."""
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
    """Return the bytes that training takes beside the weights and the trained state.

    Args:
        base: its shapes.
        section: batch size and checkpointing.
        method: of `lori_core.methods.catalogue`.
        tokens: of the largest batch.
        target: tokens of an example's target.
        number: bytes of a number in the computing precision.
        kind: gpu or cpu.
    """
    from lori_core.training.loss import LOGIT_CHUNK

    known = METHODS[method]
    lean, whole = known.lean, known.result == "weights"
    wide, inner = base.hidden, base.intermediate
    low = 0 if whole else base.rank * base.maps
    norms = 2 * wide * (4 if whole else number)
    attended = _attended(base, tokens / section.batch_size, number, kind)
    layer = number * (wide + 2 * base.keys + attended + 2 * inner + low) + norms
    if not lean and (number == 4 or whole):
        layer += number * (3 * wide + inner)
    elif not lean:  # a float32 copy for each map, and of x Aᵀ
        layer += 4 * (6 * wide + inner) + (4 - number) * low
    kept = base.layers * layer
    if section.gradient_checkpointing:
        kept = base.layers * number * wide + layer
    gradients = tokens * number * (4 * inner + 4 * wide)
    holes = HOLES[kind] * gradients
    positions = min(section.batch_size * target, LOGIT_CHUNK)
    logits = positions * base.vocabulary * _logit_bytes(whole, number, kind)
    if lean and number == 4:  # W + s B A of gate and up
        gradients += number * 2 * inner * wide
    adapter = 0.0 if whole else number * base.adapter
    if section.gradient_checkpointing:  # the logits are gone before a layer's inputs are back
        work = max(logits, gradients + holes)
    else:
        work = max(logits, gradients) + holes
    return adapter + kept * tokens + work + PROCESS[kind]


def _attended(base: Base, length: float, number: float, kind: str) -> float:
    """Return how many numbers a token's attention keeps besides query, key and value."""
    from lori_core.training.kernels.plain_attention import BLOCK, SAVED_LENGTH

    if kind == "gpu" or number == 4:
        return base.hidden
    return base.heads * (length + BLOCK) / 2 if length <= SAVED_LENGTH else 0.0


def _logit_bytes(whole: bool, number: float, kind: str) -> float:
    """Return what one logit takes while its chunk is there, with its share of the softmax."""
    from lori_core.training.loss import LOGIT_CHUNK, SOFTMAX_ROWS

    if not whole:  # what half precision gives is counted in float32
        softmax = 4 if number == 4 else 8
        return number + softmax * (SOFTMAX_ROWS / LOGIT_CHUNK if kind == "cpu" else 1)
    if number == 4:  # the head is trained with the rest: its logits have a gradient
        return 8
    return number + (12 if kind == "cpu" else 8)


def loading(base: Base, number: float, kind: str) -> float:
    """Return the bytes in memory while weights are read, which the CPU converts beside them."""
    converted = kind == "cpu" and number != base.stored
    return PROCESS[kind] + base.total * (number + (base.stored if converted else 0.0))
