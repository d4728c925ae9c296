"""A sparse adapter in memory: a low-rank update of some of a base model's linear layers.

A and B are computed on access, one module at a time: A is drawn from its keys or read from a file,
B is scattered from the stored values. So memory use does not depend on the adapter's size.
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
    """The sizes, rank and alpha of one adapted linear layer."""

    d_in: int
    d_out: int
    rank: int
    lora_alpha: float


@dataclass(frozen=True)
class ProjectionBlock:
    """`rank` rows of every module's A, drawn from (seed, key).

    Attributes:
        seed: `lori.seed` of the training run.
        key: the task's projection key.
        rank: the number of rows.
        sha256: `projection.fingerprint` over the rows; empty if not computed yet.
    """

    seed: int
    key: str
    rank: int
    sha256: str = field(default="", compare=False)


class OnDemand(Mapping[str, Tensor]):
    """A mapping from module to tensor that computes the tensor on each access."""

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
        base: the identity of the base model.
        modules: the adapted linear layers by name.
        blocks: the keys A is drawn from, stacked along the rank; empty if A is `stored`.
        mask: the entries of B that may be nonzero; None for all.
        values: B's entries in mask order, [k], by module.
        stored: A, [rank, d_in], by module, if it is not drawn from keys.
        dtype: the dtype of `values` and `stored`.
        info: the adapter's origin: method, task, content key, merge recipe.
        fan_in_fan_out: the option of that name in PEFT's configuration. It does not decide the
            weights' orientation, which the base's layers do (GPT-2's are [d_in, d_out]).
        use_rslora: whether the scaling is lora_alpha / √rank instead of lora_alpha / rank.
        matched_by: PEFT's `target_modules`; the last parts of the modules' names if empty.
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
        """The number of stored values of B."""
        if self.mask is not None:
            return self.mask.count
        return sum(rows * columns for rows, columns in self.shapes.values())

    @property
    def targets(self) -> list[str]:
        """PEFT's `target_modules`, sorted."""
        return sorted(self.matched_by or {last_name(name) for name in self.modules})

    def scaling(self, module: str) -> float:
        """Return the factor of B @ A of a module."""
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


def is_info(value: Any) -> bool:
    """Return whether a JSON value is valid as an adapter's `info`."""
    if not isinstance(value, dict):
        return False
    recipe, left_out = value.get("recipe", {}), value.get("left_out", {})
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


def is_block(value: Any) -> bool:
    """Return whether a JSON value has the fields of a `ProjectionBlock`."""
    types = {"seed": int, "key": str, "rank": int, "sha256": str}
    if not isinstance(value, dict) or "rank" not in value:
        return False
    return all(type(v) is types.get(n) for n, v in value.items()) and 0 < value["rank"] <= 1 << 20


def last_name(module: str) -> str:
    """Return the last part of a module's name (`q_proj`)."""
    return module.rsplit(".", 1)[-1]


def uniform(
    features: Mapping[str, tuple[int, int]], rank: int, lora_alpha: float
) -> dict[str, LayerSpec]:
    """Return a `LayerSpec` of the same rank and alpha for each module's (d_in, d_out)."""
    return {name: LayerSpec(*sizes, rank, lora_alpha) for name, sizes in features.items()}


def draw(blocks: tuple[ProjectionBlock, ...], module: str, d_in: int) -> Tensor:
    """Draw A of one module, [rank, d_in], float32: the blocks' rows stacked along the rank."""
    rows = [projection.draw(b.seed, b.key, module, b.rank, d_in) for b in blocks]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def block_fingerprint(block: ProjectionBlock, modules: Mapping[str, LayerSpec]) -> str:
    """Draw a block's rows for every module and return their SHA-256 (hex)."""
    return projection.fingerprint(
        (name, draw((block,), name, module.d_in)) for name, module in modules.items()
    )


