"""Merge an adapter into a copy of its base model: W = W0 + scaling·B@A, in bounded memory.

No model is loaded. The weight files are copied block by block with unchanged headers, and the
update is added to the blocks of adapted weights, so that merging takes little longer than copying.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from lori_core.core.errors import AdapterError, InputError, ModelError
from lori_core.core.files import finite
from lori_core.core.files.atomic import replaced_folder, write_json
from lori_core.core.files.safetensors_file import Entry
from lori_core.core.files.tensor_file import DTYPES, TensorFile
from lori_core.models import base_files, base_tensors
from lori_core.models.base_tensors import Target

#: Numbers in a block: as float32 they fit into a core's cache, and a matrix product of this size is
#: nearly as fast as a larger one.
_NUMBERS = 1 << 19
#: Bytes of a block that is only copied. (Copying in the kernel was measured to be no faster.)
_RUN = 1 << 20
#: One more than there are cores, since one thread waits for the disk; more would contend for it.
_THREADS = min(8, 1 + (os.cpu_count() or 1))
#: Blocks that may wait for a thread while the next update is computed.
_AHEAD = 64
#: If at most one in this many values of B is nonzero, adding rows of A beats the dense product.
_SPARSE = 4


class Update(NamedTuple):
    """The update of a weight: scaling·B@A.

    Attributes:
        A: [r, d_in], float32, on the CPU.
        B: [d_out, r], float32, on the CPU.
        scaling: the factor of the product.
    """

    A: Tensor
    B: Tensor
    scaling: float


class Merged(NamedTuple):
    """The number of changed tensors, and the size of all weight files in bytes."""

    tensors: int
    bytes: int


class _Sum(NamedTuple):
    """The update of a block of rows: scaling·left@right."""

    name: str  # of the stored weight
    dtype: torch.dtype  # of the stored weight
    left: Tensor  # [rows, r]
    right: Tensor  # [r, columns]
    scaling: float


class _Block(NamedTuple):
    """A range of bytes of a file that is read, updated and written at once."""

    start: int
    stop: int
    added: _Sum | None


def merge_into_base(
    base: Path,
    out: Path,
    modules: Mapping[str, tuple[int, int]],
    update: Callable[[str], Update],
) -> Merged:
    """Write a copy of a base model with an adapter merged into its weights.

    Each sum is computed in float32 and rounded once to the base's dtype. All other tensors, the
    headers and the other files are copied byte for byte; weights in other formats, hidden files
    and caches are left out. `out` is created only when the folder is complete.

    Args:
        base: a model folder with safetensors weights.
        out: the folder to write; must be missing or empty.
        modules: (d_in, d_out) by module, named as in the transformers model.
        update: returns a module's update. Called from this thread, once for each module, in the
            order of the files; a few results are held at a time.

    Returns:
        The number of changed tensors and the size of the weights.

    Raises:
        InputError: `out` is not empty, or lies inside `base`.
        ModelError: the base is incomplete, damaged or quantised, or holds NaN or infinity in an
            adapted weight.
        AdapterError: the base lacks a module or has it in another shape, or a sum overflows the
            base's dtype.
    """
    _check_out(base, out)
    files = [base_files.opened(path) for path in base_files.weight_files(base)]
    targets = base_tensors.targets(base, files, modules)
    others = base_files.other_files(base)
    with replaced_folder(out) as work, _one_thread_each(), ThreadPoolExecutor(_THREADS) as pool:
        for path in others:
            copy = work / path.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        scratch = _Scratch()
        for file in files:
            blocks = _blocks(file, targets, update)
            _write_file(work / file.path.name, file, blocks, pool, scratch)
    return Merged(len(targets), sum(file.size for file in files))


def write_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `lori_export.json` into a merged model's folder: its origin and its list of files."""
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    write_json(folder / base_files.EXPORTED, {**facts, "files": files})


