"""A sparse adapter: what it is in memory, its compact file, and how it gets onto a model.

The file (version 1) is a folder with two files. `adapter.json` says what it is: base, modules,
rank, alpha, the keys that A is drawn from with A's SHA-256, where it came from, and the SHA-256 of
`adapter.safetensors`, which holds `values` (B's entries in mask order), `mask` (packed bits, absent
for a dense B), and `A.<module>` only where A cannot be drawn from keys (a linear merge).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lori_core import peft_names, projection
from lori_core.errors import AdapterError
from lori_core.files import read_json, replaced_folder, sha256_file, write_json
from lori_core.mask import Mask, Shapes
from lori_core.models import BaseIdentity
from lori_core.sparse import pack, packed_values

VERSION = 1
JSON_FILE = "adapter.json"
TENSOR_FILE = "adapter.safetensors"


@dataclass(frozen=True)
class ProjectionBlock:
    """`rank` rows of A, drawn from (seed, key)."""

    seed: int
    key: str
    rank: int


@dataclass(frozen=True)
class Adapter:
    """ΔW = (lora_alpha / rank) · B @ A for each module.

    Attributes:
        base: the base model it belongs to.
        modules: (d_in, d_out) by module name, in the model's order.
        rank: rows of A, columns of B.
        lora_alpha: numerator of the scaling.
        blocks: the keys A is drawn from, stacked along the rank; empty if A is `stored`.
        mask: the entries of B that may be other than zero; None for all.
        values: B's entries in mask order, one vector over all modules, [mask.count].
        stored: A by module, [rank, d_in], float32, where it is not drawn from keys.
        info: method, task, content key, recipe: where it came from.
        fan_in_fan_out: whether the base keeps its weights as [d_in, d_out] (GPT-2).
    """

    base: BaseIdentity
    modules: dict[str, tuple[int, int]]
    rank: int
    lora_alpha: float
    blocks: tuple[ProjectionBlock, ...]
    mask: Mask | None
    values: Tensor
    stored: dict[str, Tensor] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    fan_in_fan_out: bool = False

    @property
    def scaling(self) -> float:
        """What B @ A is multiplied with."""
        return self.lora_alpha / self.rank

    @property
    def shapes(self) -> Shapes:
        """The shapes of B, (d_out, rank), by module."""
        return {name: (d_out, self.rank) for name, (_, d_out) in self.modules.items()}

    @property
    def targets(self) -> list[str]:
        """The last parts of the modules' names."""
        return sorted({name.rsplit(".", 1)[-1] for name in self.modules})

    @cached_property
    def A(self) -> dict[str, Tensor]:  # noqa: N802 - the paper's letter
        """`lora_A.weight` by module, [rank, d_in], float32."""
        if self.stored is not None:
            return self.stored
        return draw_blocks(self.blocks, self.modules)

    @cached_property
    def B(self) -> dict[str, Tensor]:  # noqa: N802 - the paper's letter
        """`lora_B.weight` by module, dense, [d_out, rank], float32."""
        total = sum(rows * columns for rows, columns in self.shapes.values())
        flat = torch.zeros(total)
        if self.mask is None:
            flat.copy_(self.values)
        else:
            flat[torch.from_numpy(self.mask.flat)] = self.values.float()
        sizes = [rows * columns for rows, columns in self.shapes.values()]
        parts = torch.split(flat, sizes)
        return {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}

    def delta(self, module: str) -> Tensor:
        """Return ΔW of one module, [d_out, d_in], float32."""
        return self.scaling * (self.B[module] @ self.A[module])


def draw_blocks(
    blocks: tuple[ProjectionBlock, ...], modules: Mapping[str, tuple[int, int]]
) -> dict[str, Tensor]:
    """Draw A of every module: the blocks' matrices stacked along the rank, float32."""
    return {
        name: torch.cat([projection.draw(b.seed, b.key, name, b.rank, d_in) for b in blocks])
        for name, (d_in, _) in modules.items()
    }


