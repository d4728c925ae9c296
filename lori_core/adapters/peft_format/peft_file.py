"""Read and write PEFT adapter folders, without a model.

An export adds base identity, keys of A and origin to the safetensors metadata, which PEFT ignores.
So an exported adapter is read back unchanged, with its keys and its content key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import (
    Adapter,
    LayerSpec,
    OnDemand,
    ProjectionBlock,
    draw,
    entries_in_mask,
    is_block,
    is_info,
)
from lori_core.adapters.masks.mask import Mask
from lori_core.adapters.peft_format import base_copies, peft_config, peft_modules
from lori_core.core.errors import AdapterError
from lori_core.core.files.atomic import (
    ZERO_DIGEST,
    canonical_json,
    digest,
    is_sealed,
    json_text,
    replaced_folder,
    seal,
    sha256_file,
    write_text,
)
from lori_core.core.files.json_input import loads
from lori_core.core.files.tensor_file import DTYPE_NAMES, Spec, TensorFile, write
from lori_core.models import peft_names
from lori_core.models.base_identity import BaseIdentity

METADATA = "lori"
#: The largest ranks that vLLM's LoRA kernels are built for (`--max-lora-rank`).
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
#: The metadata that holds the SHA-256 of the whole file, with these digits as zeros.
SEAL = "lori_sha256"

_log = logging.getLogger(__name__)


def open_adapter(folder: Path, *, verify_projection: bool = True, copies: bool = False) -> Adapter:
    """Read an adapter's folder, in this project's compact format or PEFT's.

    Args:
        folder: the adapter's folder.
        verify_projection: see `adapter_file.load`.
        copies: see `import_peft`.

    Raises:
        AdapterError: the folder is in neither format, or cannot be used.
    """
    if (folder / adapter_file.JSON_FILE).is_file():
        return adapter_file.load(folder, verify_projection=verify_projection)
    if (folder / peft_names.CONFIG_FILE).is_file():
        return import_peft(folder, copies=copies)
    raise AdapterError(
        f"{folder}: no adapter here (neither {adapter_file.JSON_FILE} nor {peft_names.CONFIG_FILE})"
    )


def export_peft(adapter: Adapter, folder: Path, *, serving: str | None = None) -> None:
    """Write a standard PEFT adapter folder with the same A and B, bit for bit.

    A and B are written as float32, or in the dtype of the PEFT folder that the adapter came from.

    Args:
        adapter: the adapter to write.
        folder: the folder to write; an existing one is replaced.
        serving: `vllm` writes one rank and alpha that vLLM supports: A and B are padded with
            zeros, and differing scalings are multiplied into B.

    Raises:
        AdapterError: the rank is larger than vLLM supports.
    """
    if serving == "vllm":
        adapter = _for_vllm(adapter)
    specs: dict[str, Spec] = {}
    dtype = torch.float32 if adapter.stored is None else adapter.dtype
    for name, size in adapter.modules.items():
        specs[peft_names.weight_key(name, "A")] = Spec(dtype, (size.rank, size.d_in))
        specs[peft_names.weight_key(name, "B")] = Spec(dtype, (size.d_out, size.rank))
    metadata = {"format": "pt", SEAL: ZERO_DIGEST, METADATA: canonical_json(_origin(adapter))}
    with replaced_folder(folder) as work:
        file = work / peft_names.WEIGHTS_FILE
        write(file, specs, _tensors(adapter, dtype), metadata)
        seal(file)
        write_text(work / peft_names.CONFIG_FILE, json_text(_config(adapter)))


def _tensors(adapter: Adapter, dtype: torch.dtype) -> Iterator[Tensor]:
    for name in adapter.modules:
        yield adapter.A(name).to(dtype)
        yield adapter.B(name).to(dtype)


def _config(adapter: Adapter) -> dict[str, Any]:
    config = peft_names.lora_config(adapter.modules, adapter.targets, 0.0, adapter.use_rslora)
    config.base_model_name_or_path = adapter.base.name or None
    config.revision = adapter.base.revision or None
    config.fan_in_fan_out = adapter.fan_in_fan_out
    config.inference_mode = True
    return peft_names.config_dict(config)


def _origin(adapter: Adapter) -> dict[str, Any]:
    return {
        "config": peft_config.decisive_digest(_config(adapter)),
        "base": adapter.base.as_dict(),
        "blocks": [asdict(block) for block in adapter.blocks],
        "dtype": str(adapter.dtype).removeprefix("torch."),
        "info": adapter.info,
    }


def _for_vllm(adapter: Adapter) -> Adapter:
    rank = next((rank for rank in VLLM_RANKS if rank >= adapter.rank), None)
    if rank is None:
        raise AdapterError(
            f"rank {adapter.rank} is larger than vLLM can serve ({VLLM_RANKS[-1]}); "
            "merge with --method svd --rank, or export --to merged"
        )
    scalings = {adapter.scaling(name) for name in adapter.modules}
    common = scalings.pop() if len(scalings) == 1 else 1.0

    def wide_a(name: str) -> Tensor:
        matrix = adapter.A(name)
        return torch.cat([matrix, matrix.new_zeros(rank - matrix.shape[0], matrix.shape[1])])

    def wide_b(name: str) -> Tensor:
        matrix = adapter.B(name) * (1.0 if not scalings else adapter.scaling(name))
        padding = matrix.new_zeros(matrix.shape[0], rank - matrix.shape[1])
        return torch.cat([matrix, padding], dim=1).reshape(-1)

    return replace(
        adapter,
        modules={
            name: LayerSpec(m.d_in, m.d_out, rank, common * rank)
            for name, m in adapter.modules.items()
        },
        blocks=(),
        mask=None,
        values=OnDemand(adapter.modules, wide_b),
        stored=OnDemand(adapter.modules, wide_a),
        dtype=torch.float32,
        use_rslora=False,
    )


def import_peft(folder: Path, *, copies: bool = False) -> Adapter:
    """Read a PEFT LoRA folder; its tensors are read on access.

    Args:
        folder: the folder.
        copies: whether the caller compares copies of base weights with the base, by
            `base_choice.without_copies`; otherwise an adapter with such copies is refused.

    Raises:
        AdapterError: the folder is not a plain LoRA on linear layers. Anything beyond
            `scaling · B @ A` is refused, never ignored.
    """
    config = peft_config.read(folder)
    file = TensorFile(_weights(folder))
    keys = peft_modules.keys_in(file)
    file.check_finite()
    modules = peft_modules.modules_of(folder, config, file, keys)
    origin = _export_metadata(file)
    dtype = _common_dtype(file)
    info = _info(folder, config, file, origin)
    copied = base_copies.facts(file, peft_modules.copies_in(file))
    plain = Adapter(
        base=origin.base if origin else _named_base(config),
        modules=modules,
        blocks=(),
        mask=None,
        values=OnDemand(modules, lambda name: file[keys[name].B].to(dtype).reshape(-1)),
        stored=OnDemand(modules, lambda name: file[keys[name].A].to(dtype)),
        dtype=dtype,
        info=info | {base_copies.COPIES: copied} if copied else info,
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        use_rslora=bool(config.get("use_rslora")),
        matched_by=_matched_by(config, modules),
    )
    if not copies:
        base_copies.refuse(plain, str(folder))
    return _with_mask(plain) if origin is None else _with_keys(_with_mask(plain), origin)


class _ExportMetadata(NamedTuple):
    """The metadata of an export; not to be trusted until its digests are checked."""

    base: BaseIdentity
    blocks: tuple[ProjectionBlock, ...]
    dtype: torch.dtype
    info: dict[str, Any]
    key: str
    config: str
    seal: str


def _export_metadata(file: TensorFile) -> _ExportMetadata | None:
    """Return the metadata that an export added; None for a folder that another tool wrote."""
    if METADATA not in file.metadata:
        return None
    try:
        content = loads(file.metadata[METADATA])
        info, blocks = content["info"], content["blocks"]
        if not is_info(info) or not all(map(is_block, blocks)):
            raise ValueError("info or blocks have wrong types")
        dtype = DTYPE_NAMES[content["dtype"]]
        if not dtype.is_floating_point:
            raise ValueError("the dtype is not a floating-point type")
        return _ExportMetadata(
            base=BaseIdentity.of(content["base"], str(file.path)),
            blocks=tuple(ProjectionBlock(**block) for block in blocks),
            dtype=dtype,
            info=info,
            key=str(info.get("content_key") or info.get("recipe", {}).get("content_key")),
            config=str(content.get("config", "")),
            seal=file.metadata.get(SEAL, ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AdapterError(
            f"{file.path}: damaged: its metadata {METADATA!r} is not readable; export it again"
        ) from None


def _info(
    folder: Path, config: Mapping[str, Any], file: TensorFile, origin: _ExportMetadata | None
) -> dict[str, Any]:
    """Return an adapter's `info`: its export's, if unchanged since, else a new content key."""
    content = {"config": config, "weights": sha256_file(file.path)}
    own = {"task": folder.name, "content_key": digest(content)}
    if origin is None:
        return own
    sealed = bool(origin.seal and origin.config)
    decisive = peft_config.decisive_digest(config)
    if sealed and decisive == origin.config and is_sealed(file.path, origin.seal):
        return origin.info
    why = (
        f"its weights or settings were changed after it was exported as {origin.key!r}"
        if sealed
        else f"it holds no digest of what was exported as {origin.key!r}, by an earlier version"
    )
    _log.warning("%s: %s: the digest of its files is used as its content key", folder, why)
    return own | {"changed_from" if sealed else "unverified_from": origin.key}


def _weights(folder: Path) -> Path:
    path = folder / peft_names.WEIGHTS_FILE
    if path.is_file():
        return path
    if (folder / "adapter_model.bin").is_file():
        raise AdapterError(
            f"{folder}: adapter_model.bin is a pickle, which can run code when it is read; save "
            "the adapter as safetensors (PEFT: save_pretrained(..., safe_serialization=True))"
        )
    raise AdapterError(f"{folder}: {peft_names.WEIGHTS_FILE} is missing")


def _common_dtype(file: TensorFile) -> torch.dtype:
    dtypes = {spec.dtype for spec in map(file.spec, file) if spec is not None}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def _named_base(config: Mapping[str, Any]) -> BaseIdentity:
    name = str(config.get("base_model_name_or_path") or "")
    return BaseIdentity(name, str(config.get("revision") or ""), config="", weights="")


def _matched_by(config: Mapping[str, Any], modules: Mapping[str, LayerSpec]) -> tuple[str, ...]:
    """Return the `target_modules`, or the modules' full names if other options narrow them."""
    narrowing = ("exclude_modules", "layers_to_transform", "layers_pattern")
    targets = config.get("target_modules")
    if isinstance(targets, list) and not any(config.get(option) for option in narrowing):
        return tuple(sorted(targets))
    return tuple(sorted(modules))


