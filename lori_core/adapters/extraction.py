"""A low-rank adapter from a fully fine-tuned model: the best approximation of what it changed.

No model is loaded. The weight files are read a tensor at a time; what is held is the adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lori_core.adapters.adapter import Adapter, LayerSpec
from lori_core.adapters.low_rank import leading_svd
from lori_core.core.errors import InputError, ModelError
from lori_core.core.files import finite
from lori_core.core.files.atomic import digest
from lori_core.core.files.tensor_file import TensorFile
from lori_core.models import base_files, base_model, base_tensors, peft_names
from lori_core.models.base_identity import BaseIdentity, differing_settings
from lori_core.models.weight_names import Place, WeightNames, sources_by_place, tied_parameters

#: In an extracted adapter's `info`: the rank asked for, the share of the squared norm of the
#: difference that was kept, over all modules (`kept`) and by module (`modules`), and the parameters
#: and the settings (`config.json: KEY`) that differ and were left out (`ignored`).
EXTRACTION = "extraction"
#: Names in an error.
_SHOWN = 5


@dataclass(frozen=True)
class Model:
    """A model folder.

    Attributes:
        folder: with safetensors weights.
        identity: of its content.
    """

    folder: Path
    identity: BaseIdentity


@dataclass(frozen=True)
class _Stored:
    """A model's tensors as they are stored.

    Attributes:
        files: the weight file of each tensor.
        linear: the tensor of each linear layer, and whether it is kept as [d_in, d_out].
        others: the other tensors by what transformers makes of them.
    """

    files: dict[str, TensorFile]
    linear: dict[str, tuple[str, bool]]
    others: dict[Place, list[str]]

    def read(self, name: str) -> Tensor:
        """Return a tensor in the dtype it is stored in.

        Raises:
            ModelError: it holds NaN or infinity.
        """
        tensor = self.files[name][name]
        found = finite.fault(tensor)
        if found is not None:
            raise ModelError(
                f"{self.files[name].path}: {name} holds {found}: weights must be finite numbers; "
                "bring the model anew"
            )
        return tensor


def extract(base: Model, tuned: Model, rank: int, *, ignore_others: bool = False) -> Adapter:
    """Return the adapter of a rank that is nearest to what fine-tuning changed.

    For each linear layer whose weight W differs, B @ A is the best approximation (Frobenius) of
    W_tuned − W_base, taken in float32, of the rank min(rank, d_in, d_out); both factors carry √σ,
    and the scaling is 1.

    Args:
        base: what was fine-tuned.
        tuned: the result.
        rank: at least 1.
        ignore_others: whether changes of other parameters, and of settings that decide what the
            model computes, are left out; they are recorded.

    Raises:
        InputError: both are one folder; another parameter or a setting differs; or no linear layer
            does.
        ModelError: models of different architectures or shapes, or weights that are incomplete,
            damaged, quantised, or hold NaN or infinity.
    """
    if base.folder.samefile(tuned.folder):
        raise InputError(f"{tuned.folder}: is the base itself; name the fine-tuned model's folder")
    outline, tuned_outline = (base_model.outline(side.folder) for side in (base, tuned))
    _check_alike(outline, tuned_outline, base.folder, tuned.folder)
    sizes = _own_linear_layers(outline)
    before, after = (_stored(side.folder, outline, sizes) for side in (base, tuned))
    settings = differing_settings(outline.config.to_dict(), tuned_outline.config.to_dict())
    others = [f"config.json: {key}" for key in settings]
    others += _differing_others(before, after, tied_parameters(outline))
    if others and not ignore_others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise InputError(
            f"{tuned.folder}: more than linear layers' weights differs from the base: "
            f"{', '.join(others[:_SHOWN])}{more}; an adapter cannot hold it: leave these changes "
            "out with --ignore-others"
        )
    found = _Factors(rank)
    for module in sizes:
        found.add(module, before, after)
    if not found.modules:
        raise InputError(
            f"{tuned.folder}: no linear layer differs from the base {base.folder}; name the "
            "fine-tuned model"
        )
    content = {"base": base.identity.content(), "tuned": tuned.identity.content(), "rank": rank}
    return Adapter(
        base=base.identity,
        modules=found.modules,
        blocks=(),
        mask=None,
        values=found.B,
        stored=found.A,
        info={
            "method": "extract",
            "task": tuned.folder.name,
            "content_key": digest(content),
            EXTRACTION: found.kept() | {"rank": rank, "ignored": others},
        },
        fan_in_fan_out=peft_names.fan_in_fan_out(outline, found.modules),
        matched_by=tuple(peft_names.targets_of(outline, found.modules)),
    )


def _check_alike(base: Any, tuned: Any, base_folder: Path, tuned_folder: Path) -> None:
    """Refuse outlines of different classes or shapes."""
    if type(base) is not type(tuned):
        raise ModelError(
            f"{tuned_folder}: is a {type(tuned).__name__}, and the base {base_folder} a "
            f"{type(base).__name__}; name the base that was fine-tuned"
        )
    ours, theirs = (
        {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        for model in (base, tuned)
    )
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise ModelError(
                f"{tuned_folder}: {name} is {theirs.get(name, 'missing')}, and "
                f"{ours.get(name, 'missing')} in the base {base_folder}; name the base that was "
                "fine-tuned"
            )


def _own_linear_layers(outline: Any) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of the linear layers that share their weight with no other module."""
    shared = tied_parameters(outline)
    layers = peft_names.linear_features(outline)
    return {name: size for name, size in layers.items() if f"{name}.weight" not in shared}


