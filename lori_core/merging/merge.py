"""Merge LoRI and PEFT adapters module by module, without the base model (paper, section 2.2).

The merged adapter computes A and B of a module on access, so saving it needs memory for one module
at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lori_core.adapters.adapter import (
    Adapter,
    LayerSpec,
    OnDemand,
    ProjectionBlock,
    check_one_base,
    entries_in_mask,
)
from lori_core.adapters.masks.mask import Mask
from lori_core.core import source_code
from lori_core.core.errors import AdapterError, InputError
from lori_core.core.files.atomic import digest
from lori_core.core.stage_dependencies import MERGING
from lori_core.merging.catalogue import MERGE_METHODS
from lori_core.merging.merge_methods import Factors, Options, check_options
from lori_core.merging.on_safety import check_starts
from lori_core.merging.truncation import Truncated
from lori_core.models.base_identity import VOUCHED, BaseIdentity

#: One weight, or one for each module.
Weight = float | Mapping[str, float]
#: The key in a merged adapter's `info` that lists the parents whose base is not proved.
UNPROVED = "base_not_proved"
#: In a merge's `info`, for methods that can cut to a rank: the share of ‖ΔW‖² (Frobenius) that the
#: cut lost, over all modules (`lost`) and by module (`modules`).
TRUNCATION = "truncation"


def merge(
    method: str,
    adapters: Sequence[Adapter],
    weights: Sequence[Weight],
    options: Options | None = None,
    start: Adapter | None = None,
) -> Adapter:
    """Merge adapters of one base model into one adapter.

    Ranks, scalings and modules may differ; a module is merged from the adapters that have it.

    Args:
        method: a name of `merge_methods.MERGE_METHODS`.
        adapters: the adapters, in order.
        weights: one weight for each adapter, or one for each of its modules; may be negative.
        options: density and so on, for a method that uses them.
        start: for `on_safety`, the safety adapter that the others were trained from.

    Returns:
        The merged adapter; its matrices are computed on access.

    Raises:
        InputError: the method is unknown, or weights, options or `start` do not fit.
        AdapterError: the adapters have different bases, a module has different sizes, or an adapter
            was not trained from `start`.
    """
    options = options or Options()
    check_options(method, options)
    if len(weights) != len(adapters) or not adapters:
        raise InputError(f"{len(weights)} weights for {len(adapters)} adapters; give one each")
    for weight in [one for each in weights for one in _all(each)]:
        if not math.isfinite(weight):
            raise InputError(f"weight {weight} is not a finite number")
    if MERGE_METHODS[method].starts != (start is not None):
        fit = ", ".join(name for name, known in MERGE_METHODS.items() if known.starts)
        raise InputError(
            f"{method}: name the safety adapter that the others were trained from"
            if start is None
            else f"{method}: only {fit} merges onto a safety adapter; name none"
        )
    _check_alike(adapters if start is None else [*adapters, start])
    if start is not None:
        check_starts(start, _named(adapters))
        adapters, weights = [start, *adapters], [1.0, *weights]
    return _Merge(method, adapters, weights, options).adapter()


def _all(weight: Weight) -> Iterable[float]:
    return weight.values() if isinstance(weight, Mapping) else (weight,)


def _named(adapters: Sequence[Adapter]) -> Mapping[str, Adapter]:
    """Return the adapters by their names in messages."""
    known = (a.info.get("stage") or a.info.get("task") or "no task" for a in adapters)
    names = (f"adapter {number} ({what})" for number, what in enumerate(known, start=1))
    return dict(zip(names, adapters, strict=True))


class _Merge:
    """Merges one module at a time; caches the last one, as A and B are read one after the other."""

    def __init__(
        self,
        method: str,
        adapters: Sequence[Adapter],
        weights: Sequence[Weight],
        options: Options,
    ) -> None:
        self.name = method
        self.method = MERGE_METHODS[method]
        self.adapters = adapters
        self.weights = weights
        self.options = options
        same = all(adapter.modules.keys() == adapters[0].modules.keys() for adapter in adapters)
        #: The keys that the merged A is drawn from; empty if A must be computed and stored.
        self.blocks: tuple[ProjectionBlock, ...] = ()
        if self.method.starts:
            self.blocks = adapters[0].blocks
        elif self.method.stacks and same and all(a.blocks for a in adapters):
            self.blocks = tuple(b for a in adapters for b in a.blocks)
        self.keyed = bool(self.blocks)
        names = dict.fromkeys(name for adapter in adapters for name in adapter.modules)
        self.modules = {name: self._module(name) for name in names}
        self.mask = self._mask()
        self._last: tuple[str, Tensor, Tensor] | None = None
        #: ‖ΔW‖² and what the cut lost of it, of each module that was computed.
        self._cuts: dict[str, tuple[float, float]] = {}
        self.truncation: dict[str, Any] = {}

    def adapter(self) -> Adapter:
        """Return the merged adapter, whose matrices are computed on access."""
        matched = sorted({target for adapter in self.adapters for target in adapter.targets})
        return Adapter(
            base=_base(self.adapters),
            modules=self.modules,
            blocks=self.blocks,
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

    def _weight(self, index: int, module: str) -> float:
        weight = self.weights[index]
        return weight[module] if isinstance(weight, Mapping) else weight

    def _parents(self, module: str) -> list[tuple[int, Adapter]]:
        """Return the adapters that have a module, with their indices."""
        return [(i, a) for i, a in enumerate(self.adapters) if module in a.modules]

    def _module(self, name: str) -> LayerSpec:
        parents = [adapter.modules[name] for _, adapter in self._parents(name)]
        first = parents[0]
        rank = self.method.rank([p.rank for p in parents], (first.d_in, first.d_out), self.options)
        # lora_alpha = rank gives scaling 1; the factors include the parents' scalings.
        return LayerSpec(first.d_in, first.d_out, rank, rank)

    def _mask(self) -> Mask | None:
        """Return the entries of B that can be nonzero; None if these are (nearly) all."""
        if self.method.dense or any(adapter.mask is None for adapter in self.adapters):
            return None
        shapes = {name: (module.d_out, module.rank) for name, module in self.modules.items()}
        return Mask.from_parts(shapes, map(self._module_mask, self.modules))

    def _module_mask(self, module: str) -> np.ndarray:
        """Return a module's mask, flat booleans: the parents' masks side by side or their union."""
        d_out, rank = self.modules[module].d_out, self.modules[module].rank
        parts = [
            adapter.mask.of(module).reshape(d_out, -1)
            for _, adapter in self._parents(module)
            if adapter.mask is not None
        ]
        if self.method.stacks:
            return np.concatenate(parts, axis=1).reshape(-1)
        mask = np.zeros((d_out, rank), dtype=bool)
        for part in parts:
            mask[:, : part.shape[1]] |= part
        return mask.reshape(-1)

    def _values(self, module: str) -> Tensor:
        """Return the values of the merged B inside the mask, flat."""
        if self.keyed and self.method.stacks and self.mask is not None:
            return self._stacked_values(self.mask.of(module), module)
        mask = None if self.mask is None else self.mask.of(module)
        return entries_in_mask(self._factors(module)[1], mask, module)

    def _stacked_values(self, mask: np.ndarray, module: str) -> Tensor:
        """Return the values of all w_t·s_t·B_t, stacked along the rank, without forming any B.

        The values of one parent keep their order, so only the parent of each entry inside the mask
        must be known.
        """
        parents = self._parents(module)
        ranks = [adapter.modules[module].rank for _, adapter in parents]
        column = np.repeat(np.arange(len(parents), dtype=np.uint16), ranks)
        owner = np.tile(column, mask.size // column.size)[mask]
        shares = [self._weight(i, module) * adapter.scaling(module) for i, adapter in parents]
        parts = [a.values[module].float() * s for s, (_, a) in zip(shares, parents, strict=True)]
        values = torch.empty(owner.size)
        values[torch.from_numpy(np.argsort(owner, kind="stable"))] = torch.cat(parts)
        return values

    def _factors(self, module: str) -> tuple[Tensor, Tensor]:
        """Return the merged A and B of a module."""
        if self._last is None or self._last[0] != module:
            parents = [
                Factors(
                    A=torch.empty(a.modules[module].rank, 0) if self.keyed else a.A(module),
                    B=a.B(module),
                    weight=self._weight(index, module),
                    scaling=a.scaling(module),
                    index=index,
                )
                for index, a in self._parents(module)
            ]
            self._last = (module, *self._combined(parents, module))
        return self._last[1], self._last[2]

    def _combined(self, parents: Sequence[Factors], module: str) -> tuple[Tensor, Tensor]:
        """Return A' and B' of a module, checked if an extension computes them.

        Raises:
            InputError: an extension's method returns wrong shapes, dtypes or values.
        """
        merged = self.method.combine(parents, self.options, module)
        A, B = merged
        if isinstance(merged, Truncated):
            self._record(module, merged)
        if self.method.origin is None:
            return A, B
        size, mask = self.modules[module], None if self.mask is None else self.mask.of(module)
        expected = {"A": (size.rank, 0 if self.keyed else size.d_in), "B": (size.d_out, size.rank)}
        for side, matrix in (("A", A), ("B", B)):
            if tuple(matrix.shape) != expected[side] or matrix.dtype != torch.float32:
                raise self._wrong(
                    f"{side}' of {module} is {list(matrix.shape)}, {matrix.dtype}; expected "
                    f"{list(expected[side])}, torch.float32: correct the function, or its `rank`"
                )
            if not bool(matrix.isfinite().all()):
                raise self._wrong(f"{side}' of {module} holds values that are not finite numbers")
        if mask is not None and bool(B.reshape(-1)[torch.from_numpy(~mask)].any()):
            raise self._wrong(
                f"B' of {module} is nonzero where every adapter's B is zero; remove dense=False"
            )
        return A, B

    def _record(self, module: str, merged: Truncated) -> None:
        self._cuts[module] = (merged.norm, merged.lost)
        norms, losses = map(sum, zip(*self._cuts.values(), strict=True))
        self.truncation["lost"] = losses / norms if norms else 0.0
        share = merged.lost / merged.norm if merged.norm else 0.0
        self.truncation.setdefault("modules", {})[module] = share

    def _wrong(self, what: str) -> InputError:
        """Return the error for a wrong result of an extension's merge method."""
        path = self.method.origin.path if self.method.origin else "merge method"
        return InputError(f"{path}: {self.name}: {what}")


