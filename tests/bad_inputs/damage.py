"""Good adapters, masks and models, and ways to damage them."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bad_inputs.commands import Commands

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
OURS = "adapter.json"
MODULE = "model.layers.0.self_attn.q_proj"
KEYS = [f"base_model.model.{MODULE}.lora_{side}.weight" for side in "AB"]
#: Stands for a key that is taken away.
GONE: Any = object()


@dataclass(frozen=True)
class Damaged:
    """A command on a good file or folder that was damaged; it must be refused."""

    id: str
    #: Which good one: `peft`, `ours`, `mask.safetensors`, `model`.
    what: str
    #: Damages it, given its path.
    damage: Callable[[Path], object]
    #: What the line must say.
    says: tuple[str, ...] = ()
    argv: tuple[str, ...] = field(default=())

    def check(self, lori: Commands, project: Path, good: Path) -> None:
        """Run the command on a damaged copy in a project and assert that it is refused."""
        copy_good(good, project)
        self.damage(project / self.what)
        argv = self.argv or ("inspect", self.what)
        line = lori.run(argv, project, watched=project.parent).refusal()
        for words in self.says:
            assert words in line


def copy_good(good: Path, project: Path) -> None:
    """Copy all good files and folders into a project."""
    for path in good.iterdir():
        if path.is_dir():
            shutil.copytree(path, project / path.name)
        else:
            shutil.copy(path, project / path.name)


def each(cases: list[Damaged]) -> pytest.MarkDecorator:
    """Return what runs a test with each case, by its id."""
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids), sorted(name for name in ids if ids.count(name) > 1)
    return pytest.mark.parametrize("case", cases, ids=ids)


def make_good(folder: Path) -> None:
    """Write `peft`, `ours` and `mask.safetensors`, each as small as it can be."""
    import numpy as np
    import torch

    from lori_core.adapters import adapter_file
    from lori_core.adapters.adapter import Adapter, LayerSpec, ProjectionBlock
    from lori_core.adapters.masks import mask_file
    from lori_core.adapters.masks.mask import Mask
    from lori_core.models.base_identity import BaseIdentity

    (folder / "peft").mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "random:llama",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "peft" / PEFT_CONFIG).write_text(json.dumps(config))
    half = struct.pack("<f", 0.5) * 256
    shapes = zip(KEYS, ([4, 64], [64, 4]), (0, 1024), strict=True)
    header = {
        key: {"dtype": "F32", "shape": shape, "data_offsets": [start, start + 1024]}
        for key, shape, start in shapes
    }
    write_tensors(folder / "peft" / PEFT_WEIGHTS, header, half + half)
    kept = np.arange(256) % 5 == 0
    mask = Mask.from_parts({MODULE: (64, 4)}, [kept])
    adapter = Adapter(
        base=BaseIdentity("random:llama", "", "c", "w"),
        modules={MODULE: LayerSpec(64, 64, 4, 8)},
        blocks=(ProjectionBlock(42, "math", 4),),
        mask=mask,
        values={MODULE: torch.ones(mask.count)},
        info={"task": "math", "content_key": "key"},
    )
    adapter_file.save(adapter, folder / "ours")
    facts = {"count": mask.count, "sparsity": 0.8, "calibration": "key"}
    mask_file.save(mask, facts, folder / "mask.safetensors")


def edited(name: str, changes: Mapping[str, Any]) -> Callable[[Path], object]:
    """Return what changes keys of a JSON object in a folder."""

    def damage(folder: Path) -> None:
        path = folder / name
        said = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in said.items() if v is not GONE}))

    return damage


def replaced(name: str, content: bytes | str) -> Callable[[Path], object]:
    """Return what gives a file in a folder another content."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def appended(name: str, text: str) -> Callable[[Path], object]:
    """Return what puts text before the last brace of a JSON object in a folder."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(path.read_text().rstrip()[:-1] + text + "}")

    return damage


def recoded(name: str, recode: Callable[[str], bytes]) -> Callable[[Path], object]:
    """Return what writes a text file in a folder in another way."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(recode(path.read_text()))

    return damage


def not_a_file(name: str, kind: str) -> Callable[[Path], object]:
    """Return what puts something else in the place of a file in a folder."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.unlink()
        links = {"loop": path.name, "zero": "/dev/zero", "null": "/dev/null", "nowhere": "no"}
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "empty":
            path.touch()
        elif kind in links:
            path.symlink_to(links[kind])

    return damage


def resealed(*place: str | int, value: Any) -> Callable[[Path], object]:
    """Return what changes a value in `adapter.json` and gives the file a checksum that fits."""

    def damage(folder: Path) -> None:
        from lori_core.core.files.atomic import digest, json_text

        path = folder / OURS
        said = json.loads(path.read_text())
        inner = said
        for step in place[:-1]:
            inner = inner[step]
        if value is GONE:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        said.pop("checksum")
        path.write_text(json_text(said | {"checksum": digest(said)}))

    return damage


Header = dict[str, Any]


def tensors(change: Callable[[Header, bytes], Any], name: str = PEFT_WEIGHTS) -> Any:
    """Return what changes a safetensors file in a folder.

    `change` gets its header and data; it changes the header in place, or returns the new header
    and data, or the new bytes of the whole file.
    """

    def damage(folder: Path) -> None:
        path = folder / name if name else folder
        header, data = read_tensors(path)
        made = change(header, data)
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            write_tensors(path, *(made or (header, data)))

    return damage


def read_tensors(path: Path) -> tuple[Header, bytes]:
    """Return the header and the data of a safetensors file."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_tensors(path: Path, header: Header | bytes, data: bytes) -> None:
    """Write a safetensors file, its header as JSON or as it stands."""
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(said)) + said + data)
