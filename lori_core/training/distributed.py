"""Several processes, one GPU each, that train one adapter: `training.processes`.

Each takes its share of every batch; the gradients of what is trained are summed before they are
clipped, so the result is the one-process run's up to the order of float sums. What is frozen is
held whole by each, or with `training.sharding` in equal parts, fetched layer by layer (FSDP). The
stage's own process is rank 0: it alone reports, keeps checkpoints and writes the result.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import InputError, LoriError

if TYPE_CHECKING:
    from torch import Tensor, nn

RANK, SIZE, MEETING = "LORI_RANK", "LORI_PROCESSES", "LORI_MEETING"
#: How long the others may take to end after rank 0.
END_SECONDS = 60.0


@dataclass(frozen=True)
class Group:
    """The processes that train together: which one this is, and how many there are."""

    rank: int
    size: int

    def share(self, rows: Sequence[Any]) -> tuple[Sequence[Any], bool]:
        """Return this process's part of a batch, and whether there is none for it.

        Rows that follow each other are of like length, so everyone gets some of each. A process
        without a part computes on the first row, and what comes of it counts for nothing.
        """
        part = rows[self.rank :: self.size]
        return (part, False) if len(part) else (rows[:1], True)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the parameters' gradients over all processes, in place."""
        import torch
        import torch.distributed as dist

        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, value: Tensor) -> Tensor:
        """Return a value summed over all processes."""
        import torch.distributed as dist

        total = value.detach().clone()
        dist.all_reduce(total)
        return total


def current() -> Group | None:
    """Return the group this process belongs to; joins the others at the first call."""
    if RANK not in os.environ:
        return None
    import torch
    import torch.distributed as dist

    group = Group(int(os.environ[RANK]), int(os.environ[SIZE]))
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            init_method=f"tcp://{os.environ[MEETING]}",
            rank=group.rank,
            world_size=group.size,
        )
    return group


@contextmanager
def processes(count: int, command: Sequence[str]) -> Iterator[None]:
    """Make this process rank 0 of `count` that run the same command, for the context's duration.

    Args:
        count: how many; nothing happens for 1, or in a process that was itself started so.
        command: module and arguments of `python -m`, run for each other rank.

    Raises:
        InputError: there are GPUs, but fewer than processes.
        LoriError: another process failed.
    """
    if count == 1 or RANK in os.environ:
        yield
        return
    devices = _devices(count)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = {SIZE: str(count), MEETING: meeting}
    others = [
        _start(command, {**shared, RANK: str(rank), **devices[rank]}) for rank in range(1, count)
    ]
    os.environ.update({**shared, RANK: "0", **devices[0]})
    try:
        yield
        for rank, process in enumerate(others, start=1):
            code = process.wait(END_SECONDS)
            if code:
                raise LoriError(f"training.processes: process {rank} ended with exit code {code}")
    finally:
        _leave()
        for name in (*shared, RANK):
            os.environ.pop(name, None)
        for process in others:
            process.kill()
            process.wait()


def _start(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    from lori_core.core.processes.child import PARENT_VARIABLE
    from lori_core.core.tracking import ROWS_VARIABLE

    kept = {name: value for name, value in os.environ.items() if name != ROWS_VARIABLE}
    return subprocess.Popen(
        [sys.executable, "-m", "lori_core.core.processes.child", *command],
        env={**kept, PARENT_VARIABLE: str(os.getpid()), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def _devices(count: int) -> list[dict[str, str]]:
    """Return each rank's own `CUDA_VISIBLE_DEVICES`; nothing where there are no GPUs."""
    named = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    if not named:
        import torch

        named = [str(number) for number in range(torch.cuda.device_count())]
    if not named or named == ["-1"]:
        return [{}] * count
    if len(named) < count:
        raise InputError(
            f"training.processes: {count} need a GPU each, and this stage has {len(named)} "
            f"({','.join(named)}); lower it, or give the stage more (execution.gpus)"
        )
    return [{"CUDA_VISIBLE_DEVICES": named[rank]} for rank in range(count)]


def _leave() -> None:
    if "torch" in sys.modules:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def shard(model: Any, base: Any) -> None:
    """Keep only this process's part of each layer's frozen weights (FSDP), and what is trained.

    Raises:
        InputError: the base's layers cannot be told.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn import ModuleList

    lists = [module for module in base.modules() if isinstance(module, ModuleList)]
    if not lists:
        raise InputError(f"training.sharding: no list of layers in {type(base).__name__}")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (int(os.environ[SIZE]),))
    kept = {p for p in model.parameters() if p.requires_grad}
    for layer in max(lists, key=len):
        own = set(layer.parameters())
        fully_shard(layer, mesh=mesh, ignored_params=kept & own)
