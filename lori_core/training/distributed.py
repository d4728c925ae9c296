"""Data-parallel training of one adapter by `training.processes` processes, one GPU each.

Each process computes a part of every batch. Gradients are summed over processes before clipping, so
the result equals that of one process up to the order of floating-point sums. Frozen weights are
replicated in each process or, with `training.sharding`, sharded by layer (FSDP). The stage's own
process is rank 0; only rank 0 reports metrics, writes checkpoints and saves the result.
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

#: Environment variables: the rank, the number of processes, and the address of the TCP store.
RANK, SIZE, ADDRESS = "LORI_RANK", "LORI_PROCESSES", "LORI_MEETING"
#: Seconds that the other processes may take to exit after rank 0 has finished.
END_SECONDS = 60.0


@dataclass(frozen=True)
class Group:
    """The process group of a training run.

    Attributes:
        rank: the rank of this process.
        size: the number of processes.
    """

    rank: int
    size: int

    def share(self, rows: Sequence[Any]) -> tuple[Sequence[Any], bool]:
        """Return this process's part of a batch, and whether that part is a dummy batch.

        Rows are sorted by length, so each process takes every `size`-th row. A process without a
        row gets the first row as a dummy batch that keeps ranks in step; its loss is zeroed.
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
    """Return this process's group, joined at the first call; None in a run of one process."""
    if RANK not in os.environ:
        return None
    import torch
    import torch.distributed as dist

    group = Group(int(os.environ[RANK]), int(os.environ[SIZE]))
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            init_method=f"tcp://{os.environ[ADDRESS]}",
            rank=group.rank,
            world_size=group.size,
        )
    return group


@contextmanager
def processes(count: int, command: Sequence[str]) -> Iterator[None]:
    """Start the other `count - 1` ranks and make this process rank 0 inside a `with` block.

    Args:
        count: the number of processes; with 1, or in a process started here, nothing happens.
        command: module and arguments of `python -m` to run as each other rank.

    Raises:
        InputError: the machine has GPUs, but fewer than `count`.
        LoriError: another rank failed.
    """
    if count == 1 or RANK in os.environ:
        yield
        return
    devices = _devices(count)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = {SIZE: str(count), ADDRESS: address}
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
    """Start another rank with these environment variables, without this process's tracker."""
    from lori_core.core.processes.child import PARENT_VARIABLE
    from lori_core.core.tracking import ROWS_VARIABLE

    inherited = {name: value for name, value in os.environ.items() if name != ROWS_VARIABLE}
    return subprocess.Popen(
        [sys.executable, "-m", "lori_core.core.processes.child", *command],
        env={**inherited, PARENT_VARIABLE: str(os.getpid()), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def _devices(count: int) -> list[dict[str, str]]:
    """Return each rank's `CUDA_VISIBLE_DEVICES`; empty mappings on a machine without GPUs."""
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
    """Destroy torch's process group, if this process has joined one."""
    if "torch" in sys.modules:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def shard(model: Any, base: Any) -> None:
    """Shard the frozen weights of each layer over the processes with FSDP, in place.

    Trained parameters stay replicated.

    Args:
        model: the PEFT model.
        base: the base model inside it.

    Raises:
        InputError: the base model has no list of layers.
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
    replicated = {p for p in model.parameters() if p.requires_grad}
    for layer in max(lists, key=len):
        own = set(layer.parameters())
        fully_shard(layer, mesh=mesh, ignored_params=replicated & own)
