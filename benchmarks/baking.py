"""Merging an adapter into a base of Llama-3-8B's shape (bf16, r = 32), against `cp` of its files.

The limit is `cp -r` of the base's folder. The peer loads the base, attaches the adapter, merges it
and saves the model with PEFT and transformers; it runs on the first layers only, so that the model
fits in memory. Weights are random.

The ways alternate. Before each run the outputs of the previous run are deleted and synced to disk,
and the page cache is filled, with the base last: so the base is cached as far as it fits, and no
way gets free memory (which a virtual machine may have to fetch from its host, at ten times the cost
of the copy). No way calls fsync. The time is that of the work itself: of the process for `cp`, of
`bake` for ours, and from loading to saving for the peer, without starting Python and importing.
Another process on the second core slows baking, which uses both cores, more than `cp`.

    python -m benchmarks.baking [--layers 32] [--peer-layers 8] [--folder DIR]

The folder (by default the system's temporary one) needs space for twice the base: 33 GB at 32
layers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.adapters import show
from benchmarks.shapes import HIDDEN, INTERMEDIATE, KEYS, LAYERS, llama3_8b, sparse_adapter
from lori_core.adapters import adapter_file, merge_into_base
from lori_core.adapters.peft_format import peft_file
from lori_core.core.files.tensor_file import Spec

VOCABULARY = 128256
SHARD = 5_000_000_000  # bytes
TIMES = 3


def rows(folder: Path, layers: int = LAYERS, peer_layers: int = 8) -> list[dict[str, Any]]:
    """Measure in a scratch folder; return a row for each measurement."""
    return [*_against_cp(folder, layers), *_against_peft(folder, peer_layers)]


def _against_cp(folder: Path, layers: int) -> list[dict[str, Any]]:
    work = folder / f"cp-{layers}"
    size = make(work, layers)
    runs = _alternately(work, ("cp", "bake"))
    shutil.rmtree(work)
    cp, bake = _median(runs["cp"]), _median(runs["bake"])
    ratios = [b[0] / c[0] for b, c in zip(runs["bake"], runs["cp"], strict=True)]
    what = f"{layers} layers"
    return [
        {"what": f"{what}: base", "value": size / 1e9, "unit": "GB"},
        {"what": f"{what}: cp", "value": cp, "unit": "s"},
        {"what": f"{what}: cp, read and written", "value": 2 * size / 1e9 / cp, "unit": "GB/s"},
        {"what": f"{what}: bake", "value": bake, "unit": "s"},
        {"what": f"{what}: bake, read and written", "value": 2 * size / 1e9 / bake, "unit": "GB/s"},
        {"what": f"{what}: bake / cp", "value": bake / cp, "unit": "x", "goal": "<= 1.25"},
        {"what": f"{what}: bake / cp, least of {TIMES}", "value": min(ratios), "unit": "x"},
        {"what": f"{what}: bake / cp, most of {TIMES}", "value": max(ratios), "unit": "x"},
        {"what": "its peak RSS", "value": _memory(runs["bake"]), "unit": "GB", "goal": "<= 2"},
    ]


def _against_peft(folder: Path, layers: int) -> list[dict[str, Any]]:
    work = folder / f"peft-{layers}"
    make(work, layers)
    runs = _alternately(work, ("peft", "bake"))
    shutil.rmtree(work)
    peft, bake = _median(runs["peft"]), _median(runs["bake"])
    what = f"{layers} layers"
    return [
        {"what": f"{what}: PEFT, load to save", "value": peft, "unit": "s"},
        {"what": f"{what}: PEFT, peak RSS", "value": _memory(runs["peft"]), "unit": "GB"},
        {"what": f"{what}: bake", "value": bake, "unit": "s"},
        {"what": f"{what}: bake, peak RSS", "value": _memory(runs["bake"]), "unit": "GB"},
        {"what": f"{what}: PEFT / bake", "value": peft / bake, "unit": "x"},
    ]


#: Seconds, and peak RSS in GB where it is known.
Run = tuple[float, float]


def _alternately(work: Path, ways: Sequence[str]) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    for _ in range(TIMES):
        for way in ways:
            _settle(work)
            runs[way].append(_cp(work) if way == "cp" else _in_a_process(way, work))
            shutil.rmtree(work / "out")
    return runs


def _settle(work: Path) -> None:
    """Fill the page cache: first with a sparse file, then with the base."""
    os.sync()
    filler = work / "filler"
    with filler.open("wb") as file:
        file.truncate(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in (filler, *sorted((work / "base").iterdir())):
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 22)
            while file.readinto(buffer):
                pass
    time.sleep(1)


def _cp(work: Path) -> Run:
    start = time.perf_counter()
    subprocess.run(["cp", "-r", str(work / "base"), str(work / "out")], check=True)
    return time.perf_counter() - start, 0.0


def _in_a_process(way: str, work: Path) -> Run:
    """Measure in a process of its own, because peak memory is measured per process."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.baking", way, str(work)],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def _baking(work: Path) -> Callable[[], object]:
    """Import everything; return the function to time."""
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401 - imports it

    adapter = adapter_file.load(work / "adapter", verify_projection=False)
    modules = {name: (module.d_in, module.d_out) for name, module in adapter.modules.items()}

    def update(name: str) -> merge_into_base.Update:
        return merge_into_base.Update(adapter.A(name), adapter.B(name), adapter.scaling(name))

    return lambda: merge_into_base.merge_into_base(work / "base", work / "out", modules, update)