def from_dense(
    base: BaseIdentity,
    modules: dict[str, tuple[int, int]],
    lora_alpha: float,
    blocks: tuple[ProjectionBlock, ...],
    B: Mapping[str, Tensor],
    mask: Mask | None,
    dtype: torch.dtype,
    info: dict[str, Any],
    stored: dict[str, Tensor] | None = None,
    fan_in_fan_out: bool = False,
) -> Adapter:
    """Pack dense B's, [d_out, rank], into an adapter; entries outside the mask must be zero.

    Raises:
        AdapterError: if B holds something outside the mask.
    """
    flat = torch.cat([B[name].detach().float().cpu().reshape(-1) for name in modules])
    if mask is not None:
        kept = torch.from_numpy(mask.flat)
        if bool(flat[~kept].any()):
            raise AdapterError("B has entries other than zero outside its mask")
        flat = flat[kept]
    rank = next(iter(B.values())).shape[1]
    return Adapter(
        base, modules, rank, lora_alpha, blocks, mask, flat.to(dtype), stored, info, fan_in_fan_out
    )


def save(adapter: Adapter, folder: Path) -> None:
    """Write an adapter's folder atomically; what was there before is replaced."""
    tensors = {"values": adapter.values.contiguous()}
    if adapter.mask is not None:
        tensors["mask"] = torch.from_numpy(adapter.mask.bits)
    for name, matrix in (adapter.stored or {}).items():
        tensors[f"A.{name}"] = matrix.contiguous()
    with replaced_folder(folder) as work:
        save_file(tensors, work / TENSOR_FILE, metadata={"format": f"lori-adapter/{VERSION}"})
        (work / TENSOR_FILE).chmod(0o644)
        write_json(
            work / JSON_FILE,
            {
                "format": f"lori-adapter/{VERSION}",
                "base": adapter.base.as_dict(),
                "modules": [[name, *sizes] for name, sizes in adapter.modules.items()],
                "rank": adapter.rank,
                "lora_alpha": adapter.lora_alpha,
                "fan_in_fan_out": adapter.fan_in_fan_out,
                "projection": {
                    "generator": projection.GENERATOR,
                    "blocks": [asdict(block) for block in adapter.blocks],
                    "sha256": projection.fingerprint(adapter.A),
                },
                "trainable": adapter.values.numel(),
                "info": adapter.info,
                "sha256": sha256_file(work / TENSOR_FILE),
            },
        )


def load(folder: Path) -> Adapter:
    """Read an adapter's folder and verify it: bytes, format, generator, and A itself.

    Raises:
        AdapterError: naming what does not fit.
    """
    if not (folder / JSON_FILE).is_file():
        raise AdapterError(f"{folder}: no adapter here ({JSON_FILE} is missing)")
    said = read_json(folder / JSON_FILE)
    if said.get("format") != f"lori-adapter/{VERSION}":
        raise AdapterError(f"{folder}: format {said.get('format')!r} is not known to this version")
    file = folder / TENSOR_FILE
    if not file.is_file() or sha256_file(file) != said["sha256"]:
        raise AdapterError(f"{file}: damaged or missing (its SHA-256 is not {said['sha256']})")
    if said["projection"]["generator"] != projection.GENERATOR:
        raise AdapterError(
            f"{folder}: A was drawn by {said['projection']['generator']!r}; "
            f"this version draws with {projection.GENERATOR!r}"
        )
    adapter = _assemble(said, _tensors(file))
    if projection.fingerprint(adapter.A) != said["projection"]["sha256"]:
        raise AdapterError(f"{folder}: A drawn from its keys is not the A it was trained with")
    return adapter


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
        return tensors
    except SafetensorError as error:
        raise AdapterError(f"{file}: not a safetensors file ({error})") from None


def _assemble(said: dict[str, Any], tensors: dict[str, Tensor]) -> Adapter:
    modules = {name: (d_in, d_out) for name, d_in, d_out in said["modules"]}
    shapes = {name: (d_out, said["rank"]) for name, (_, d_out) in modules.items()}
    bits = tensors.pop("mask", None)
    values = tensors.pop("values")
    return Adapter(
        base=BaseIdentity(**said["base"]),
        modules=modules,
        rank=said["rank"],
        lora_alpha=said["lora_alpha"],
        blocks=tuple(ProjectionBlock(**block) for block in said["projection"]["blocks"]),
        mask=None if bits is None else Mask(shapes, bits.numpy()),
        values=values,
        stored={n: tensors[f"A.{n}"] for n in modules} if tensors else None,
        info=said["info"],
        fan_in_fan_out=said["fan_in_fan_out"],
    )


def check_base(adapter: Adapter, base: BaseIdentity, where: str) -> None:
    """Refuse a base model whose config or weights are not those of the adapter's."""
    for part in ("config", "weights"):
        if getattr(adapter.base, part) != getattr(base, part):
            raise AdapterError(
                f"{where}: made for the base {adapter.base.name!r}, whose {part} differ from "
                f"{base.name!r}; use that base"
            )


