"""Write compact adapter folders of format version 2, and read all versions (docs/format.md).

`adapter.json` holds the adapter's settings and origin. `adapter.safetensors` holds `B.<module>`
(the values in mask order) for each module, `A.<module>` only if A cannot be drawn from keys, and
`mask`, coded by `mask_codec`, unless B is dense.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lori_core.adapters import projection
from lori_core.adapters.adapter import (
    Adapter,
    LayerSpec,
    ProjectionBlock,
    block_fingerprint,
    draw,
    is_block,
    is_info,
)
from lori_core.adapters.masks import mask_codec
from lori_core.adapters.masks.mask import Mask
from lori_core.core.errors import AdapterError, shown
from lori_core.core.files.atomic import (
    checksum_fits,
    digest,
    json_text,
    read_json,
    replaced_folder,
    sha256_file,
    write_text,
)
from lori_core.core.files.tensor_file import (
    DTYPE_NAMES,
    Renamed,
    Spec,
    TensorFile,
    check_finite,
    write,
)
from lori_core.models.base_identity import BaseIdentity

FORMAT = "lori-adapter/2"
JSON_FILE = "adapter.json"
TENSOR_FILE = "adapter.safetensors"
#: The largest d_in, d_out or rank accepted from a file, which bounds the memory it can claim.
_MAX_SIZE = 1 << 20
#: The most entries of B per stored value, which bounds the size of a decoded mask.
_MAX_ENTRIES_PER_VALUE = 100_000


def save(adapter: Adapter, folder: Path) -> Adapter:
    """Write or replace an adapter's folder atomically, one module in memory at a time.

    Returns:
        The adapter with the SHA-256 of its projections filled in.
    """
    blocks = tuple(
        b if b.sha256 else replace(b, sha256=block_fingerprint(b, adapter.modules))
        for b in adapter.blocks
    )
    adapter = replace(adapter, blocks=blocks)
    coded = None if adapter.mask is None else mask_codec.encode(adapter.mask.bits)
    specs = _specs(adapter)
    if coded is not None:
        specs["mask"] = Spec(torch.uint8, (coded.size,))
    with replaced_folder(folder) as work:
        file = work / TENSOR_FILE
        write(file, specs, _tensors(adapter, coded), {"format": FORMAT})
        content = _content(adapter, sha256_file(file))
        write_text(work / JSON_FILE, json_text(content | {"checksum": digest(content)}))
    return adapter


def _specs(adapter: Adapter) -> dict[str, Spec]:
    specs = {}
    counts = None if adapter.mask is None else adapter.mask.counts
    for name, size in adapter.modules.items():
        if adapter.stored is not None:
            specs[f"A.{name}"] = Spec(adapter.dtype, (size.rank, size.d_in))
        count = size.d_out * size.rank if counts is None else counts[name]
        specs[f"B.{name}"] = Spec(adapter.dtype, (count,))
    return specs


def _tensors(adapter: Adapter, coded: Any) -> Iterator[Tensor]:
    for name in adapter.modules:
        if adapter.stored is not None:
            yield adapter.stored[name]
        yield adapter.values[name]
    if coded is not None:
        yield torch.from_numpy(coded)


def _content(adapter: Adapter, sha256: str) -> dict[str, Any]:
    mask = adapter.mask
    return {
        "format": FORMAT,
        "base": adapter.base.as_dict(),
        "modules": [
            [name, m.d_in, m.d_out, m.rank, m.lora_alpha] for name, m in adapter.modules.items()
        ],
        "use_rslora": adapter.use_rslora,
        "fan_in_fan_out": adapter.fan_in_fan_out,
        "matched_by": list(adapter.matched_by),
        "projection": {
            "generator": projection.GENERATOR,
            "blocks": [asdict(block) for block in adapter.blocks],
        },
        "mask": None if mask is None else {"coding": mask_codec.NAME, "count": mask.count},
        "dtype": str(adapter.dtype).removeprefix("torch."),
        "info": adapter.info,
        "sha256": sha256,
    }


def load(folder: Path, *, verify_projection: bool = True) -> Adapter:
    """Read an adapter's folder, verifying its checksums, format, generator, finite values and A.

    Args:
        folder: a compact adapter of any version.
        verify_projection: whether to draw A and compare it with its SHA-256. A merge that only
            copies the keys can skip this.

    Raises:
        AdapterError: the folder is damaged, or of an unknown format or generator.
    """
    if not (folder / JSON_FILE).is_file():
        raise AdapterError(f"{folder}: no adapter here ({JSON_FILE} is missing)")
    content = read_json(folder / JSON_FILE)
    reader = READERS.get(str(content.get("format")) if isinstance(content, dict) else "")
    if reader is None:
        known = ", ".join(READERS)
        raise AdapterError(f"{folder / JSON_FILE}: format is not known here (known: {known})")
    try:
        _check_types(content, folder / JSON_FILE)
        adapter = reader(folder, content)
        _check_ranks(adapter, folder / JSON_FILE)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        path, what = folder / JSON_FILE, f"{type(error).__name__}: {error}"
        raise AdapterError(f"{path}: damaged ({what}); restore it, or train again") from None
    for name in adapter.modules:
        check_finite(adapter.values[name], f"{folder / TENSOR_FILE}: B of {name}")
        if adapter.stored is not None:
            check_finite(adapter.stored[name], f"{folder / TENSOR_FILE}: A of {name}")
    if verify_projection:
        check_projection(adapter, folder)
    return adapter


def _check_types(content: Mapping[str, Any], path: Path) -> None:
    """Refuse values of types that no format version writes."""
    targets = content.get("matched_by", [])
    fits = {
        "info": is_info(content["info"]),
        "matched_by": isinstance(targets, list) and all(isinstance(name, str) for name in targets),
        "modules": _are_modules(content["modules"]),
        "rank": "rank" not in content or _is_size(content["rank"]),
        "lora_alpha": "lora_alpha" not in content or _is_alpha(content["lora_alpha"]),
        "mask": isinstance(content.get("mask"), dict | None),
        "dtype": _is_dtype(content.get("dtype", "float32")),
        "base": isinstance(content["base"], dict),
        "sha256": isinstance(content["sha256"], str),
        "projection": all(map(is_block, content["projection"]["blocks"])),
    }
    fits |= {
        name: isinstance(content.get(name, False), bool)
        for name in ("use_rslora", "fan_in_fan_out")
    }
    for name, fit in fits.items():
        if not fit:
            raise AdapterError(
                f"{path}: damaged: {name} is {shown(content.get(name))}, which is not valid there; "
                "restore it, or train again"
            )


def _are_modules(items: Any) -> bool:
    """Return whether module names are unique, with sizes above 0 (and a lora_alpha)."""
    names = [name for name, *_ in items]
    return (
        0 < len(names) == len(set(names))
        and all(isinstance(name, str) for name in names)
        and all(_is_size(size) for _, *sizes in items for size in sizes[:3])
        and all(_is_alpha(alpha) for _, *sizes in items for alpha in sizes[3:])
    )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_SIZE


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= sys.float_info.max


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in DTYPE_NAMES and DTYPE_NAMES[value].is_floating_point


def _check_ranks(adapter: Adapter, path: Path) -> None:
    rank = sum(block.rank for block in adapter.blocks)
    for name, module in adapter.modules.items():
        if adapter.blocks and module.rank != rank:
            raise AdapterError(
                f"{path}: damaged: {shown(name)} has rank {module.rank}, its keys draw {rank} "
                "rows; restore it, or train again"
            )


def check_projection(adapter: Adapter, where: Path) -> None:
    """Draw A from its keys and compare its SHA-256 with the one recorded in training.

    Raises:
        AdapterError: the digests differ.
    """
    for block in adapter.blocks:
        if block.sha256 and block_fingerprint(block, adapter.modules) != block.sha256:
            raise AdapterError(
                f"{where}: A drawn from the key {block.key!r} is not the A it was trained with; "
                "use the version of this project that wrote it"
            )


def _checked_file(folder: Path, sha256: str) -> TensorFile:
    path = folder / TENSOR_FILE
    if not path.is_file() or sha256_file(path) != sha256:
        raise AdapterError(
            f"{path}: damaged or missing (its SHA-256 is not {sha256}); restore it, or train again"
        )
    return TensorFile(path)


def _check_generator(folder: Path, generator: str) -> None:
    if generator != projection.GENERATOR:
        raise AdapterError(
            f"{folder}: A was drawn by {generator!r}; this version draws with "
            f"{projection.GENERATOR!r}"
        )


def _read_version_2(folder: Path, content: dict[str, Any]) -> Adapter:
    path = folder / JSON_FILE
    if not checksum_fits(content) or json_text(content) != path.read_text("utf-8"):
        raise AdapterError(f"{path}: damaged or edited (its checksum does not fit)")
    file = _checked_file(folder, content["sha256"])
    _check_generator(folder, content["projection"]["generator"])
    modules = {name: LayerSpec(*sizes) for name, *sizes in content["modules"]}
    shapes = {name: (module.d_out, module.rank) for name, module in modules.items()}
    blocks = tuple(ProjectionBlock(**block) for block in content["projection"]["blocks"])
    adapter = Adapter(
        base=BaseIdentity.of(content["base"], str(folder / JSON_FILE)),
        modules=modules,
        blocks=blocks,
        mask=_mask(file, shapes, content["mask"]) if content["mask"] else None,
        values=Renamed(file, {name: f"B.{name}" for name in modules}),
        stored=None if blocks else Renamed(file, {name: f"A.{name}" for name in modules}),
        dtype=DTYPE_NAMES[content["dtype"]],
        info=content["info"],
        fan_in_fan_out=content["fan_in_fan_out"],
        use_rslora=content["use_rslora"],
        matched_by=tuple(content["matched_by"]),
    )
    specs = _specs(adapter)
    for name, spec in specs.items():
        if file.spec(name) != spec:
            raise AdapterError(f"{file.path}: {name} is {file.spec(name)}, expected {spec}")
    unused = sorted(set(file) - set(specs) - ({"mask"} if adapter.mask else set()))
    if unused:
        raise AdapterError(
            f"{path}: damaged: no module or mask of it uses {unused[0]} in {file.path.name}; "
            "restore it, or train again"
        )
    return adapter


def _mask(file: TensorFile, shapes: dict[str, tuple[int, int]], coding: Mapping[str, Any]) -> Mask:
    if coding["coding"] != mask_codec.NAME:
        raise AdapterError(f"{file.path}: mask coding {coding['coding']!r} is not known here")
    total = sum(rows * columns for rows, columns in shapes.values())
    stored = sum(math.prod(file.entries[name].shape) for name in file if name.startswith("B."))
    if total > _MAX_ENTRIES_PER_VALUE * max(stored, 10):
        raise AdapterError(
            f"{file.path}: damaged: {stored} values of {total} entries; restore it, or train again"
        )
    try:
        mask = Mask(shapes, mask_codec.decode(file["mask"].numpy(), total))
    except AdapterError as error:
        raise AdapterError(f"{file.path}: {error}") from None
    if mask.count != coding["count"]:
        raise AdapterError(f"{file.path}: {mask.count} entries kept, {coding['count']} expected")
    return mask


def _read_version_1(folder: Path, content: dict[str, Any]) -> Adapter:
    """Read version 1: one rank and alpha, one flat vector of values, the mask as packed bits."""
    file = _checked_file(folder, content["sha256"])
    _check_generator(folder, content["projection"]["generator"])
    rank = content["rank"]
    modules = {
        name: LayerSpec(d_in, d_out, rank, content["lora_alpha"])
        for name, d_in, d_out in content["modules"]
    }
    shapes = {name: (module.d_out, rank) for name, module in modules.items()}
    mask = Mask(shapes, file["mask"].numpy()) if "mask" in file else None
    sizes = [rows * columns for rows, columns in shapes.values()]
    values = file["values"]
    parts = torch.split(values, sizes if mask is None else [mask.counts[n] for n in modules])
    blocks = tuple(ProjectionBlock(**block) for block in content["projection"]["blocks"])
    if blocks:
        blocks = _version_1_blocks(folder, blocks, modules, content["projection"]["sha256"])
    return Adapter(
        base=BaseIdentity.of(content["base"], str(folder / JSON_FILE)),
        modules=modules,
        blocks=blocks,
        mask=mask,
        values=dict(zip(modules, parts, strict=True)),
        stored=None if blocks else Renamed(file, {name: f"A.{name}" for name in modules}),
        dtype=values.dtype,
        info=content["info"],
        fan_in_fan_out=content["fan_in_fan_out"],
    )


def _version_1_blocks(
    folder: Path, blocks: tuple[ProjectionBlock, ...], modules: Mapping[str, LayerSpec], sha256: str
) -> tuple[ProjectionBlock, ...]:
    """Return the blocks; check the one SHA-256 that version 1 has over several stacked blocks."""
    if len(blocks) == 1:
        return (replace(blocks[0], sha256=sha256),)
    stacked = projection.fingerprint((n, draw(blocks, n, m.d_in)) for n, m in modules.items())
    if stacked != sha256:
        raise AdapterError(f"{folder}: A drawn from its keys is not the A it was trained with")
    return blocks


READERS = {"lori-adapter/1": _read_version_1, FORMAT: _read_version_2}
