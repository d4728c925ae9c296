"""A sparse adapter in memory: a low-rank update of some of a base model's linear maps.

A and B are made when asked for, one module at a time: A is drawn from its keys or read from a
file, B is scattered from packed values. So adapters of any size pass through bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lori_core import projection
from lori_core.errors import AdapterError
from lori_core.mask import Mask, Shapes
from lori_core.models import BaseIdentity


@dataclass(frozen=True)
class Module:
    """One adapted linear map."""

    d_in: int
    d_out: int
    rank: int
    lora_alpha: float


@dataclass(frozen=True)
class ProjectionBlock:
    """`rank` rows of A of every module, drawn from (seed, key).

    `sha256` is `projection.fingerprint` over them; empty while it is not known.
    """

    seed: int
    key: str
    rank: int
    sha256: str = field(default="", compare=False)


class OnDemand(Mapping[str, Tensor]):
    """A tensor by module, computed each time it is asked for."""

    def __init__(self, names: Mapping[str, object], make: Callable[[str], Tensor]) -> None:
        self._names = names
        self._make = make

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of one module."""
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the modules' names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._names)


@dataclass(frozen=True)
class Adapter:
    """ΔW = scaling · B @ A for each module.

    Attributes:
        base: the base model it belongs to.
        modules: the adapted linear maps by name.
        blocks: the keys A is drawn from, stacked along the rank; empty if A is `stored`.
        mask: the entries of B that may be other than zero; None for all.
        values: B's entries in mask order, [k], by module.
        stored: A, [rank, d_in], by module, where it is not drawn from keys.
        dtype: what `values` and `stored` are kept in.
        info: method, task, content key, recipe: where it came from.
        fan_in_fan_out: what PEFT's configuration says of it; how the base keeps its weights, its
            layers tell (GPT-2's are [d_in, d_out]).
        use_rslora: whether the scaling is lora_alpha / √rank instead of lora_alpha / rank.
        matched_by: the names by which PEFT finds the modules; their last parts where empty.
    """

    base: BaseIdentity
    modules: dict[str, Module]
    blocks: tuple[ProjectionBlock, ...]
    mask: Mask | None
    values: Mapping[str, Tensor]
    stored: Mapping[str, Tensor] | None = None
    dtype: torch.dtype = torch.float32
    info: dict[str, Any] = field(default_factory=dict)
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    matched_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a rank or lora_alpha that gives no finite scaling."""
        for name, module in self.modules.items():
            if module.rank < 1 or not math.isfinite(self.scaling(name)):
                raise AdapterError(
                    f"module {name}: lora_alpha {module.lora_alpha} at rank {module.rank} is no "
                    "finite scaling"
                )

    @property
    def shapes(self) -> Shapes:
        """The shapes of B, (d_out, rank), by module."""
        return {name: (module.d_out, module.rank) for name, module in self.modules.items()}

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(module.rank for module in self.modules.values())

    @property
    def count(self) -> int:
        """How many values it has."""
        if self.mask is not None:
            return self.mask.count
        return sum(rows * columns for rows, columns in self.shapes.values())

    @property
    def targets(self) -> list[str]:
        """The names by which PEFT finds the modules."""
        return sorted(self.matched_by or {last_name(name) for name in self.modules})

    def scaling(self, module: str) -> float:
        """Return what B @ A of a module is multiplied with."""
        size = self.modules[module]
        return size.lora_alpha / (math.sqrt(size.rank) if self.use_rslora else size.rank)

    def A(self, module: str) -> Tensor:  # noqa: N802 - the paper's letter
        """Return `lora_A.weight` of a module, [rank, d_in], float32."""
        if self.stored is not None:
            return self.stored[module].float()
        return draw(self.blocks, module, self.modules[module].d_in)

    def B(self, module: str) -> Tensor:  # noqa: N802 - the paper's letter
        """Return `lora_B.weight` of a module, dense, [d_out, rank], float32."""
        size = self.modules[module]
        values = self.values[module].float()
        if self.mask is None:
            return values.view(size.d_out, size.rank)
        dense = torch.zeros(size.d_out * size.rank)
        dense[torch.from_numpy(self.mask.of(module))] = values
        return dense.view(size.d_out, size.rank)

    def delta(self, module: str) -> Tensor:
        """Return ΔW of one module, [d_out, d_in], float32."""
        return self.scaling(module) * (self.B(module) @ self.A(module))


def last_name(module: str) -> str:
    """Return the last part of a module's name (`q_proj`)."""
    return module.rsplit(".", 1)[-1]


def uniform(
    features: Mapping[str, tuple[int, int]], rank: int, lora_alpha: float
) -> dict[str, Module]:
    """Return modules of one rank and alpha from (d_in, d_out) by name."""
    return {name: Module(*sizes, rank, lora_alpha) for name, sizes in features.items()}


def draw(blocks: tuple[ProjectionBlock, ...], module: str, d_in: int) -> Tensor:
    """Draw A of one module: the blocks' matrices stacked along the rank, float32."""
    drawn = [projection.draw(b.seed, b.key, module, b.rank, d_in) for b in blocks]
    return drawn[0] if len(drawn) == 1 else torch.cat(drawn)


def block_fingerprint(block: ProjectionBlock, modules: Mapping[str, Module]) -> str:
    """Draw a block's rows of every module and return their SHA-256."""
    return projection.fingerprint(
        (name, draw((block,), name, module.d_in)) for name, module in modules.items()
    )


def pack(
    modules: Mapping[str, Module], B: Mapping[str, Tensor], mask: Mask | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the values of dense B's, [d_out, rank], in mask order, [k], by module.

    Raises:
        AdapterError: if B holds something other than zero outside the mask.
    """
    return {
        name: packed(B[name], None if mask is None else mask.of(name), name).to(dtype)
        for name in modules
    }


def packed(B: Tensor, kept: Any, name: str) -> Tensor:
    """Return the entries of one dense B that a mask's booleans (None: all) keep, [k], float32.

    Raises:
        AdapterError: if B holds something other than zero outside the mask.
    """
    flat = B.detach().float().cpu().reshape(-1)
    if kept is None:
        return flat
    inside = torch.from_numpy(kept)
    values = flat[inside]
    if int(flat.count_nonzero()) != int(values.count_nonzero()):
        raise AdapterError(f"{name}: B has entries other than zero outside its mask")
    return values


def same_base(first: BaseIdentity, second: BaseIdentity) -> bool:
    """Say whether two identities name one base model; a PEFT folder knows the base's name only."""
    if first.weights and second.weights:
        return (first.config, first.weights) == (second.config, second.weights)
    return (first.name, first.revision) == (second.name, second.revision)


class _Made(Protocol):
    """Whatever was trained for a base model."""

    @property
    def base(self) -> BaseIdentity: ...


def check_base(adapter: _Made, base: BaseIdentity, where: str) -> None:
    """Refuse a base model whose config or weights are not those of the adapter's.

    An adapter that does not know them (one from a PEFT folder) is let through: its modules' names
    and sizes are checked when it is put on.
    """
    if not adapter.base.weights:
        return
    for part in ("config", "weights"):
        if getattr(adapter.base, part) != getattr(base, part):
            raise AdapterError(
                f"{where}: made for the base {adapter.base.name!r}, whose {part} differ from "
                f"{base.name!r}; use that base"
            )