def recipe(
    method: str, adapters: Sequence[Adapter], weights: Sequence[Weight], options: Options
) -> dict[str, Any]:
    """Return the recipe of a merge: method, parents, options and code, with its digest.

    The digest is the merged adapter's content key. A parent with a weight for each module has these
    as `weights`, and their mean as `weight`.
    """
    parents = [
        {
            "task": a.info.get("task"),
            "content_key": a.info.get("content_key") or a.info.get("recipe", {}).get("content_key"),
            **_recorded(weight),
        }
        for a, weight in zip(adapters, weights, strict=True)
    ]
    code = source_code.digests(MERGING)
    content = {"method": method, "parents": parents, "code": code, **options.used_by(method)}
    origin = MERGE_METHODS[method].origin
    if origin is not None:
        content["extension"] = {origin.path: origin.sha256}
    return content | {"content_key": digest(content)}


def _recorded(weight: Weight) -> dict[str, Any]:
    if not isinstance(weight, Mapping):
        return {"weight": weight}
    values = list(weight.values())
    if len(set(values)) == 1:
        return {"weight": values[0]}
    return {"weight": math.fsum(values) / len(values), "weights": dict(weight)}


def _base(adapters: Sequence[Adapter]) -> BaseIdentity:
    """Return the most complete identity of the base among those of the adapters."""
    bases = [adapter.base for adapter in adapters]
    return max(bases, key=lambda base: (bool(base.tensors), base.known, bool(base.name)))


def _unproved(adapters: Sequence[Adapter]) -> dict[str, list[int]]:
    """Return the numbers, from 1, of the parents whose base is claimed but not proved."""
    numbers = [
        number
        for number, adapter in enumerate(adapters, start=1)
        if not adapter.base.known or adapter.info.keys() & {VOUCHED, UNPROVED}
    ]
    return {UNPROVED: numbers} if numbers else {}


def _check_alike(adapters: Sequence[Adapter]) -> None:
    """Refuse adapters of different bases, or whose modules have different sizes."""
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
