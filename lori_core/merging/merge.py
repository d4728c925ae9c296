"""Merging adapters, ours and PEFT's, module by module, without the base model (METHOD, section 3).

A merge is itself an adapter whose A and B are computed when they are asked for; writing it to disk
is what makes it, one module in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lori_core.adapters.adapter import Adapter, LayerSpec, OnDemand, check_one_base, entries_in_mask
from lori_core.adapters.masks.mask import Mask
from lori_core.core import source_code
from lori_core.core.errors import AdapterError, InputError
from lori_core.core.files.atomic import digest
from lori_core.core.stage_dependencies import MERGING
from lori_core.merging.catalogue import MERGE_METHODS
from lori_core.merging.merge_methods import Factors, Options, check_options
from lori_core.merging.truncation import Truncated
from lori_core.models.base_identity import VOUCHED, BaseIdentity

#: In a merge's `info`: the parents whose base nothing proves.
UNPROVED = "base_not_proved"
#: In a merge's `info`, for methods that can cut to a rank: the share of ‖ΔW‖² (Frobenius) that the
#: cut lost, over all modules (`lost`) and by module (`modules`).
TRUNCATION = "truncation"


def merge(
    method: str,
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    options: Options | None = None,
) -> Adapter:
    """Merge adapters of one base into one.

    Ranks, scalings and modules may differ; a module that only some adapt is merged from those.

    Args:
        method: a name of `merge_methods.METHODS`.
        adapters: in order.
        weights: one each; may be negative.
        options: density and the like, where the method has them.

    Raises:
        InputError: for an unknown method, or weights or options that do not fit.
        AdapterError: for adapters of different bases, or with modules of different sizes.
    """
    options = options or Options()
    check_options(method, options)
    if len(weights) != len(adapters) or not adapters:
        raise InputError(f"{len(weights)} weights for {len(adapters)} adapters; give one each")
    for weight in weights:
        if not math.isfinite(weight):
            raise InputError(f"weight {weight} is not a finite number")
    _check_alike(adapters)
    return _Merge(method, adapters, weights, options).adapter()


class _Merge:
    """The merge of one module at a time; the last one is kept, as A and B are asked for in turn."""

    def __init__(
        self,
        method: str,
        adapters: Sequence[Adapter],
        weights: Sequence[float],
        options: Options,
    ) -> None:
        self.name = method
        self.method = MERGE_METHODS[method]
        self.adapters = adapters
        self.weights = weights
        self.options = options
        alike = all(adapter.modules.keys() == adapters[0].modules.keys() for adapter in adapters)
        #: The parents' keys draw the merge's A, too: nothing is computed or stored for it.
        self.keyed = self.method.stacks and alike and all(a.blocks for a in adapters)
        names = dict.fromkeys(name for adapter in adapters for name in adapter.modules)
        self.modules = {name: self._module(name) for name in names}
        self.mask = self._mask()
        self._last: tuple[str, Tensor, Tensor] | None = None
        #: ‖ΔW‖² and what the cut lost of it, of each module that was computed.
        self._cuts: dict[str, tuple[float, float]] = {}
        self.truncation: dict[str, Any] = {}

    def adapter(self) -> Adapter:
        matched = sorted({target for adapter in self.adapters for target in adapter.targets})
        return Adapter(
            base=_base(self.adapters),
            modules=self.modules,
            blocks=tuple(b for a in self.adapters for b in a.blocks) if self.keyed else (),
            mask=self.mask,
            values=OnDemand(self.modules, self._values),
            stored=None if self.keyed else OnDemand(self.modules, lambda n: self._factors(n)[0]),
            info={
                "method": self.name,
                "recipe": recipe(self.name, self.adapters, self.weights, self.options),
                **_unproved(self.adapters),
                # Filled as the modules are computed, so it is whole when the adapter is saved.
                **({TRUNCATION: self.truncation} if "rank" in self.method.uses else {}),
            },
            fan_in_fan_out=any(adapter.fan_in_fan_out for adapter in self.adapters),
            matched_by=tuple(matched),
        )

    def _having(self, module: str) -> list[tuple[int, Adapter]]:
        return [(i, a) for i, a in enumerate(self.adapters) if module in a.modules]

    def _module(self, name: str) -> LayerSpec:
        parents = [adapter.modules[name] for _, adapter in self._having(name)]
        first = parents[0]
        rank = self.method.rank([p.rank for p in parents], (first.d_in, first.d_out), self.options)
        # Scaling 1: the parents' scalings are in the factors.
        return LayerSpec(first.d_in, first.d_out, rank, rank)

    def _mask(self) -> Mask | None:
        """Return where B can be other than zero; None where that is (nearly) everywhere."""
        if self.method.dense or any(adapter.mask is None for adapter in self.adapters):
            return None
        shapes = {name: (module.d_out, module.rank) for name, module in self.modules.items()}
        return Mask.from_parts(shapes, map(self._kept, self.modules))

    def _kept(self, module: str) -> np.ndarray:
        d_out, rank = self.modules[module].d_out, self.modules[module].rank
        parts = [
            adapter.mask.of(module).reshape(d_out, -1)
            for _, adapter in self._having(module)
            if adapter.mask is not None
        ]
        if self.method.stacks:
            return np.concatenate(parts, axis=1).reshape(-1)
        kept = np.zeros((d_out, rank), dtype=bool)
        for part in parts:
            kept[:, : part.shape[1]] |= part
        return kept.reshape(-1)

    def _values(self, module: str) -> Tensor:
        if self.keyed and self.mask is not None:
            return self._side_by_side(self.mask.of(module), module)
        kept = None if self.mask is None else self.mask.of(module)
        return entries_in_mask(self._factors(module)[1], kept, module)

    def _side_by_side(self, kept: np.ndarray, module: str) -> Tensor:
        """Return the values of B's stacked along the rank, w_t·s_t·B_t, without forming any B.

        Row by row each parent's values stand in their own order, so it is enough to know whose
        column each kept entry is in.
        """
        parents = self._having(module)
        ranks = [adapter.modules[module].rank for _, adapter in parents]
        column = np.repeat(np.arange(len(parents), dtype=np.uint16), ranks)
        owner = np.tile(column, kept.size // column.size)[kept]
        shares = [self.weights[index] * adapter.scaling(module) for index, adapter in parents]
        parts = [a.values[module].float() * s for s, (_, a) in zip(shares, parents, strict=True)]
        values = torch.empty(owner.size)
        values[torch.from_numpy(np.argsort(owner, kind="stable"))] = torch.cat(parts)
        return values

    def _factors(self, module: str) -> tuple[Tensor, Tensor]:
        if self._last is None or self._last[0] != module:
            parents = [
                Factors(
                    A=torch.empty(a.modules[module].rank, 0) if self.keyed else a.A(module),
                    B=a.B(module),
                    weight=self.weights[index],
                    scaling=a.scaling(module),
                    index=index,
                )
                for index, a in self._having(module)
            ]
            self._last = (module, *self._combined(parents, module))
        return self._last[1], self._last[2]

    def _combined(self, parents: Sequence[Factors], module: str) -> tuple[Tensor, Tensor]:
        """Return A' and B' of a module, of the sizes that were promised.

        Raises:
            InputError: an extension's method returns something else.
        """
        merged = self.method.combine(parents, self.options, module)
        A, B = merged
        if isinstance(merged, Truncated):
            self._record(module, merged)
        if self.method.origin is None:
            return A, B
        size, kept = self.modules[module], None if self.mask is None else self.mask.of(module)
        wanted = {"A": (size.rank, 0 if self.keyed else size.d_in), "B": (size.d_out, size.rank)}
        for side, matrix in (("A", A), ("B", B)):
            if tuple(matrix.shape) != wanted[side] or matrix.dtype != torch.float32:
                raise self._wrong(
                    f"{side}' of {module} is {list(matrix.shape)}, {matrix.dtype}; expected "
                    f"{list(wanted[side])}, torch.float32: mend the function, or its `rank`"
                )
            if not bool(matrix.isfinite().all()):
                raise self._wrong(f"{side}' of {module} holds values that are not finite numbers")
        if kept is not None and bool(B.reshape(-1)[torch.from_numpy(~kept)].any()):
            raise self._wrong(
                f"B' of {module} is other than zero where no adapter's B is; take away dense=False"
            )
        return A, B

    def _record(self, module: str, merged: Truncated) -> None:
        self._cuts[module] = (merged.norm, merged.lost)
        norms, losses = map(sum, zip(*self._cuts.values(), strict=True))
        self.truncation["lost"] = losses / norms if norms else 0.0
        share = merged.lost / merged.norm if merged.norm else 0.0
        self.truncation.setdefault("modules", {})[module] = share

    def _wrong(self, what: str) -> InputError:
        path = self.method.origin.path if self.method.origin else "merge method"
        return InputError(f"{path}: {self.name}: {what}")


def recipe(
    method: str, adapters: Sequence[Adapter], weights: Sequence[float], options: Options
) -> dict[str, Any]:
    """Return what a merge is made of; its digest is the merge's content key."""
    parents = [
        {
            "task": a.info.get("task"),
            "content_key": a.info.get("content_key") or a.info.get("recipe", {}).get("content_key"),
            "weight": weight,
        }
        for a, weight in zip(adapters, weights, strict=True)
    ]
    code = source_code.digests(MERGING)
    said = {"method": method, "parents": parents, "code": code, **options.used_by(method)}
    origin = MERGE_METHODS[method].origin
    if origin is not None:
        said["extension"] = {origin.path: origin.sha256}
    return said | {"content_key": digest(said)}


def _base(adapters: Sequence[Adapter]) -> BaseIdentity:
    """Return the identity that says most about the adapters' base."""
    bases = [adapter.base for adapter in adapters]
    return max(bases, key=lambda base: (bool(base.tensors), base.known, bool(base.name)))


def _unproved(adapters: Sequence[Adapter]) -> dict[str, list[int]]:
    """Return which parents, counted from 1, are for this base by their word or a user's alone."""
    numbers = [
        number
        for number, adapter in enumerate(adapters, start=1)
        if not adapter.base.known or adapter.info.keys() & {VOUCHED, UNPROVED}
    ]
    return {UNPROVED: numbers} if numbers else {}


def _check_alike(adapters: Sequence[Adapter]) -> None:
    check_one_base({f"adapter {number}": a for number, a in enumerate(adapters, start=1)})
    sizes: dict[str, tuple[int, int]] = {}
    for adapter in adapters:
        for name, module in adapter.modules.items():
            size = (module.d_in, module.d_out)
            if sizes.setdefault(name, size) != size:
                raise AdapterError(
                    f"adapters of different base models: {name} is {sizes[name][0]} to "
                    f"{sizes[name][1]} in one, {size[0]} to {size[1]} in another"
                )