def values_in_mask(
    modules: Mapping[str, LayerSpec], B: Mapping[str, Tensor], mask: Mask | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the values, [k], in mask order, of dense B matrices, [d_out, rank], by module.

    Raises:
        AdapterError: a B has nonzero entries outside the mask.
    """
    return {
        name: entries_in_mask(B[name], None if mask is None else mask.of(name), name).to(dtype)
        for name in modules
    }


def entries_in_mask(B: Tensor, mask: Any, name: str) -> Tensor:
    """Return the entries of one dense B inside a mask, [k], float32.

    Args:
        B: [d_out, rank].
        mask: the module's booleans, [d_out · rank]; None for all entries.
        name: the module's name in error messages.

    Raises:
        AdapterError: B has nonzero entries outside the mask.
    """
    flat = B.detach().float().cpu().reshape(-1)
    if mask is None:
        return flat
    inside = torch.from_numpy(mask)
    values = flat[inside]
    if int(flat.count_nonzero()) != int(values.count_nonzero()):
        raise AdapterError(f"{name}: B has entries other than zero outside its mask")
    return values


#: The end of errors that the user resolves by naming the base.
NAME_BASE = "name the base with --base"


class _Trained(Protocol):
    """Anything trained for a base model: an adapter, or a full model."""

    @property
    def base(self) -> BaseIdentity: ...


def check_base(adapter: _Trained, base: BaseIdentity, where: str, *, vouched: bool = False) -> None:
    """Refuse a base model that is not, or may not be, the one the adapter was trained on.

    Args:
        adapter: an adapter or a full model.
        base: the identity of a base model on this machine, with the digests of its content.
        where: the adapter's name in error messages.
        vouched: whether the user named this base with `--base`. An adapter that records no digests
            of its base is then accepted.

    Raises:
        AdapterError: the contents differ; or the adapter records no digests of its base, names
            another base or none, and `vouched` is False.
    """
    result = match(adapter.base, base)
    if result is Match.DIFFERENT:
        # Version 0.1.0 hashed every weight file in the folder, including files that are not loaded.
        as_it_was = "" if adapter.base.tensors else ", with every file as it was for version 0.1.0"
        raise AdapterError(
            f"{where}: made for the base {adapter.base.name!r}, whose "
            f"{differing(adapter.base, base)} differ from {base.name!r}; use that base{as_it_was}"
        )
    if result is Match.UNPROVED and not vouched:
        if not adapter.base.name:
            raise AdapterError(f"{where}: does not say which base model it is for; {NAME_BASE}")
        raise AdapterError(
            f"{where}: names the base {full_name(adapter.base)}, and nothing proves that "
            f"{full_name(base)} is that one; if it is, {NAME_BASE}"
        )


def same_base(first: BaseIdentity, second: BaseIdentity) -> bool:
    """Return whether two identities may be of one base model: equal contents or equal names."""
    return match(first, second) in (Match.PROVED, Match.NAMED, Match.NAMELESS)


def check_one_base(adapters: Mapping[str, _Trained]) -> None:
    """Refuse adapters, given by name, that do not all belong to one base model.

    An adapter that records only its base's name is accepted together with any adapter whose base
    has that name, and with all whose bases have the same content as that one.

    Raises:
        AdapterError: two bases have different contents, or nothing links one base to another.
    """
    for (one, first), (two, second) in combinations(adapters.items(), 2):
        if match(first.base, second.base) is Match.DIFFERENT:
            raise AdapterError(
                f"{one} and {two} were made for different base models: {full_name(first.base)} and "
                f"{full_name(second.base)}, whose {differing(first.base, second.base)} differ"
            )
    (one, first), *rest = adapters.items()
    linked = [first.base]
    for base in linked:  # the list grows inside the loop
        linked += [other.base for _, other in rest if same_base(base, other.base)]
        rest = [(name, other) for name, other in rest if other.base not in linked]
    for two, second in rest:
        names = f"{full_name(first.base)} and {full_name(second.base)}"
        raise AdapterError(
            f"{one} and {two} may be adapters of different base models: {names}; nothing proves "
            f"that these are one; if they are, {NAME_BASE}"
        )


def full_name(base: BaseIdentity) -> str:
    """Return a base model's name, quoted, with its revision if it has one, for messages."""
    if not base.name:
        return "no base"
    return repr(base.name) + (f" at {base.revision}" if base.revision else "")