def _check_out(base: Path, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; name another, or delete it")
    if base.resolve() in out.resolve().parents:
        raise InputError(f"{out}: lies inside the base model's folder; name one outside it")


def _blocks(
    file: TensorFile,
    targets: Mapping[str, Target],
    update: Callable[[str], Update],
) -> Iterator[_Block]:
    """Yield blocks that cover a file from its first byte to its last."""
    position = 0
    for name, entry in sorted(file.entries.items(), key=lambda item: item[1].start):
        if name not in targets or entry.start == entry.stop:
            continue
        yield from _runs(position, entry.start)
        whole = _sum(name, targets[name], entry, update)
        rows, columns = entry.shape
        step = max(1, _NUMBERS // columns)
        width = columns * whole.dtype.itemsize
        for row in range(0, rows, step):
            start, stop = entry.start + row * width, entry.start + min(rows, row + step) * width
            yield _Block(start, stop, whole._replace(left=whole.left[row : row + step]))
        position = entry.stop
    yield from _runs(position, file.size)


def _runs(start: int, stop: int) -> Iterator[_Block]:
    for position in range(start, stop, _RUN):
        yield _Block(position, min(stop, position + _RUN), None)


def _sum(name: str, target: Target, entry: Entry, update: Callable[[str], Update]) -> _Sum:
    A, B, scaling = update(target.module)
    left, right = (A.T, B.T) if target.transposed else (B, A)
    if (left.shape[0], right.shape[1]) != entry.shape or left.shape[1] != right.shape[0]:
        raise AdapterError(
            f"{target.module}: A is {list(A.shape)} and B is {list(B.shape)}; they do not make "
            f"{list(entry.shape)}"
        )
    return _Sum(name, DTYPES[entry.dtype], left, right, scaling)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let each matrix product use one thread; the parallelism is over blocks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Scratch(threading.local):
    """Buffers that each thread reuses: allocating new memory takes longer than the sums."""

    def __init__(self) -> None:
        self.stored = torch.empty(0, dtype=torch.uint8)
        self.weight = torch.empty(0)

    def of_size(self, size: int, numbers: int) -> tuple[Tensor, Tensor]:
        """Return a buffer of `size` bytes and one of `numbers` float32 values."""
        if self.stored.numel() < size:
            self.stored = torch.empty(size, dtype=torch.uint8)
        if self.weight.numel() < numbers:
            self.weight = torch.empty(numbers)
        return self.stored[:size], self.weight[:numbers]


class _Output(NamedTuple):
    """A file that several threads write to."""

    file: int
    # A file takes one write at a time, and threads that wait in the kernel for their turn spin.
    lock: threading.Lock

    def write(self, data: memoryview, position: int) -> None:
        with self.lock:
            while data:
                count = os.pwrite(self.file, data, position)
                position, data = position + count, data[count:]


def _write_file(
    path: Path,
    file: TensorFile,
    blocks: Iterable[_Block],
    pool: ThreadPoolExecutor,
    scratch: _Scratch,
) -> None:
    """Write a file's blocks in parallel; each thread reads, updates and writes its own blocks."""
    pending: deque[Future[None]] = deque()
    with path.open("xb", buffering=0) as opened:
        opened.truncate(file.size)
        output = _Output(opened.fileno(), threading.Lock())
        try:
            for block in blocks:
                pending.append(pool.submit(_merge_block, file, output, block, scratch))
                if len(pending) > _AHEAD:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        finally:
            wait(pending)  # no thread may write to the file descriptor once it is closed


def _merge_block(file: TensorFile, output: _Output, block: _Block, scratch: _Scratch) -> None:
    size = block.stop - block.start
    added = block.added
    stored, weight = scratch.of_size(size, size // added.dtype.itemsize if added else 0)
    data = stored.numpy().data
    file.read_into(block.start, data)
    if added:
        values = stored.view(added.dtype).view(-1, added.right.shape[1])
        weight = weight.view(values.shape).copy_(values)
        values.copy_(_add(weight, added))
        if finite.fault(values) is not None:
            raise _not_finite(file, block, added)
    output.write(data, block.start)


def _not_finite(file: TensorFile, block: _Block, added: _Sum) -> InputError:
    """Return an error that blames the base or the adapter for a sum that is not finite."""
    stored = torch.empty(block.stop - block.start, dtype=torch.uint8)
    file.read_into(block.start, stored.numpy().data)
    problem = finite.fault(stored.view(added.dtype))
    if problem is not None:
        return ModelError(
            f"{file.path}: {added.name} holds {problem}: weights must be finite numbers; download "
            "the base model again"
        )
    dtype = str(added.dtype).removeprefix("torch.")
    return AdapterError(
        f"{added.name} would hold infinity in {dtype}, the base's precision, with the adapter "
        "merged; merge into a base of wider precision"
    )


def _add(weight: Tensor, added: _Sum) -> Tensor:
    """Add scaling·left@right to a weight in place, skipping the zeros of a sparse `left`."""
    row, column = added.left.nonzero(as_tuple=True)
    if _SPARSE * len(row) > added.left.numel():
        return weight.addmm_(added.left, added.right, alpha=added.scaling)
    starts = torch.searchsorted(row, torch.arange(len(added.left)))
    product = embedding_bag(
        column, added.right, starts, mode="sum", per_sample_weights=added.left[row, column]
    )
    return weight.add_(product, alpha=added.scaling)
