"""A sparse adapter in memory: a low-rank update of some of a base model's linear maps.

A and B are made when asked for, one module at a time: A is drawn from its keys or read from a
file, B is scattered from packed values. So adapters of any size pass through bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol

import torch
from torch import Tensor

from lori_core.adapters import projection
from lori_core.adapters.masks.mask import Mask, Shapes
from lori_core.core.errors import AdapterError
from lori_core.models.base_identity import BaseIdentity, Match, differing, match


@dataclass(frozen=True)
class LayerSpec:
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
    modules: dict[str, LayerSpec]
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
        most = torch.finfo(torch.float32).max  # updates are computed in float32
        for name, module in self.modules.items():
            if module.rank < 1 or not abs(self.scaling(name)) <= most:
                raise AdapterError(
                    f"module {name}: lora_alpha {module.lora_alpha} at rank {module.rank} is no "
                    "finite scaling in float32"
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


def is_info(said: Any) -> bool:
    """Say whether a file's JSON can be an adapter's `info`."""
    if not isinstance(said, dict):
        return False
    recipe, left_out = said.get("recipe", {}), said.get("left_out", {})
    if not isinstance(recipe, dict) or not isinstance(left_out, dict):
        return False
    parents = recipe.get("parents", [])
    needed = {"content_key", "task", "weight"}
    return (
        isinstance(parents, list)
        and all(isinstance(parent, dict) and needed <= parent.keys() for parent in parents)
        and all(type(parent["weight"]) in (int, float) for parent in parents)
        and all(isinstance(names, list) for names in left_out.values())
        and all(isinstance(name, str) for names in left_out.values() for name in names)
    )


def is_block(said: Any) -> bool:
    """Say whether a file's JSON can be a `ProjectionBlock`."""
    types = {"seed": int, "key": str, "rank": int, "sha256": str}
    if not isinstance(said, dict) or "rank" not in said:
        return False
    return all(type(v) is types.get(n) for n, v in said.items()) and 0 < said["rank"] <= 1 << 20


def last_name(module: str) -> str:
    """Return the last part of a module's name (`q_proj`)."""
    return module.rsplit(".", 1)[-1]


def uniform(
    features: Mapping[str, tuple[int, int]], rank: int, lora_alpha: float
) -> dict[str, LayerSpec]:
    """Return modules of one rank and alpha from (d_in, d_out) by name."""
    return {name: LayerSpec(*sizes, rank, lora_alpha) for name, sizes in features.items()}


def draw(blocks: tuple[ProjectionBlock, ...], module: str, d_in: int) -> Tensor:
    """Draw A of one module: the blocks' matrices stacked along the rank, float32."""
    drawn = [projection.draw(b.seed, b.key, module, b.rank, d_in) for b in blocks]
    return drawn[0] if len(drawn) == 1 else torch.cat(drawn)


def block_fingerprint(block: ProjectionBlock, modules: Mapping[str, LayerSpec]) -> str:
    """Draw a block's rows of every module and return their SHA-256."""
    return projection.fingerprint(
        (name, draw((block,), name, module.d_in)) for name, module in modules.items()
    )


def values_in_mask(
    modules: Mapping[str, LayerSpec], B: Mapping[str, Tensor], mask: Mask | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the values of dense B's, [d_out, rank], in mask order, [k], by module.

    Raises:
        AdapterError: if B holds something other than zero outside the mask.
    """
    return {
        name: entries_in_mask(B[name], None if mask is None else mask.of(name), name).to(dtype)
        for name in modules
    }


def entries_in_mask(B: Tensor, kept: Any, name: str) -> Tensor:
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


#: How an error ends where the user can say which base it is.
NAME_IT = "name the base with --base"


class _Made(Protocol):
    """Whatever was trained for a base model."""

    @property
    def base(self) -> BaseIdentity: ...


def check_base(adapter: _Made, base: BaseIdentity, where: str, *, vouched: bool = False) -> None:
    """Refuse a base model that is not the adapter's, or is not known to be.

    Args:
        adapter: what was trained.
        base: a base model that is at hand, so that its content is known.
        where: what the adapter is called in the error.
        vouched: whether the user named this base for the adapter: then one that does not know its
            base's content is taken at the user's word.

    Raises:
        AdapterError: the contents differ; or the adapter does not know its base's content, names
            another or none, and nobody vouches for this one.
    """
    found = match(adapter.base, base)
    if found is Match.DIFFERENT:
        # Its digests were over all files of those names, whether they were loaded or not.
        as_it_was = "" if adapter.base.tensors else ", with every file as it was for version 0.1.0"
        raise AdapterError(
            f"{where}: made for the base {adapter.base.name!r}, whose "
            f"{differing(adapter.base, base)} differ from {base.name!r}; use that base{as_it_was}"
        )
    if found is Match.UNPROVED and not vouched:
        if not adapter.base.name:
            raise AdapterError(f"{where}: does not say which base model it is for; {NAME_IT}")
        raise AdapterError(
            f"{where}: names the base {full_name(adapter.base)}, and nothing proves that "
            f"{full_name(base)} is that one; if it is, {NAME_IT}"
        )


def same_base(first: BaseIdentity, second: BaseIdentity) -> bool:
    """Say whether two identities may be taken for one base model: proved, or named alike."""
    return match(first, second) in (Match.PROVED, Match.NAMED, Match.NAMELESS)


def check_one_base(adapters: Mapping[str, _Made]) -> None:
    """Refuse adapters, by name, that cannot be taken for adapters of one base model.

    One that only names its base goes with any that has that name, and so with all whose content is
    equal to that one's.

    Raises:
        AdapterError: two contents differ; or nothing says that one base is another's.
    """
    for (one, first), (two, second) in combinations(adapters.items(), 2):
        if match(first.base, second.base) is Match.DIFFERENT:
            raise AdapterError(
                f"{one} and {two} were made for different base models: {full_name(first.base)} and "
                f"{full_name(second.base)}, whose {differing(first.base, second.base)} differ"
            )
    (one, first), *rest = adapters.items()
    linked = [first.base]
    for base in linked:  # grows on the way
        linked += [made.base for _, made in rest if same_base(base, made.base)]
        rest = [(name, made) for name, made in rest if made.base not in linked]
    for two, second in rest:
        names = f"{full_name(first.base)} and {full_name(second.base)}"
        raise AdapterError(
            f"{one} and {two} may be adapters of different base models: {names}; nothing proves "
            f"that these are one; if they are, {NAME_IT}"
        )


def full_name(base: BaseIdentity) -> str:
    """Return how people know a base model: its name, quoted, and a revision where it has one."""
    if not base.name:
        return "no base"
    return repr(base.name) + (f" at {base.revision}" if base.revision else "")