def _merging(work: Path) -> Callable[[], object]:
    """Import everything; return the function to time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401 - imports it

    def merge() -> None:
        base = AutoModelForCausalLM.from_pretrained(work / "base", dtype=torch.bfloat16)
        merged: Any = PeftModel.from_pretrained(base, work / "peft").merge_and_unload()
        merged.save_pretrained(work / "out", max_shard_size=SHARD)

    return merge


WAYS = {"bake": _baking, "peft": _merging}


def _measure(way: Callable[[], object]) -> None:
    start = time.perf_counter()
    way()
    seconds = time.perf_counter() - start
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps([seconds, peak * 1024 / 1e9]))


def make(work: Path, layers: int) -> int:
    """Write the base, and the adapter in our and in PEFT's format; return the weights' bytes."""
    need = 2.2 * sum(_size(shape) for shape in _shapes(layers).values())
    work.mkdir(parents=True)
    if shutil.disk_usage(work).free < need:
        raise SystemExit(
            f"{work}: {need / 1e9:.0f} GB of free disk are needed (--folder, --layers)"
        )
    adapter = sparse_adapter("math", 1, layers)
    adapter_file.save(adapter, work / "adapter")
    peft_file.export_peft(adapter, work / "peft")
    return _make_base(work / "base", layers)


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a Llama-3-8B's tensors, with `layers` layers, in its files' order."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for name, (d_in, d_out) in llama3_8b(layers).items():
        found[f"{name}.weight"] = (d_out, d_in)
        if name.endswith("down_proj"):
            layer = name.rsplit(".", 2)[0]
            found[f"{layer}.input_layernorm.weight"] = (HIDDEN,)
            found[f"{layer}.post_attention_layernorm.weight"] = (HIDDEN,)
    return {**found, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def _size(shape: Sequence[int]) -> int:
    return 2 * torch.Size(shape).numel()


def _make_base(folder: Path, layers: int) -> int:
    from transformers import LlamaConfig

    LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=KEYS // 128,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in _shapes(layers).items():
        if sum(map(_size, shards[-1].values())) + _size(shape) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_random(folder / file, shard)
        places |= dict.fromkeys(shard, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _write_random(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write tensors of random values that repeat every 8 Mi, since drawing 8 G takes minutes."""
    from lori_core.core.files import tensor_file

    values = torch.randn(1 << 23, generator=torch.Generator().manual_seed(0)).mul(0.02).bfloat16()
    specs = {name: Spec(torch.bfloat16, shape) for name, shape in shapes.items()}
    repeated = (
        values.repeat(-(-torch.Size(shape).numel() // len(values)))[: torch.Size(shape).numel()]
        for shape in shapes.values()
    )
    made = (tensor.view(shape) for tensor, shape in zip(repeated, shapes.values(), strict=True))
    tensor_file.write(path, specs, made, {"format": "pt"})


def _median(runs: Sequence[Run]) -> float:
    return sorted(seconds for seconds, _ in runs)[len(runs) // 2]


def _memory(runs: Sequence[Run]) -> float:
    return max(memory for _, memory in runs)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baking")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--peer-layers", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where files are put, and deleted")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lori-bench-", dir=args.folder) as name:
        show(rows(Path(name), args.layers, args.peer_layers))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        _measure(WAYS[sys.argv[1]](Path(sys.argv[2])))
    else:
        main()