def _stored(folder: Path, outline: Any, sizes: dict[str, tuple[int, int]]) -> _Stored:
    files = [base_files.opened(path) for path in base_files.weight_files(folder)]
    targets = base_tensors.targets(folder, files, sizes)
    places = {name: file for file in files for name in file}
    rest = [name for name in places if name not in targets]
    return _Stored(
        places,
        {target.module: (name, target.transposed) for name, target in targets.items()},
        sources_by_place(WeightNames(outline), rest),
    )


def _differing_others(
    before: _Stored, after: _Stored, shared: dict[str, list[str]]
) -> Iterator[str]:
    """Yield the names of parameters that are no linear layers' weights and differ."""
    for place in dict.fromkeys([*before.others, *after.others]):
        ours, theirs = (_at(stored, place, shared) for stored in (before, after))
        alike = ours and len(ours) == len(theirs)
        if not alike or not all(
            _equal(before.read(one), after.read(two)) for one, two in zip(ours, theirs, strict=True)
        ):
            yield place.parameter


def _at(stored: _Stored, place: Place, shared: dict[str, list[str]]) -> list[str]:
    """Return the tensors that make a parameter, or another of the names that it shares."""
    for name in (place.parameter, *shared.get(place.parameter, ())):
        found = stored.others.get(place._replace(parameter=name))
        if found:
            return sorted(found)
    return []


def _equal(first: Tensor, second: Tensor) -> bool:
    if first.dtype == second.dtype:
        return torch.equal(first, second)
    return torch.equal(first.float(), second.float())


class _Factors:
    """The adapter's factors, filled a module at a time."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.modules: dict[str, LayerSpec] = {}
        self.A: dict[str, Tensor] = {}
        self.B: dict[str, Tensor] = {}
        #: ‖ΔW‖² and how much of it was kept.
        self._norms: dict[str, tuple[float, float]] = {}

    def add(self, module: str, before: _Stored, after: _Stored) -> None:
        """Decompose a module's difference; one without a difference gets no adapter."""
        weight, (name, transposed) = before.read(before.linear[module][0]), after.linear[module]
        tuned = after.read(name)
        if _equal(weight, tuned):
            return
        delta = tuned.float() - weight.float()
        if transposed:
            delta = delta.T.contiguous()
        norm = float(delta.double().square().sum())
        if not norm < float("inf"):
            raise ModelError(
                f"{after.files[name].path}: {name}: its difference from the base is not finite in "
                "float32; bring both models anew"
            )
        u, s, vh = leading_svd(delta, self.rank)
        root = s.sqrt()
        self.A[module] = (root[:, None] * vh).contiguous()
        self.B[module] = (u * root).reshape(-1)
        d_out, d_in = delta.shape
        self.modules[module] = LayerSpec(d_in, d_out, len(s), float(len(s)))
        self._norms[module] = (norm, min(norm, float(s.double().square().sum())))

    def kept(self) -> dict[str, Any]:
        """Return the share of the squared norm that was kept, of all modules and of each."""
        norms, kept = map(sum, zip(*self._norms.values(), strict=True))
        shares = {name: part / norm for name, (norm, part) in self._norms.items()}
        return {"kept": kept / norms, "modules": shares}
