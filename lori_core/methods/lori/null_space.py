"""Draw A orthogonal to the inputs of other tasks, after OSRM (arXiv:2505.22934).

An adapter adds `scaling · B @ A @ x` to the output of a layer with input x. If A @ x is 0 for the
inputs x of another task, the adapter changes nothing for that task, whatever B is. OSRM takes the
rows of A from the eigenvectors of the smallest eigenvalues of `Xᵀ X`, with X [tokens, d_in] the
inputs of the layer on the other tasks' examples in the base model. Here A stays frozen and depends
on the seed as well: it is the random A of `projection`, moved into that subspace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lori_core.core.errors import ConfigError, DataError, ModelError
from lori_core.core.files.atomic import digest
from lori_core.core.progress import bar
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode_all
from lori_core.data.pulled import each_example
from lori_core.methods import limits
from lori_core.methods.loaded_model import LoadedModel

#: An eigenvalue of XᵀX counts as 0 below this share of the largest: rounding of float64 sums.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True)
class Avoid:
    """The tasks to whose inputs A is drawn orthogonal.

    Attributes:
        tasks: their names.
        examples: the number of training examples of each whose inputs are measured.
    """

    tasks: tuple[str, ...]
    examples: int


@dataclass(frozen=True)
class Inputs:
    """The inputs of a base model's layers on the examples of other tasks.

    Attributes:
        grams: XᵀX [d_in, d_in], float64, by module; modules with the same input share one tensor.
        data: the digest of the ids of the examples.
    """

    grams: Mapping[str, Tensor]
    data: str


def measure_inputs(loaded: LoadedModel, avoid: Avoid, task: str, max_length: int) -> Inputs:
    """Measure the inputs of the target modules on training examples of other tasks.

    The examples are chosen by `lori.seed`, and run through the base model as in training: prompt
    and target, truncated to `max_length` tokens. Each distinct input of d_in values takes
    8·d_in² bytes on the model's device.

    Args:
        loaded: the base model, without an adapter; unchanged afterwards.
        avoid: the other tasks.
        task: the task that A is drawn for.
        max_length: the most tokens of an example.

    Raises:
        ConfigError: `task` is one of the other tasks, or there are none.
        DataError: a task has no training example with a target.
    """
    if task in avoid.tasks or not avoid.tasks:
        named = ", ".join(avoid.tasks) or "none"
        raise ConfigError(
            f"tasks.{task}: A can only avoid the inputs of other tasks (got: {named}); name one or "
            f"more tasks, and not {task} itself"
        )
    rows: list[Encoded] = []
    chosen: list[str] = []
    for other in avoid.tasks:
        own = _chosen(other, avoid.examples, loaded.params.lori.seed)
        chosen += [example.id for example in own]
        rows += encode_all(own, loaded.params.prompt, loaded.tokenizer, max_length)
    largest = max(max(row.prompt + row.target) for row in rows)
    limits.check_ids(largest, loaded.model, f"tasks.{task}")
    return Inputs(_grams(loaded.model, list(loaded.modules), rows), digest(chosen))


def _chosen(task: str, count: int, seed: int) -> list[Example]:
    """Return training examples with a target: all, or as many as `count`, chosen by the seed."""
    known = {e.id: e for e in each_example(task, "train") if e.target}
    if not known:
        raise DataError(f"tasks.{task}: no training example has a target")
    return [known[id] for id in sorted(known, key=lambda id: digest([seed, id]))[:count]]


@torch.inference_mode()
def _grams(model: Any, names: Sequence[str], rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """Return XᵀX of each module's inputs X over all tokens of the rows.

    Modules that get the same tensor, as q, k and v do, share one sum.
    """
    summed = _SharedSums()
    model.eval()
    with summed.watching(model, names), bar(len(rows), "inputs of other tasks", "example") as done:
        for row in rows:
            ids = torch.tensor([row.prompt + row.target], device=model.device)
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            summed.last = None
            done.update(1)
    return {name: summed.of(name) for name in names}


class _SharedSums:
    """Sums XᵀX in forward hooks, once for consecutive modules with the same input tensor."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        #: By module, the module whose sum is also its own.
        self.leader: dict[str, str] = {}
        #: The last input, held so that no other tensor can be taken for it, and its module.
        self.last: tuple[Tensor, str] | None = None

    @contextmanager
    def watching(self, model: Any, names: Sequence[str]) -> Iterator[None]:
        """Sum the inputs of these modules inside the block."""
        hooks = [
            model.get_submodule(name).register_forward_pre_hook(partial(self._add, name))
            for name in names
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def of(self, name: str) -> Tensor:
        """Return the sum of a module, on the CPU.

        Raises:
            DataError: no example reached it.
        """
        if name not in self.leader:
            raise DataError(
                f"module {name}: no example of the other tasks reached it, so no A can avoid their "
                "inputs; use more examples"
            )
        leader = self.leader[name]
        self.sums[leader] = self.sums[leader].cpu()
        return self.sums[leader]

    def _add(self, name: str, _: Any, inputs: tuple[Tensor, ...]) -> None:
        x, last = inputs[0], self.last
        same = last[1] if last is not None and last[0] is x else None
        leader = self.leader.setdefault(name, same or name)
        if leader != name:
            if leader != same:
                raise ModelError(f"module {name}: shares its input with {leader} only at times")
            return
        rows = x.reshape(-1, x.shape[-1]).double()
        gram = rows.T @ rows
        self.sums[name] = self.sums[name] + gram if name in self.sums else gram
        if same is None:
            self.last = (x, name)


def least_directions(gram: Tensor, rank: int) -> Tensor:
    """Return orthonormal directions [d_in, k] in which inputs X have the least energy.

    They span the null space of X if its dimension is at least `rank`; otherwise they are the `rank`
    directions with the smallest eigenvalues of XᵀX.

    Args:
        gram: XᵀX [d_in, d_in], float64.
        rank: the fewest directions.

    Raises:
        ConfigError: the layer has fewer inputs than `rank`.
    """
    if rank > len(gram):
        raise ConfigError(
            f"lori.rank: {rank} is above a layer's {len(gram)} inputs, so no A of that rank has "
            "orthogonal rows; use a smaller rank"
        )
    values, vectors = torch.linalg.eigh(gram)
    zeros = int((values <= NEGLIGIBLE * values[-1].clamp(min=0)).sum())
    least: Tensor = vectors[:, : max(rank, zeros)]
    return least


def moved_into(drawn: Tensor, directions: Tensor) -> Tensor:
    """Return A in the span of orthonormal directions, as close as possible to a random A.

    The rows are orthogonal with one norm, the root mean square of those of `drawn`. Among such
    matrices the result is the nearest to `drawn`, so it depends on the span alone and not on the
    choice of directions in it.

    Args:
        drawn: the random A [rank, d_in], float32.
        directions: [d_in, k], float64, k at least `rank`.

    Returns:
        A [rank, d_in], float32.
    """
    left, _, right = torch.linalg.svd(drawn.double() @ directions, full_matrices=False)
    norm = float(drawn.double().norm()) / len(drawn) ** 0.5
    moved: Tensor = norm * (left @ right) @ directions.T
    return moved.float()


def avoiding(draw: Callable[[str], Tensor], inputs: Inputs) -> dict[str, Tensor]:
    """Return A by module, orthogonal to the inputs as far as its rank allows.

    Args:
        draw: returns a module's random A [rank, d_in], float32.
        inputs: of the modules.
    """
    spans: dict[int, Tensor] = {}
    moved = {}
    for name, gram in inputs.grams.items():
        drawn = draw(name)
        if id(gram) not in spans:
            spans = {id(gram): least_directions(gram, len(drawn))}
        moved[name] = moved_into(drawn, spans[id(gram)])
    return moved