def _with_mask(adapter: Adapter) -> Adapter:
    """Return the adapter with a mask of its nonzero entries, if most of B is zero."""
    sizes = [rows * columns for rows, columns in adapter.shapes.values()]
    if sum(int(adapter.values[n].count_nonzero()) for n in adapter.modules) > 0.5 * sum(sizes):
        return adapter
    dense = adapter.values
    parts = (dense[name].float().numpy() != 0 for name in adapter.modules)
    mask = Mask.from_parts(adapter.shapes, parts)
    values = OnDemand(
        adapter.modules, lambda n: entries_in_mask(dense[n], mask.of(n), n).to(adapter.dtype)
    )
    return replace(adapter, mask=mask, values=values)


def _with_keys(adapter: Adapter, origin: _ExportMetadata) -> Adapter:
    """Replace the stored A by the keys in the metadata, if they draw exactly this A."""
    blocks, dtype = origin.blocks, origin.dtype
    if not blocks or sum(block.rank for block in blocks) != adapter.rank:
        return adapter
    for name, size in adapter.modules.items():
        if not np.array_equal(draw(blocks, name, size.d_in).numpy(), adapter.A(name).numpy()):
            return adapter
    values = {name: adapter.values[name] for name in adapter.modules}
    if any(not torch.equal(v.to(dtype).to(v.dtype), v) for v in values.values()):
        dtype = adapter.dtype  # B was changed after the export
    values = {name: value.to(dtype) for name, value in values.items()}
    return replace(adapter, blocks=blocks, stored=None, values=values, dtype=dtype)
