"""`lori inspect`: what an adapter or mask is, and what it came from."""

from __future__ import annotations

from pathlib import Path

from lori_core import adapter as adapters
from lori_core import mask_file
from lori_core.errors import AdapterError
from lori_core.mask import Mask


def show(path: Path) -> None:
    """Print what stands at a path.

    Raises:
        AdapterError: if it is neither an adapter's folder nor a mask, or damaged.
    """
    if path.is_dir():
        _show_adapter(path)
    elif path.suffix == ".safetensors":
        mask, facts = mask_file.load(path)
        print(f"mask {path}")
        for key, value in facts.items():
            print(f"  {key:12} {value}")
        _show_mask(mask)
    else:
        raise AdapterError(f"{path}: neither an adapter's folder nor a mask (*.safetensors)")


def _show_adapter(path: Path) -> None:
    adapter = adapters.load(path)
    size = sum(file.stat().st_size for file in path.iterdir())
    dense = 4 * sum((d_in + d_out) * adapter.rank for d_in, d_out in adapter.modules.values())
    print(f"adapter {path}: verified")
    print(f"  base         {adapter.base.name} (weights {adapter.base.weights[:12]})")
    print(f"  rank, alpha  {adapter.rank}, {adapter.lora_alpha:g}")
    print(f"  modules      {len(adapter.modules)} ({', '.join(adapter.targets)})")
    keys = ", ".join(f"{b.key} (seed {b.seed}, rank {b.rank})" for b in adapter.blocks)
    print(f"  A            {keys or 'stored'}")
    print(f"  values       {adapter.values.numel():,} {str(adapter.values.dtype)[6:]}")
    print(f"  size         {size:,} bytes; as dense float32 LoRA {dense:,} ({dense / size:.1f}x)")
    for key, value in adapter.info.items():
        print(f"  {key:12} {value}")
    if adapter.mask is not None:
        _show_mask(adapter.mask)


def _show_mask(mask: Mask) -> None:
    print(f"  sparsity     {mask.sparsity:.4f} ({mask.count:,} of {mask.total:,} kept)")
    for group in ("projection", "layer"):
        kept = ", ".join(f"{k} {100 * v:.1f}" for k, v in mask.kept_by(group).items())
        print(f"  kept, % by {group}: {kept}")
