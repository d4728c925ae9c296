"""`lori inspect`: print an adapter's or mask's settings, origin and size by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.extraction import EXTRACTION
from lori_core.adapters.masks import mask_codec, mask_file
from lori_core.adapters.masks.mask import Mask
from lori_core.adapters.peft_format import peft_file
from lori_core.adapters.peft_format.base_copies import COPIES
from lori_core.core.errors import AdapterError
from lori_core.core.files.atomic import read_json
from lori_core.core.files.tensor_file import TensorFile
from lori_core.models import peft_names
from lori_core.models.base_identity import BaseIdentity

#: Adapters of version 1 have no checksum of `adapter.json`, masks of version 1 none at all.
_TENSORS_ONLY = "tensors verified; adapter.json not verified: version 1 holds no checksum of it"
_UNSEALED = "not verified: version 1 holds no checksum"


def show(path: Path) -> None:
    """Print the description of the adapter or mask at a path.

    Raises:
        AdapterError: the path is neither an adapter's folder nor a mask, or it is damaged.
    """
    if path.is_dir():
        _show_adapter(path)
    elif path.suffix == ".safetensors":
        mask, facts = mask_file.load(path)
        sealed = "sha256" in TensorFile(path).metadata
        print(f"mask {path}: {'verified' if sealed else _UNSEALED}")
        _print_all(facts)
        limit = mask_codec.entropy_bytes(mask.total, mask.count)
        print(f"  size         {path.stat().st_size:,} bytes (entropy limit {limit:,.0f})")
        _show_mask(mask)
    else:
        raise AdapterError(f"{path}: neither an adapter's folder nor a mask (*.safetensors)")


def _show_adapter(path: Path) -> None:
    adapter = peft_file.open_adapter(path, copies=True)
    print(f"adapter {path}: {_state(path, adapter)}")
    modules = adapter.modules.values()
    targets = ", ".join(adapter.targets[:8]) + (" …" if len(adapter.targets) > 8 else "")
    keys = ", ".join(f"{b.key} (seed {b.seed}, rank {b.rank})" for b in adapter.blocks)
    values = "all of B" if adapter.mask is None else "B inside its mask"
    _print_all(
        {
            "base": _base(adapter.base),
            "modules": f"{len(modules)} ({targets})",
            "rank": _mixed(module.rank for module in modules),
            "scaling": _mixed(f"{adapter.scaling(name):g}" for name in adapter.modules),
            "A": f"drawn from {keys}" if keys else "stored",
            "values": f"{adapter.count:,} {str(adapter.dtype)[6:]}, {values}",
            **_origin(adapter.info),
        }
    )
    _show_sizes(path, adapter)
    if adapter.mask is not None:
        _show_mask(adapter.mask)


def _base(base: BaseIdentity) -> str:
    """Return a base's name and the first digits of its digest, if one is known."""
    proof = base.tensors or base.weights
    known = f"weights {proof[:12]}" if proof else "its content is not known"
    return f"{base.name or 'not named'} ({known})"


def _state(path: Path, adapter: Adapter) -> str:
    """Return how far the folder's integrity was verified."""
    metadata = path / adapter_file.JSON_FILE
    if metadata.is_file():
        return "verified" if "checksum" in read_json(metadata) else _TENSORS_ONLY
    if "changed_from" in adapter.info:
        return "a PEFT folder, changed since it was exported"
    return "a PEFT folder"


def _origin(info: dict[str, Any]) -> dict[str, Any]:
    """Return an adapter's origin; for a merge, with an entry for each parent."""
    recipe = info.get("recipe", {})
    hidden = ("recipe", "depends", "left_out", EXTRACTION, COPIES)
    facts = {key: value for key, value in info.items() if key not in hidden}
    if EXTRACTION in info:
        facts |= _extraction(info[EXTRACTION])
    if COPIES in info:
        facts["holds"] = f"copies of the base's {', '.join(info[COPIES])}, not compared with it"
    left_out = [f"{', '.join(p)} ({why})" for why, p in info.get("left_out", {}).items()]
    facts |= {"left out": "; ".join(left_out)} if left_out else {}
    facts |= {key: value for key, value in recipe.items() if key not in ("parents", "code")}
    for number, parent in enumerate(recipe.get("parents", []), start=1):
        key = str(parent["content_key"])[:16]
        facts[f"parent {number}"] = f"{parent['weight']:g} x {parent['task']} (content key {key})"
    return facts


def _extraction(said: dict[str, Any]) -> dict[str, str]:
    """Return what an extraction kept of the squared norm, and what it left out."""
    shares: dict[str, float] = said["modules"]
    least = min(shares, key=shares.__getitem__)
    facts = {
        "extracted": f"rank {said['rank']}, {said['kept']:.2%} of the squared norm kept; of a "
        f"module in the mean {sum(shares.values()) / len(shares):.2%}, at least "
        f"{shares[least]:.2%} ({least})"
    }
    return facts | ({"left out": ", ".join(said["ignored"])} if said["ignored"] else {})


def _mixed(values: Iterable[object]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{value} ({count} modules)" for value, count in counts.most_common(6))


def _show_sizes(path: Path, adapter: Adapter) -> None:
    """Print the bytes of each part, of the dense form, and the entropy limit."""
    ours = (path / adapter_file.JSON_FILE).is_file()
    file = TensorFile(path / (adapter_file.TENSOR_FILE if ours else peft_names.WEIGHTS_FILE))
    parts: dict[str, int] = {"values of B": 0, "mask": 0, "A": 0}
    for name, entry in file.entries.items():
        kind = "mask" if name == "mask" else "A" if _is_a(name) else "values of B"
        parts[kind] += entry.stop - entry.start
    size = sum(item.stat().st_size for item in path.iterdir() if item.is_file())
    parts["names, JSON"] = size - sum(parts.values())
    dense = 4 * sum((m.d_in + m.d_out) * m.rank for m in adapter.modules.values())
    print("  bytes")
    for part, count in parts.items():
        print(f"    {part:12} {count:>14,}")
    print(f"    {'all':12} {size:>14,}")
    print(f"    {'dense LoRA':12} {dense:>14,}  float32, A and B: {dense / size:.1f} times as much")
    if adapter.mask is not None:
        mask = adapter.mask
        coded = mask_codec.entropy_bytes(mask.total, mask.count)
        limit = coded + adapter.count * adapter.dtype.itemsize
        print(f"    {'limit':12} {limit:>14,.0f}  values, and a mask at its entropy ({coded:,.0f})")


def _is_a(name: str) -> bool:
    return name.startswith("A.") or ".lora_A." in name


def _show_mask(mask: Mask) -> None:
    print(f"  sparsity     {mask.sparsity:.4f} ({mask.count:,} of {mask.total:,} kept)")
    for group in ("projection", "layer"):
        density = mask.density_by(group)
        top = max(density.values()) or 1
        print(f"  kept, % by {group}")
        for name, share in density.items():
            print(f"    {name:12} {100 * share:6.2f} {'#' * round(40 * share / top)}")


def _print_all(facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        print(f"  {key:12} {value}")