def attach(
    model: nn.Module,
    modules: Mapping[str, tuple[int, int]],
    A: Mapping[str, Tensor],
    rank: int,
    lora_alpha: float,
    dropout: float = 0.0,
) -> Any:
    """Wrap a base model in a PEFT model with frozen A and B = 0, in the base's dtype.

    Args:
        model: the base model; PEFT replaces its target modules in place.
        modules: the targets with (d_in, d_out).
        A: [rank, d_in], float32, by module.
        rank: rows of A.
        lora_alpha: numerator of the scaling.
        dropout: on the adapter's input, while training.

    Raises:
        AdapterError: if the model has other modules than the adapter.
    """
    from peft import get_peft_model

    targets = sorted({name.rsplit(".", 1)[-1] for name in modules})
    config = peft_names.lora_config(rank, lora_alpha, targets, dropout)
    config.fan_in_fan_out = peft_names.fan_in_fan_out(model, modules)
    wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)
    layers = peft_names.lora_layers(wrapped)
    if list(layers) != list(modules):
        odd = next(iter(set(layers) ^ set(modules)), "their order")
        raise AdapterError(f"the model's modules are not the adapter's (they differ in {odd})")
    for name, layer in layers.items():
        down, up = layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER]
        dtype, place = _compute_dtype(wrapped), down.weight.device
        down.weight = nn.Parameter(A[name].to(place, dtype), requires_grad=False)
        up.weight = nn.Parameter(torch.zeros_like(up.weight, dtype=dtype), requires_grad=False)
    return wrapped


def _compute_dtype(model: Any) -> torch.dtype:
    dtype = model.get_base_model().dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def load_weights(model: Any, adapter: Adapter) -> None:
    """Put an adapter's B onto a model that `attach` made with its A."""
    for name, layer in peft_names.lora_layers(model).items():
        up = layer.lora_B[peft_names.ADAPTER]
        up.weight.data = adapter.B[name].to(up.weight.device, up.weight.dtype)


def make_trainable(
    model: Any, positions: Mapping[str, Tensor] | None, start: Mapping[str, Tensor] | None
) -> None:
    """Make B trainable: packed at `positions` (None: all of it), beginning at `start` (None: 0)."""
    for name, layer in peft_names.lora_layers(model).items():
        up = layer.lora_B[peft_names.ADAPTER]
        dense = torch.zeros_like(up.weight, dtype=torch.float32) if start is None else start[name]
        pack(up, dense, None if positions is None else positions[name], _compute_dtype(model))


def trained_values(model: Any) -> dict[str, nn.Parameter]:
    """Return the packed trainable vectors by module, float32."""
    return {
        name: packed_values(layer.lora_B[peft_names.ADAPTER])
        for name, layer in peft_names.lora_layers(model).items()
    }


def trained_B(  # noqa: N802 - the paper's letter
    model: Any, positions: Mapping[str, Tensor] | None, start: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return B after training, dense float32: `start` with the trained values put in."""
    result = {}
    layers = peft_names.lora_layers(model)
    for name, values in trained_values(model).items():
        shape = layers[name].lora_B[peft_names.ADAPTER].weight.shape
        dense = torch.zeros(shape) if start is None else start[name].clone()
        if positions is None:
            dense = values.detach().cpu().view(shape).clone()
        else:
            dense.view(-1)[positions[name]] = values.detach().cpu()
        result[name] = dense
    return result


def export_peft(adapter: Adapter, folder: Path) -> None:
    """Write a stock PEFT adapter folder with the same A and B, float32, bit for bit."""
    config = peft_names.lora_config(adapter.rank, adapter.lora_alpha, adapter.targets)
    config.base_model_name_or_path = adapter.base.name
    config.fan_in_fan_out = adapter.fan_in_fan_out
    config.revision = adapter.base.revision or None
    config.inference_mode = True
    tensors = {}
    for name in adapter.modules:
        tensors[peft_names.weight_key(name, "A")] = adapter.A[name].contiguous()
        tensors[peft_names.weight_key(name, "B")] = adapter.B[name].contiguous()
    with replaced_folder(folder) as work:
        save_file(tensors, work / peft_names.WEIGHTS_FILE, metadata={"format": "pt"})
        config.save_pretrained(work)
